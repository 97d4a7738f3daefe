package noded

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// sshHostsFile holds the host keys of all nodes, for gnt-cluster ssh alone: root's
// known_hosts may have been changed by others.
const sshHostsFile = "ssh_known_hosts"

// serveSSHWay tells local root how ssh reaches a node, by the map and the roster
// and nothing else.
func (d *Daemon) serveSSHWay(ctx context.Context, q *rpc.SSHWayRequest) (any, error) {
	m, err := d.serving()
	if err != nil {
		return nil, err
	}
	return m.sshWay(ctx, q.Node)
}

func (m *member) sshWay(ctx context.Context, ref string) (any, error) {
	v := m.keeper.View()
	if v.Map == nil || v.Roster == nil {
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node holds no candidate map with its roster")
	}
	if err := m.mayLogIn(v); err != nil {
		return nil, err
	}
	n, err := refNode(v.Roster, ref)
	if err != nil {
		return nil, err
	}
	if len(n.HostKeys) == 0 {
		return nil, cluster.Errorf(cluster.CodeConflict, "the roster holds no SSH host key of %s", n.Name)
	}
	set, err := m.ssh.finder.get(ctx)
	if err != nil {
		return nil, err
	}
	address := n.Addresses[0]
	if a, err := netip.ParseAddr(ref); err == nil && slices.Contains(n.Addresses, a) {
		address = a
	}
	w := rpc.SSHWay{
		Name: n.Name, Address: address, Port: n.Ports.SSH, User: set.account.Name,
		KnownHosts: filepath.Join(m.cfg.Paths.NodeDir(), sshHostsFile),
	}
	if b := m.cfg.sources(v.Roster, m.id.Node).to(w.Address); b.IsValid() {
		w.Bind = b.String()
	}
	if w.Identities, w.Agent, err = m.keys.identities(m.id.Node, m.entryKeys(v)); err != nil {
		return nil, err
	}
	if len(w.Identities) == 0 {
		return nil, cluster.Errorf(cluster.CodeNotFound, "this node holds no SSH key of the cluster at present").
			WithHint("gnt-cluster verify tells more")
	}
	return w, m.writeHosts(w.KnownHosts, v)
}

// mayLogIn finds why no node lets this one in.
func (m *member) mayLogIn(v *candmap.View) error {
	switch {
	case !wantsSSH(v):
		return cluster.Errorf(cluster.CodeConflict, "the cluster does not manage SSH (ssh_setup=no): use ssh itself")
	case slices.ContainsFunc(authorized(v.Map.Map), func(a sshkeys.Authorized) bool { return a.Node == m.id.Node }):
		return nil
	}
	err := cluster.Errorf(cluster.CodeNotMaster, "this node's key opens no other node")
	if c := v.Map.Candidate(v.Map.Master); c != nil {
		err.Node = string(c.Name)
	}
	return err
}

// writeHosts makes the file follow the roster.
func (m *member) writeHosts(path string, v *candmap.View) error {
	block, err := sshkeys.KnownHostsBlock(v.Map.Cluster, hostsOf(v.Roster))
	if block.Cluster().IsZero() {
		return err
	}
	_, err = sshkeys.WriteClientConfig(path, block.Bytes())
	return err
}

// refNode finds a node by its name, the first label of it, an address or its
// UUID.
func refNode(r *candmap.Roster, ref string) (*candmap.RosterNode, error) {
	if n := findNode(r, ref); n != nil {
		return n, nil
	}
	addr, _ := netip.ParseAddr(ref)
	var found []*candmap.RosterNode
	nodes := r.Nodes()
	for i := range nodes {
		label, _, _ := strings.Cut(string(nodes[i].Name), ".")
		if label == strings.ToLower(ref) || slices.Contains(nodes[i].Addresses, addr) {
			found = append(found, &nodes[i])
		}
	}
	switch len(found) {
	case 0:
		return nil, cluster.Errorf(cluster.CodeNotFound, "Node '%.64s' not known", ref)
	case 1:
		return found[0], nil
	}
	return nil, cluster.Errorf(cluster.CodeConflict, "'%.64s' is the name of %d nodes: give the full name", ref, len(found))
}
