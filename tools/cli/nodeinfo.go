package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

// maxAsked is how many nodes are asked at a time.
const maxAsked = 16

// nodeReport is the JSON of gnt-node info for one node.
type nodeReport struct {
	wire.Node
	State json.RawMessage `json:"state"` // what the node says itself; null: it does not answer
	Error string          `json:"error"` // why not
}

func (a *app) nodeInfoCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "info [NODE...]",
		Aliases: []string{"show"},
		Short:   "Show nodes, and what they say of themselves",
		Example: "  gnt-node info node2\n  gnt-node info --json | jq '.[].state.fresh'",
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := a.nodes(cmd.Context(), args)
			if err != nil {
				return err
			}
			reports := a.inspect(cmd.Context(), nodes)
			if a.asJSON {
				return a.printJSON(reports)
			}
			list := make([][]item, len(reports))
			for i, r := range reports {
				list[i] = r.items()
			}
			printList(a.out, list)
			return nil
		},
	})
}

// inspect asks the nodes, several at a time.
func (a *app) inspect(ctx context.Context, nodes []wire.Node) []nodeReport {
	reports := make([]nodeReport, len(nodes))
	turn := make(chan struct{}, maxAsked)
	var wg sync.WaitGroup
	for i, n := range nodes {
		reports[i] = nodeReport{Node: n, State: json.RawMessage("null")}
		if n.Offline {
			reports[i].Error = "the node is set offline"
			continue
		}
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			if err := a.client.get(ctx, nodePath(n.UUID.String(), "/state"), &reports[i].State); err != nil {
				reports[i].State, reports[i].Error = json.RawMessage("null"), err.Error()
			}
		})
	}
	wg.Wait()
	return reports
}

// nodeState is the part of a node's answer that people are shown.
type nodeState struct {
	Software   string          `json:"software"`
	Version    cluster.Version `json:"version"`
	Hash       cluster.Digest  `json:"hash"`
	Fresh      bool            `json:"fresh"`
	PrivateKey bool            `json:"private_key"`
	Authorized []struct{}      `json:"authorized"`
	Problems   []string        `json:"block_problems"`
	Foreign    []string        `json:"foreign"`
}

func (r nodeReport) items() []item {
	n := r.Node
	addresses := make([]string, len(n.Addresses))
	for i, a := range n.Addresses {
		addresses[i] = a.String()
	}
	out := []item{
		{"Node name", string(n.Name)},
		{"UUID", n.UUID.String()},
		{"primary ip", n.PIP.String()},
		{"secondary ip", n.SIP.String()},
		{"addresses", addresses},
		{"role", n.RoleName.String()},
		{"master candidate", yesNo(n.MasterCandidate)},
		{"drained", yesNo(n.Drained)},
		{"offline", yesNo(n.Offline)},
		{"master_capable", yesNo(n.MasterCapable)},
		{"vm_capable", yesNo(n.VMCapable)},
		{"voter", yesNo(n.Voter)},
		{"incarnation", n.Incarnation},
		{"map confirmed", mapVersion(n)},
		{"tags", n.Tags},
	}
	var s nodeState
	if r.Error == "" && json.Unmarshal(r.State, &s) != nil {
		r.Error = "its answer is not understood"
	}
	if r.Error != "" {
		return append(out, item{"answer", r.Error})
	}
	return append(out, item{"answer", []item{
		{"software", s.Software},
		{"map", fmt.Sprintf("%s %s", s.Version, s.Hash.Short())},
		{"fresh", yesNo(s.Fresh)},
		{"root key on the node", yesNo(s.PrivateKey)},
		{"authorized keys", len(s.Authorized)},
		{"problems", append([]string{}, s.Problems...)},
		{"foreign keys of former candidates", append([]string{}, s.Foreign...)},
	}})
}

// unknownNode words the refusal of a node that does not exist.
func unknownNode(err error, ref string) error {
	if errors.Is(err, &cluster.Error{Code: cluster.CodeNotFound}) {
		return cluster.Errorf(cluster.CodeNotFound, "Node '%s' not known", ref)
	}
	return err
}

// nodePath returns the path of a node in the API. The reference may be short.
func nodePath(ref, rest string) string { return "/2/nodes/" + url.PathEscape(ref) + rest }
