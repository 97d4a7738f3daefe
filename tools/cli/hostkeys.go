package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

func (a *app) acceptHostKeysCommand() *cobra.Command {
	var s submission
	var reject, force bool
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "accept-host-keys NODE",
		Short: "Accept or reject SSH host keys of a master candidate that have changed",
		Long: `Shows the host keys, and the port, that the sshd of a master candidate had and has,
asks, and puts the new ones into the roster. Until then root's ssh on all nodes
compares with the old ones and refuses the node. Compare the fingerprints with
those on the machine itself:  for f in /etc/ssh/ssh_host_*.pub; do ssh-keygen -lf $f; done

Those of other nodes are accepted by themselves when the node's own identity has
signed them; each change is in the audit log.`,
		Example: "  gnt-node accept-host-keys node2\n  gnt-node accept-host-keys --reject node2",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d wire.NodeDetails
			if err := a.client.get(cmd.Context(), nodePath(args[0], "/details"), &d); err != nil {
				return unknownNode(err, args[0])
			}
			p := d.PendingHostKeys
			if p == nil {
				return cluster.Errorf(cluster.CodeNotFound, "Node %s has no host keys that wait for a decision", args[0]).
					WithHint("gnt-cluster verify compares the host keys of all nodes with the roster")
			}
			if !force && !s.dryRun {
				if err := a.confirm(hostKeysQuestion(args[0], d, reject)); err != nil {
					return err
				}
			}
			return a.decideHostKeys(cmd, s, args[0], wire.HostKeysDecision{Digest: p.Digest, Reject: reject})
		},
	})
	f := cmd.Flags()
	f.BoolVar(&reject, "reject", false, "do not believe the node, however often it says the same")
	f.BoolVarP(&force, "force", "f", false, "do not ask")
	s.flags(cmd)
	return cmd
}

func (a *app) decideHostKeys(cmd *cobra.Command, s submission, node string, d wire.HostKeysDecision) error {
	id, state, ok, err := a.change(cmd.Context(), s, http.MethodPost, nodePath(node, "/host-keys"), d)
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
	for _, c := range out.Changes {
		fmt.Fprintf(a.out, " - %s -> %s\n", c[0], c[1])
	}
	return a.pending(out.Unreachable)
}

// hostKeysQuestion shows what is to be decided.
func hostKeysQuestion(node string, d wire.NodeDetails, reject bool) string {
	p := d.PendingHostKeys
	var b strings.Builder
	fmt.Fprintf(&b, "The sshd of node %s has other host keys, or another port, since %s.\n", node, when(p.Since))
	if p.Rejected {
		b.WriteString("They have been rejected before.\n")
	}
	fmt.Fprintf(&b, "It had:\n%sIt has:\n%s  port %d\n", indented(d.HostKeys), indented(p.HostKeys), p.SSHPort)
	if reject {
		b.WriteString("Reject them?")
	} else {
		b.WriteString("Accept them on all nodes?")
	}
	return b.String()
}

func indented(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "  %s\n", l)
	}
	return b.String()
}

// pendingHostKeys is what gnt-node info shows.
func pendingHostKeys(p *wire.PendingHostKeys) any {
	if p == nil {
		return []string{}
	}
	state := "to be accepted or rejected"
	if p.Rejected {
		state = "rejected"
	}
	return []item{
		{"host keys", append([]string{}, p.HostKeys...)},
		{"ssh port", p.SSHPort},
		{"since", when(p.Since)},
		{"state", state},
	}
}
