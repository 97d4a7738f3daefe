package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
)

// OpNodeRename gives a node another name. Ganeti has no such opcode.
const OpNodeRename = "OP_NODE_RENAME"

// Ganeti's classes of refusals that the planner of roles does not use.
const (
	alreadyExists roles.Class = "already_exists"
	notUnique     roles.Class = "resource_not_unique"
	environment   roles.Class = "environment_error"
)

// opRename are the fields of OpNodeRename.
type opRename struct {
	Node string `json:"node_name"`
	New  string `json:"new_name"`
}

// nodeRename changes the name in map and roster; everything else is derived
// from there. The node itself has its certificates renewed when it sees it.
func nodeRename(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	var op opRename
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	s := r.c.State()
	n, err := roles.Find(s, op.Node)
	if err != nil {
		return nil, err
	}
	name, err := cluster.ParseName(op.New)
	switch {
	case err != nil:
		return nil, prereq(roles.WrongInput, "%v", err)
	case name == n.Name:
		return json.Marshal([][2]string{})
	case s.NodeByName(name) != nil:
		return nil, prereq(alreadyExists, "Node %s is already in the configuration", name)
	}
	for _, rec := range s.LiveAdmissions(r.c.Now()) {
		if rec.Name == name && rec.Node != n.UUID {
			p := prereq(roles.WrongState, "There is an admission string for %s", name)
			p.Hint = "make it worthless first: gnt-node tokens revoke " + rec.ID.String()
			return nil, p
		}
	}
	return r.relocate(ctx, n, state.NodeAddress{Node: n.UUID, Name: &name}, [][2]string{{"name", string(name)}})
}

// opAddress are the fields of OpNodeSetParams that say where a node is.
type opAddress struct {
	Addresses   []string                   `json:"addresses"`    // Rolekey's own: all, the primary one first
	SecondaryIP *string                    `json:"secondary_ip"` // the second; the primary one again means none
	NDParams    map[string]json.RawMessage `json:"ndparams"`
}

func (op opAddress) given() bool {
	return len(op.Addresses) > 0 || op.SecondaryIP != nil || len(op.NDParams) > 0
}

// setAddress is the part of OpNodeSetParams that moves a node. It has no role
// in common with the rest: each is one entry of the log.
func (r *run) setAddress(ctx context.Context, op opNode) (json.RawMessage, error) {
	for _, f := range []*bool{op.MasterCandidate, op.Drained, op.Offline, op.MasterCapable, op.VMCapable} {
		if f != nil {
			return nil, prereq(roles.WrongInput, "Please change where a node is and what it is in two steps")
		}
	}
	n, err := roles.Find(r.c.State(), op.Node)
	if err != nil {
		return nil, err
	}
	change := state.NodeAddress{Node: n.UUID}
	results := [][2]string{}
	addrs, err := op.wanted(n)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(addrs, n.Addresses) {
		change.Addresses = addrs
		results = append(results, addressResults(n.Addresses, addrs)...)
		if err := r.checkAddresses(ctx, n, addrs, op.Force); err != nil {
			return nil, err
		}
	}
	port, err := op.sshPort()
	if err != nil {
		return nil, err
	}
	if port != 0 && port != n.Ports.SSH {
		ports := n.Ports
		ports.SSH = port
		change.Ports = &ports
		results = append(results, [2]string{"ndparams/ssh_port", fmt.Sprint(port)})
	}
	if len(results) == 0 {
		return json.Marshal(results)
	}
	return r.relocate(ctx, n, change, results)
}

// addressResults says what changes in Ganeti's words where it has some.
func addressResults(old, now []netip.Addr) [][2]string {
	out := [][2]string{}
	if old[0] != now[0] {
		out = append(out, [2]string{"primary_ip", now[0].String()})
	}
	if secondary(old) != secondary(now) {
		out = append(out, [2]string{"secondary_ip", secondary(now).String()})
	}
	if len(out) == 0 || max(len(old), len(now)) > 2 {
		out = append(out, [2]string{"addresses", joinAddrs(now)})
	}
	return out
}

func secondary(addrs []netip.Addr) netip.Addr {
	if len(addrs) > 1 {
		return addrs[1]
	}
	return addrs[0]
}

func joinAddrs(addrs []netip.Addr) string {
	text := make([]string, len(addrs))
	for i, a := range addrs {
		text[i] = a.String()
	}
	return strings.Join(text, ", ")
}

// wanted returns the addresses that the node is to have.
func (op opAddress) wanted(n *state.Node) ([]netip.Addr, error) {
	addrs := slices.Clone(n.Addresses)
	if len(op.Addresses) > 0 {
		addrs = nil
	}
	for _, text := range op.Addresses {
		a, err := cluster.ParseAddr(text)
		if err != nil {
			return nil, prereq(roles.WrongInput, "%v", err)
		}
		if slices.Contains(addrs, a) {
			return nil, prereq(roles.WrongInput, "Address %s is named twice", a)
		}
		addrs = append(addrs, a)
	}
	if op.SecondaryIP != nil {
		second, err := cluster.ParseAddr(*op.SecondaryIP)
		if err != nil {
			return nil, prereq(roles.WrongInput, "%v", err)
		}
		addrs = withSecond(addrs, second)
	}
	if len(addrs) > candmap.MaxAddresses {
		return nil, prereq(roles.WrongInput, "%d addresses, and the limit is %d", len(addrs), candmap.MaxAddresses)
	}
	return addrs, nil
}

// withSecond puts an address in the second place, instead of the one that is
// there; the primary one again means that there is to be no second.
func withSecond(addrs []netip.Addr, second netip.Addr) []netip.Addr {
	rest := addrs[min(2, len(addrs)):]
	out := []netip.Addr{addrs[0]}
	if second != addrs[0] {
		out = append(out, second)
	}
	for _, a := range rest {
		if a != second {
			out = append(out, a)
		}
	}
	return out
}

// sshPort returns the port of sshd that was asked for; zero: it stays.
func (op opAddress) sshPort() (uint16, error) {
	for _, name := range slices.Sorted(maps.Keys(op.NDParams)) {
		if name != "ssh_port" {
			return 0, prereq(roles.WrongInput, "Node parameter '%.40s' is not known; there is ssh_port", name)
		}
	}
	raw, ok := op.NDParams["ssh_port"]
	if !ok {
		return 0, nil
	}
	var port uint16
	if err := json.Unmarshal(raw, &port); err != nil || port == 0 {
		return 0, prereq(roles.WrongInput, "Node parameter ssh_port: want a port, from 1 to 65535")
	}
	return port, nil
}

// checkAddresses refuses addresses at which the others would not find the node.
// Whoever answers there is known by the key that the roster pins.
func (r *run) checkAddresses(ctx context.Context, n *state.Node, addrs []netip.Addr, force bool) error {
	local := slices.ContainsFunc(n.Addresses, netip.Addr.IsLoopback) // a cluster on one machine has no other
	for _, a := range addrs {
		if (a.IsLoopback() || a.IsLinkLocalUnicast()) && !local {
			return prereq(roles.WrongInput, "Node %s cannot have address %s: other nodes do not reach it there", n.Name, a)
		}
		for _, other := range r.c.State().SortedNodes() {
			if other.UUID != n.UUID && slices.Contains(other.Addresses, a) {
				return prereq(notUnique, "New node ip address(es) conflict with existing node %s", other.Name)
			}
		}
	}
	if force || n.Flags.Offline {
		return nil
	}
	for _, a := range addrs {
		if slices.Contains(n.Addresses, a) {
			continue
		}
		if err := r.c.AnswersAt(ctx, n.UUID, a); err != nil {
			p := prereq(environment, "Node %s does not answer at %s: %v", n.Name, a, err)
			p.Hint = "give the machine the address first, beside the one that it has; --force does without an answer"
			return p
		}
	}
	return nil
}

// relocate commits where a node is, or what it is called.
func (r *run) relocate(ctx context.Context, n *state.Node, change state.NodeAddress, results [][2]string) (json.RawMessage, error) {
	if r.dry {
		for _, res := range results {
			r.wouldDo(fmt.Sprintf("set %s of node %s to %s", res[0], n.Name, res[1]))
		}
		return json.Marshal(results)
	}
	if err := r.before(ctx, n, false); err != nil {
		return nil, err
	}
	left := &resume{Op: r.op, Node: *n, Results: results, Steps: []roles.Step{postStep(n.UUID)}}
	result, err := r.enact(ctx, left, func(u *state.JobUpdate) (string, any) {
		change.Job = u
		return state.KindNodeAddress, change
	})
	if err != nil {
		return nil, asPrereq(err)
	}
	return result, nil
}
