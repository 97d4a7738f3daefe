package verify

import (
	"bytes"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// maps checks what each node enforces.
func (c *check) maps() {
	c.answered(func(n *state.Node, a rpc.NodeState) {
		switch {
		case a.Version != c.held.At():
			c.node(n, CodeNodeMap, "enforces candidate map %s instead of %s", a.Version, c.held.At()).cure(RepairPush, "gnt-cluster redist-conf")
		case a.Hash != c.held.Hash:
			c.node(n, CodeNodeMap, "enforces another candidate map %s: hash %s instead of %s", a.Version, a.Hash.Short(), c.held.Hash.Short()).
				cure(RepairNone, "keep its folder map/ as evidence, and then add it again: gnt-node add --readd %s; if it is a voter: gnt-cluster evict %s on the others", n.Name, n.Name)
		case a.Roster != c.held.Roster:
			c.node(n, CodeNodeMap, "uses an older roster than map %s names", a.Version).cure(RepairPush, "gnt-cluster redist-conf")
		}
		if a.LeaseSeconds != c.held.LeaseSeconds || a.Policy != c.held.Policy {
			c.node(n, CodeNodeMap, "has lease %d s and policy %s instead of %d s and %s", a.LeaseSeconds, a.Policy, c.held.LeaseSeconds, c.held.Policy).cure(RepairPush, "gnt-cluster redist-conf")
		}
		if !a.Fresh {
			c.staleMap(n)
		}
		if a.Forks > 0 {
			c.node(n, CodeNodeMap, "holds evidence of %d signed map(s) that contradict another of the same version: signing keys were misused or a voter's disk was copied", a.Forks).
				cure(RepairNone, "look at the files in map/evidence on %s: they name who signed; gnt-cluster renew-crypto --new-signing-keys, then remove these files and restart noded there", n.Name)
		}
	})
}

// staleMap reports a node that trusts nobody by its map any more: under policy
// strict it refuses the question, under best_effort it says so.
func (c *check) staleMap(n *state.Node) {
	c.node(n, CodeNodeMap, "its candidate map is stale: it has heard no beacon in time").
		cure(RepairPush, "gnt-cluster redist-conf; if it stays so, a firewall or the clock of %s is in the way", n.Name)
}

// authority checks the cluster's own certificate.
func (c *check) authority() {
	c.section("Verifying cluster certificate files")
	cert, err := x509.ParseCertificate(c.s.CA.Cert)
	if err != nil {
		c.report(CodeClusterCert, "cluster", "", "the CA's certificate is not readable: %v", err)
		return
	}
	c.ending(CodeClusterCert, "cluster", "", "the CA's certificate", cert.NotAfter)
}

// status checks what each node is like at present, and with -v names each.
func (c *check) status() {
	c.section("Verifying node status")
	for _, n := range c.s.SortedNodes() {
		if c.opts.Verbose && n.Flags.Offline {
			c.section("Skipping offline node %s", n.Name)
		}
		if n.Flags.Offline {
			continue
		}
		if c.opts.Verbose {
			c.section("Verifying node %s (%s)", n.Name, roleText(c.s.Role(n.UUID)))
		}
		if a, ok := c.answers[n.UUID]; ok {
			c.clockOf(n, a.Time)
		}
	}
	c.software()
}

// roleText is Ganeti's name of a role.
func roleText(r cluster.Role) string {
	switch r {
	case cluster.RoleMaster:
		return "master"
	case cluster.RoleCandidate:
		return "master candidate"
	case cluster.RoleDrained:
		return "drained"
	default:
		return "regular"
	}
}

// clockOf compares a node's clock with the master's. When on its way the answer
// was given is not known, so only what is before the question, or after the
// answer, is certain.
func (c *check) clockOf(n *state.Node, at time.Time) {
	asked := c.asked[n.UUID]
	diff := max(asked.sent.Sub(at), at.Sub(asked.got))
	if diff > maxSkew {
		c.node(n, CodeNodeTime, "Node time diverges by at least %.1fs from master node time", diff.Seconds())
	}
}

// certificates checks that each node uses its own certificates, and that the
// map names those of the candidates.
func (c *check) certificates() {
	c.issued()
	users := map[cluster.Digest]cluster.Name{}
	c.answered(func(n *state.Node, a rpc.NodeState) {
		if !slices.Contains(n.Server, a.Server) || !slices.Contains(n.Identity, a.Identity) {
			c.node(n, CodeClusterCert, "uses a server or identity certificate that the roster does not pin")
		}
		c.ending(CodeClusterCert, "node", string(n.Name), "its server certificate", a.ServerEnds)
		c.ending(CodeClusterCert, "node", string(n.Name), "its identity certificate", a.IdentityEnds)
		for _, d := range a.Client {
			if other, ok := users[d]; ok && c.held.ByClient(d) == nil { // of one in the map it is told whose it is
				c.node(n, CodeClientCert, "uses the same candidate certificate as node %s", other).
					cure(RepairNone, "gnt-cluster renew-crypto --new-node-certificates --node %s", other)
			}
			users[d] = n.Name
		}
		c.clientCertificate(n, a)
	})
}

func (c *check) clientCertificate(n *state.Node, a rpc.NodeState) {
	entry := c.held.Candidate(n.UUID)
	foreign := false
	for _, d := range a.Client {
		owner := c.held.ByClient(d)
		if owner == nil || owner.UUID == n.UUID {
			continue
		}
		foreign = true
		c.foreignCertificate(n, owner, entry != nil)
	}
	isCandidate := n.Flags.MasterCandidate
	switch {
	case isCandidate && entry == nil:
		c.node(n, CodeClientCert, "The master candidate '%s' does not have an entry in the map of candidate certificates.", n.Name).cure(RepairPush, "gnt-cluster redist-conf")
	case !isCandidate && entry != nil:
		c.node(n, CodeClientCert, "Node '%s' is not a master candidate, but still listed in the map of master candidate certificates.", n.Name).cure(RepairPush, "gnt-cluster redist-conf")
	case entry == nil || foreign || slices.ContainsFunc(a.Client, func(d cluster.Digest) bool { return slices.Contains(entry.Client, d) }):
	case len(a.Client) == 0 && a.MasterKeys: // its files are there, and masterd does not tell of them
		c.estranged[n.UUID] = true
		c.node(n, CodeClusterConfig, "Its master daemon does not answer noded there").
			cure(RepairNone, "on %s: systemctl restart rolekey-masterd; its log says why it ended", n.Name)
	case len(a.Client) == 0: // it has no keys at all, which is told
	default:
		c.estranged[n.UUID] = true
		c.rekeyable(c.node(n, CodeClientCert, "Client certificate digest of master candidate '%s' does not match its entry in the candidate map. Expected: %s", n.Name, entry.Client[0]), n)
	}
}

// foreignCertificate reports a node that uses another one's. Whoever has its key
// can be that one, until the map lists another.
func (c *check) foreignCertificate(n *state.Node, owner *candmap.Candidate, candidate bool) {
	var f *Finding
	if candidate {
		c.estranged[n.UUID] = true
		f = c.node(n, CodeClientCert, "Master candidate '%s' is using a certificate of another node which is master candidate %s.", n.Name, owner.Name)
		c.rekeyable(f, n)
	} else {
		f = c.node(n, CodeClientCert, "Node '%s' is not a master candidate and is incorrectly using a certificate of another node which is master candidate %s.", n.Name, owner.Name)
		f.cure(RepairKeys, "gnt-cluster verify --repair")
	}
	f.then("gnt-cluster renew-crypto --new-node-certificates --node %s, since %s has its key", owner.Name, n.Name)
}

// keys checks that private keys lie on candidates and nowhere else, and that
// the nodes authorize exactly the keys of the map.
func (c *check) keys() {
	c.answered(func(n *state.Node, a rpc.NodeState) {
		entry := c.held.Candidate(n.UUID)
		switch {
		case entry != nil:
		case len(a.KeyFiles) > 0:
			c.node(n, CodeNodeKey, "Node '%s' is not a master candidate, but these key files lie on it: %s", n.Name, strings.Join(a.KeyFiles, ", ")).
				cure(RepairKeys, "gnt-cluster verify --repair; or on %s: rm %s", n.Name, shellList(a.KeyFiles))
		case a.MasterKeys:
			c.node(n, CodeNodeKey, "Node '%s' is not a master candidate, but holds candidate keys", n.Name).cure(RepairKeys, "gnt-cluster verify --repair")
		}
		if entry != nil && !a.MasterKeys {
			c.estranged[n.UUID] = true
			c.rekeyable(c.node(n, CodeNodeKey, "Master candidate '%s' holds no candidate keys", n.Name), n)
		}
		if !c.s.Params.SSHSetup || !a.SSHSetup {
			return
		}
		switch {
		case entry == nil && a.PrivateKey && len(a.KeyFiles) == 0: // or else its file is told
			c.node(n, CodeNodeKey, "Node '%s' is not a master candidate, but root's private cluster key lies on it", n.Name).cure(RepairKeys, "gnt-cluster verify --repair")
		case entry != nil && !a.PrivateKey:
			c.keyless[n.UUID] = true
			c.node(n, CodeNodeKey, "Master candidate '%s' has no private cluster SSH key", n.Name).cure(RepairSSHKeys, sshKeysRemedy)
		case entry != nil && a.PublicKey == nil:
			c.keyless[n.UUID] = true
			c.node(n, CodeNodeKey, "Master candidate '%s' has no private cluster SSH key that can be read", n.Name).cure(RepairSSHKeys, sshKeysRemedy)
		case entry != nil && !hasKey(entry.SSH, *a.PublicKey):
			c.node(n, CodeNodeSSH, "The SSH key of master candidate '%s' is not the one in the candidate map", n.Name).cure(RepairSSHKeys, sshKeysRemedy)
		}
		c.authorized(n, a)
	})
	c.replacing()
}

func hasKey(keys []cluster.SSHKey, k cluster.SSHKey) bool {
	return slices.ContainsFunc(keys, func(o cluster.SSHKey) bool { return o.Type == k.Type && bytes.Equal(o.Blob, k.Blob) })
}

// replacing warns of candidates whose SSH key is still to be replaced: they were
// away, or the master's own node cannot make its new one.
func (c *check) replacing() {
	behind, _ := roles.SSHBehind(c.s)
	for _, id := range behind {
		if n := c.s.Node(id); n != nil {
			c.line("WARNING", CodeNodeSSH, "node", string(n.Name), "its SSH key is not the one that the cluster's settings want; the master replaces it when it can").cure(RepairSSHKeys, sshKeysRemedy)
		}
	}
}

const sshKeysRemedy = "the master has new ones made within a minute; at once: gnt-cluster verify --repair"

// authorized compares a node's authorized keys with those of the map.
func (c *check) authorized(n *state.Node, a rpc.NodeState) {
	unread := len(a.Authorized) == 0 && len(a.BlockProblems) > 0 // which say why
	var want []cluster.SSHKey
	for _, e := range c.held.Candidates {
		if c.held.SSHReach == cluster.ReachMaster && e.UUID != c.held.Master {
			continue
		}
		want = append(want, e.SSH...)
		for _, k := range e.SSH {
			if !hasKey(a.Authorized, k) && !unread {
				c.node(n, CodeNodeSSH, "A SSH key of master candidate '%s' (UUID: '%s') is not in the 'authorized_keys' file of node '%s'.", e.Name, e.UUID, n.Name).
					cure(RepairNode, "gnt-cluster verify --repair")
			}
		}
	}
	for _, k := range a.Authorized {
		if !hasKey(want, k) {
			c.node(n, CodeNodeSSH, "The SSH key %s of a normal node is in the 'authorized_keys' file of node '%s'.", sshkeys.Fingerprint(k), n.Name).
				cure(RepairNode, "gnt-cluster verify --repair")
		}
	}
	for _, f := range a.Foreign {
		c.node(n, CodeNodeSSH, "A line that Rolekey did not write holds the cluster key %s in the 'authorized_keys' file of node '%s'.", f, n.Name).
			cure(RepairNone, "on %s, as root: ssh-keygen -lf ~/.ssh/authorized_keys shows the fingerprints line by line; remove the line with %s outside of the ROLEKEY block", n.Name, f)
	}
	for _, p := range a.BlockProblems {
		c.node(n, CodeNodeSSH, "%s", p)
	}
}
