package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"rolekey/masterd/query"
	"rolekey/masterd/rapi/wire"
)

// Node makes the commands of gnt-node.
func Node(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gnt-node",
		Short: "Manage nodes and their roles",
		Example: `  gnt-node add node2.example.org | ssh node2 noded join -
  gnt-node list
  gnt-node modify --master-candidate=yes node2`,
	}
	cmd.AddCommand(
		a.addCommand(), a.listNodesCommand(), listFieldsCommand(a, query.Nodes, "node"), a.nodeInfoCommand(), a.modifyCommand(), a.removeCommand(), a.tokensCommand(),
	)
	cmd.AddCommand(a.renameCommand(), a.acceptHostKeysCommand())
	cmd.AddCommand(a.nodeTagCommands()...)
	return cmd
}

// nodes returns all nodes, or those that are named.
func (a *app) nodes(ctx context.Context, refs []string) ([]wire.Node, error) {
	list := []wire.Node{}
	if len(refs) == 0 {
		return list, a.client.get(ctx, "/2/nodes?bulk=1", &list)
	}
	for _, ref := range refs {
		var n wire.Node
		if err := a.client.get(ctx, nodePath(ref, ""), &n); err != nil {
			return nil, unknownNode(err, ref)
		}
		list = append(list, n)
	}
	return list, nil
}

func (a *app) modifyCommand() *cobra.Command {
	var m wire.NodeModify
	var at place
	var s submission
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "modify NODE",
		Short: "Change a node's role, capabilities or addresses",
		Long: `Changes flags of a node, or where it is, and waits until the new candidate map has
reached all nodes that can be reached. Exit code 3 says that the change is
committed, and that some nodes have not confirmed it; each is named with the times
at which its trust in the former map ends by itself.

A new address is taken only if the node answers there; so give the machine the new
address beside the old one first, name both here, and later the new one alone.`,
		Example: `  gnt-node modify --master-candidate=yes node2
  gnt-node modify -O yes --auto-promote node2
  gnt-node modify --address 192.0.2.12 --address 198.51.100.2 node2`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := at.into(&m); err != nil {
				return err
			}
			if m.MasterCandidate == nil && m.Drained == nil && m.Offline == nil && m.MasterCapable == nil && m.VMCapable == nil && !m.Moves() {
				return usage("Please give at least one of the parameters.")
			}
			return a.modify(cmd.Context(), s, args[0], m)
		},
	})
	f := cmd.Flags()
	f.VarP(switchValue{&m.MasterCandidate}, "master-candidate", "C", "make the node a master candidate, or a regular node")
	f.VarP(switchValue{&m.Drained}, "drained", "D", "set or unset the drained flag")
	f.VarP(switchValue{&m.Offline}, "offline", "O", "set or unset the offline flag")
	f.Var(switchValue{&m.MasterCapable}, "master-capable", "whether the node may become a master candidate")
	f.Var(switchValue{&m.VMCapable}, "vm-capable", "whether the node may host instances")
	f.BoolVar(&m.AutoPromote, "auto-promote", false, "promote other nodes to keep the candidate pool full")
	at.flags(f, "the node's addresses, instead of those it has; the first is the primary one (repeatable)")
	f.BoolVarP(&m.Force, "force", "f", false, "take new addresses although the node does not answer there")
	s.flags(cmd)
	s.rotateFlag(cmd)
	return cmd
}

// modified is the JSON of gnt-node modify.
type modified struct {
	Job         int64              `json:"job"`
	Node        string             `json:"node"`
	Changes     [][2]string        `json:"changes"` // flag, and True or False
	Unreachable []wire.Unreachable `json:"unreachable"`
}

func (a *app) modify(ctx context.Context, s submission, node string, m wire.NodeModify) error {
	id, state, ok, err := a.change(ctx, s, http.MethodPost, nodePath(node, "/modify"), m)
	if !ok {
		return err
	}
	out := modified{Job: id, Node: node, Unreachable: state.unreachable}
	if out.Changes, err = state.changes(id); err != nil {
		return err
	}
	if a.asJSON {
		return errors.Join(a.printJSON(out), a.pending(out.Unreachable))
	}
	if len(out.Changes) > 0 {
		fmt.Fprintf(a.out, "%s node %s\n", s.done("Modified", "Would modify"), node)
	}
	for _, c := range out.Changes {
		fmt.Fprintf(a.out, " - %-5s -> %s\n", c[0], c[1])
	}
	return a.pending(out.Unreachable)
}

func (a *app) removeCommand() *cobra.Command {
	var s submission
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "remove NODE",
		Short: "Remove a node from the cluster",
		Long: `Removes a node: every other node refuses it from then on. The node itself need
not be reachable, nor be alive. On the machine itself  noded leave --yes  destroys
what is left of the cluster.`,
		Example: "  gnt-node remove node4 && ssh node4 noded leave --yes",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, state, ok, err := a.change(cmd.Context(), s, http.MethodDelete, nodePath(args[0], ""), nil)
			if !ok {
				return err
			}
			if a.asJSON {
				err = a.printJSON(modified{id, args[0], [][2]string{}, state.unreachable})
			} else if !s.dryRun {
				a.note("Node %s is removed. On that machine, if it lives:  noded leave --yes", args[0])
			}
			return errors.Join(err, a.pending(state.unreachable))
		},
	})
	s.flags(cmd)
	s.rotateFlag(cmd)
	return cmd
}
