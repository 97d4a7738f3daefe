package verify

import (
	"slices"
	"strings"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// hostKeys checks that the host keys of each node's sshd are those of the
// roster, which root's ssh on all nodes compares with.
func (c *check) hostKeys() {
	if !c.s.Params.SSHSetup {
		return
	}
	for _, n := range c.s.SortedNodes() {
		if p := n.PendingHostKeys; p != nil {
			c.pendingHostKeys(n, p)
		}
	}
	c.answered(func(n *state.Node, a rpc.NodeState) {
		if len(a.HostKeys) == 0 || sameHostKeys(a.HostKeys, n.HostKeys) {
			return
		}
		if p := n.PendingHostKeys; p != nil && sameHostKeys(a.HostKeys, p.Keys) {
			return // said above
		}
		if k, owner := c.clonedKey(n, a.HostKeys); owner != nil {
			c.node(n, CodeNodeSSH, "its sshd has the host key %s of node %s: either could pass for the other, and ssh from other nodes refuses it", sshkeys.Fingerprint(k), owner.Name).
				cure(RepairNone, newHostKeys, n.Name)
			return
		}
		c.node(n, CodeNodeSSH, "its sshd has the host keys %s, and the roster has %s: noded there tells the master by itself within a minute, once sshd runs with them; its log says why it does not, and a machine that was installed anew must be added again: gnt-node add --readd %s",
			prints(a.HostKeys), prints(n.HostKeys), n.Name).
			cure(RepairNone, "on %s: systemctl restart ssh; if the machine was installed anew: gnt-node add --readd %s", n.Name, n.Name)
	})
	c.clones()
}

func (c *check) pendingHostKeys(n *state.Node, p *state.PendingHostKeys) {
	what := "waits for a decision on the host keys of its sshd"
	if p.Rejected {
		what = "insists on host keys of its sshd that were rejected"
	}
	c.node(n, CodeNodeSSH, "%s: %s, port %d, instead of %s, port %d; ssh from other nodes refuses it until then: gnt-node accept-host-keys %s",
		what, prints(p.Keys), p.Port, prints(n.HostKeys), n.Ports.SSH, n.Name).
		cure(RepairNone, "gnt-node accept-host-keys %s; with --reject, if nobody there changed them", n.Name)
}

// newHostKeys is for a machine that was made by copying another one's disk.
const newHostKeys = "on %s: rm /etc/ssh/ssh_host_* && ssh-keygen -A && systemctl restart ssh"

// clonedKey finds a key that the roster has of another node.
func (c *check) clonedKey(n *state.Node, keys []cluster.SSHKey) (cluster.SSHKey, *state.Node) {
	for _, o := range c.s.SortedNodes() {
		for _, k := range keys {
			if o.UUID != n.UUID && hasKey(o.HostKeys, k) {
				return k, o
			}
		}
	}
	return cluster.SSHKey{}, nil
}

// clones warns of nodes that could pass for one another.
func (c *check) clones() {
	holder := map[string]cluster.Name{}
	for _, n := range c.s.SortedNodes() {
		for _, k := range n.HostKeys {
			if other, ok := holder[string(k.Blob)]; ok {
				c.line("WARNING", CodeNodeSSH, "node", string(n.Name), "has the host key "+sshkeys.Fingerprint(k)+" of node "+string(other)+", too: make new ones on one of them with ssh-keygen -A, and restart its sshd").
					cure(RepairNone, newHostKeys, n.Name)
				continue
			}
			holder[string(k.Blob)] = n.Name
		}
	}
}

func sameHostKeys(a, b []cluster.SSHKey) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(k cluster.SSHKey) bool { return !hasKey(b, k) })
}

func prints(keys []cluster.SSHKey) string {
	var out []string
	for _, k := range keys {
		out = append(out, sshkeys.Fingerprint(k))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}
