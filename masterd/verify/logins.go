package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// A probe has its own limits on the node that makes it; these are ours.
const (
	probeTimeout = 5 * time.Minute            // of all probes together
	oneProbe     = askTimeout + 2*time.Second // of one, with the way to the node and back
	unanswered   = askTimeout - time.Second/2 // whoever takes so long does not answer
	noAnswer     = "it did not answer in time, and was not tried again"
)

// login is one address at which a candidate tries a node's sshd.
type login struct {
	from, to *state.Node
	address  int    // index of to's addresses
	problem  string // "": it worked
	err      error  // from made no attempt
}

// sshRemedy is for a login to a node that failed.
const sshRemedy = "on %s: systemctl restart ssh; sshd -t and sshd -T show its configuration, journalctl -u ssh why it refused"

// sourceGone ends the attempts of a node that cannot make any.
const sourceGone = "the node makes no attempts"

// loginAttempts has every candidate authenticate by SSH to every node that it
// may reach, at each address.
func (c *check) loginAttempts(ctx context.Context, all []*login) []attempt {
	list := make([]attempt, 0, len(all))
	for _, l := range all {
		list = append(list, attempt{
			kind: proper, from: l.from.UUID, to: l.to.UUID,
			run: func() verdict { return c.login(ctx, l) },
			skip: func(why string) {
				if why != sourceGone {
					l.problem = why
				}
			},
		})
	}
	return list
}

// logins tells what became of them.
func (c *check) logins(a *attempts) {
	if !c.s.Params.SSHSetup {
		return
	}
	c.section("Verifying ssh logins")
	for _, l := range a.logins {
		if l.err == nil && l.problem != "" && l.address == 0 {
			c.closed[l.to.UUID] = true
		}
	}
	for _, n := range c.sources() {
		c.loginsFrom(n, a.logins)
	}
	c.shut = shut(a.logins)
}

// shut names the nodes into which nobody can log in, of several who tried: the
// lines of the report name those.
func shut(all []*login) []string {
	var names []string
	tried, failed := map[cluster.NodeID]int{}, map[cluster.NodeID]int{}
	for _, l := range all {
		if l.address > 0 || l.err != nil {
			continue
		}
		tried[l.to.UUID]++
		if l.problem != "" {
			failed[l.to.UUID]++
		}
	}
	for _, l := range all {
		if n := tried[l.to.UUID]; n > 1 && failed[l.to.UUID] == n && !slices.Contains(names, string(l.to.Name)) {
			names = append(names, string(l.to.Name))
		}
	}
	slices.Sort(names)
	return names
}

// loginsFrom reports the logins of one node.
func (c *check) loginsFrom(n *state.Node, all []*login) {
	told := false
	for _, l := range all {
		switch {
		case l.from != n, c.keyless[n.UUID]:
		case l.err != nil && !told:
			c.node(n, CodeNodeSSH, "could not test its SSH logins: %s", oneLine(l.err.Error()))
			told = true
		case l.err != nil:
		case l.problem != "":
			c.loginFailed(l)
		case !told:
			c.count.logins++
		}
	}
}

// loginFailed reports one. A node whose first address works can be reached; that
// another one is of no use is a warning.
func (c *check) loginFailed(l *login) {
	text := "ssh communication with node '" + string(l.to.Name) + "': " + l.problem
	if l.address > 0 {
		c.line("WARNING", CodeNodeSSH, "node", string(l.from.Name), "at its further address "+l.to.Addresses[l.address].String()+": "+text).cure(RepairNone, sshRemedy, l.to.Name)
		return
	}
	c.node(l.from, CodeNodeSSH, "%s", text).cure(RepairNone, "%s", l.remedy())
}

// remedy is what to do about one that failed. That the host key is another than
// the roster's is told of the node itself, too.
func (l *login) remedy() string {
	if strings.Contains(l.problem, "host key") {
		changed := "its noded tells the master within a minute: run verify again, and decide with accept-host-keys"
		if l.to.PendingHostKeys != nil {
			changed = "gnt-node accept-host-keys " + string(l.to.Name)
		}
		return fmt.Sprintf("if the administrator of %s has changed them, %s; if nobody has, another machine answers at its address", l.to.Name, changed)
	}
	return fmt.Sprintf(sshRemedy, l.to.Name)
}

// plan lists the logins so that neighbours in the list have different targets.
func (c *check) plan() []*login {
	sources, nodes := c.sources(), c.heardNodes()
	var all []*login
	for shift := range nodes {
		for i, from := range sources {
			to := nodes[(i+shift)%len(nodes)]
			if to == from {
				continue
			}
			for at, a := range to.Addresses {
				if at == 0 || hasFamily(from, a.Is4()) {
					all = append(all, &login{from: from, to: to, address: at})
				}
			}
		}
	}
	return all
}

// hasFamily reports whether a node has an address of IPv4, or of IPv6.
func hasFamily(n *state.Node, four bool) bool {
	for _, a := range n.Addresses {
		if a.Is4() == four {
			return true
		}
	}
	return false
}

// heardNodes are the nodes that answered.
func (c *check) heardNodes() []*state.Node {
	var list []*state.Node
	c.answered(func(n *state.Node, _ rpc.NodeState) { list = append(list, n) })
	return list
}

// sources are the candidates whose key the map authorizes, and that answered.
func (c *check) sources() []*state.Node {
	var list []*state.Node
	c.answered(func(n *state.Node, _ rpc.NodeState) {
		if c.held.Candidate(n.UUID) != nil && (c.held.SSHReach != cluster.ReachMaster || n.UUID == c.held.Master) {
			list = append(list, n)
		}
	})
	return list
}

// login makes one, by one call to its source.
func (c *check) login(ctx context.Context, l *login) verdict {
	ctx, cancel := context.WithTimeout(ctx, oneProbe)
	defer cancel()
	began := time.Now()
	to := rpc.SSHTarget{Node: l.to.UUID, Name: l.to.Name, Address: l.to.Addresses[l.address], Port: l.to.Ports.SSH, Keys: l.to.HostKeys}
	reply, err := c.ask.SSHProbe(ctx, l.from.UUID, rpc.SSHProbeRequest{Targets: []rpc.SSHTarget{to}})
	switch {
	case err != nil:
		l.err = err
		return verdict{fromGone: sourceGone}
	case len(reply.Results) != 1 || reply.Results[0].Node != l.to.UUID:
		l.problem = "it was not tried"
	default:
		l.problem = oneLine(reply.Results[0].Error)
	}
	if l.problem != "" && time.Since(began) >= unanswered {
		c.mute.add(l.to.UUID)
		return verdict{toGone: noAnswer}
	}
	return verdict{}
}
