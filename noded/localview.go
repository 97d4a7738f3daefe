package noded

import (
	"context"
	"strconv"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// viewPoll is how long a request for the next view waits.
const viewPoll = 25 * time.Second

// localView describes this node for masterd. A full one has the roster and the
// chain, which a masterd that followed so far needs not.
func (m *member) localView(v *candmap.View, full bool) rpc.LocalViewReply {
	r := rpc.LocalViewReply{
		Cluster: m.id.Cluster, Node: m.id.Node, Incarnation: m.id.Incarnation, Addresses: m.id.Addresses, Ports: m.id.Ports,
		CA: m.roots.Certificates()[0].Raw, Fresh: m.keeper.Fresh(), LastHeard: m.keeper.Lease().Last(),
		Term: m.terms.Highest().Term, Serial: m.serial.Load(), Evicted: m.evicted.list(),
	}
	r.Hints = m.hints.all()
	if n := m.self(); n != nil {
		r.Addresses = n.Addresses
	}
	if v.Map != nil {
		r.Map = v.Map.Envelope
	}
	if b, ok := m.keeper.Beacon(); ok {
		r.Beacon = &b
	}
	if !full {
		return r
	}
	r.Chain = m.keeper.Chain()
	if v.Roster != nil {
		for _, d := range v.Roster.Docs() {
			r.Docs = append(r.Docs, d)
		}
	}
	return r
}

// absent returns nil if this machine is in no cluster. A member that has not
// started, or starts again, is no reason for masterd to forget the cluster and
// give up what it leads.
func (d *Daemon) absent() error {
	id, err := readIdentity(d.cfg.Paths.NodeDir())
	if err == nil && id != nil {
		err = cluster.Errorf(cluster.CodeUnavailable, "this node's member is being started")
	}
	return err
}

// serveView answers masterd on noded's socket. With ?serial=N it waits until
// something differs from what had that number.
func (d *Daemon) serveView(ctx context.Context, _ *struct{}) (any, error) {
	m := d.current()
	if m == nil {
		return rpc.LocalViewReply{}, d.absent()
	}
	known, err := strconv.ParseUint(rpc.LocalQuery(ctx, "serial"), 10, 64)
	news := m.news.wait()
	if err == nil && known == m.serial.Load() {
		ctx, cancel := context.WithTimeout(ctx, viewPoll)
		defer cancel()
		_ = pause(ctx, viewPoll, news)
	}
	v := m.keeper.View()
	if v.Map == nil {
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node holds no candidate map")
	}
	return m.localView(v, true), nil
}
