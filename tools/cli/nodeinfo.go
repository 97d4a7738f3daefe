package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/rpc"
)

// maxAsked is how many nodes are asked at a time.
const maxAsked = 16

// nodeReport is the JSON of gnt-node info for one node.
type nodeReport struct {
	wire.Node
	State json.RawMessage `json:"state"` // what the node says itself; null: it does not answer
	Error string          `json:"error"` // why not

	Details wire.NodeDetails `json:"details"` // what the cluster knows of it
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
		if err := a.client.get(ctx, nodePath(n.UUID.String(), "/details"), &reports[i].Details); err != nil {
			reports[i].Error = err.Error()
			continue
		}
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

	MasterAddress *rpc.AddressState `json:"master_address"`
}

// items describes a node: first what Ganeti says of one, in its order and words.
func (r nodeReport) items() []item {
	n, d := r.Node, r.Details
	out := []item{
		{"Node name", string(n.Name)},
		{"primary ip", n.PIP.String()},
		{"secondary ip", n.SIP.String()},
		{"master candidate", yesNo(n.MasterCandidate)},
		{"drained", yesNo(n.Drained)},
		{"offline", yesNo(n.Offline)},
		{"master_capable", yesNo(n.MasterCapable)},
		{"vm_capable", yesNo(n.VMCapable)},
		{"node parameters", []item{{"ssh_port", n.Ports.SSH}}},
		{"UUID", n.UUID.String()},
		{"incarnation", n.Incarnation},
		{"addresses", addressTexts(n.Addresses)},
		{"role", n.RoleName.String()},
		{"voter", yesNo(n.Voter)},
		{"tags", append([]string{}, n.Tags...)},
		{"ssh host keys", append([]string{}, d.HostKeys...)},
		{"pending ssh host keys", pendingHostKeys(d.PendingHostKeys)},
		{"root ssh keys", append([]string{}, d.SSHKeys...)},
		{"certificates", certificateItems(d.Certificates)},
		{"map confirmed", confirmed(n)},
		{"newest map", fmt.Sprintf("%d.%d", d.HeadEpoch, d.HeadVersion)},
		{"last contact", moment(d.LastContact, "none")},
		{"rpc trust ends", moment(d.RPCUntil, "not known")},
		{"ssh trust ends", moment(d.SSHUntil, "not known")},
		{"pending", append([]string{}, d.Pending...)},
	}
	return append(out, item{"answer", r.answer()})
}

func confirmed(n wire.Node) string {
	if n.MapVersion == 0 {
		return "not known"
	}
	return fmt.Sprintf("%d.%d", n.MapEpoch, n.MapVersion)
}

func moment(t *time.Time, none string) string {
	if t == nil {
		return none
	}
	return when(*t)
}

func addressTexts(addrs []netip.Addr) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}

func certificateItems(certs []wire.NodeCertificate) []item {
	out := []item{}
	for _, c := range certs {
		pins := []string{}
		for _, p := range c.Pins {
			pins = append(pins, p.String())
		}
		out = append(out, item{c.Kind, []item{
			{"digest", c.Digest.String()},
			{"key pins", pins},
			{"name", string(c.Name)},
			{"expires", when(c.NotAfter)},
			{"renewed at", when(c.RenewAt)},
		}})
	}
	return out
}

// answer is what the node said when it was asked now, or why it did not.
func (r nodeReport) answer() any {
	var s nodeState
	if r.Error == "" && json.Unmarshal(r.State, &s) != nil {
		r.Error = "its answer is not understood"
	}
	if r.Error != "" {
		return r.Error
	}
	return []item{
		{"software", s.Software},
		{"map", fmt.Sprintf("%s %s", s.Version, s.Hash.Short())},
		{"fresh", yesNo(s.Fresh)},
		{"root key on the node", yesNo(s.PrivateKey)},
		{"authorized keys", len(s.Authorized)},
		{"problems", append([]string{}, s.Problems...)},
		{"foreign keys of former candidates", append([]string{}, s.Foreign...)},
		{"cluster address", clusterAddress(s.MasterAddress)},
	}
}

// clusterAddress says what a node does about the cluster's address.
func clusterAddress(a *rpc.AddressState) string {
	switch {
	case a == nil:
		return "none"
	case a.Problem != "":
		return a.Problem
	case a.Held:
		return fmt.Sprintf("holds %s on %s", a.Address, a.Netdev)
	}
	return "not held"
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
