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

// localView describes this node for masterd, which holds the view since; nil
// means none. The roster and the chain are of use only as far as it lacks them.
func (m *member) localView(v, since *candmap.View) rpc.LocalViewReply {
	r := rpc.LocalViewReply{
		Cluster: m.id.Cluster, Node: m.id.Node, Incarnation: m.id.Incarnation, Addresses: m.id.Addresses, Ports: m.id.Ports,
		CA: m.caRoots().Certificates()[0].Raw, Fresh: m.keeper.Fresh(), LastHeard: m.keeper.Lease().Last(),
		Term: m.terms.Highest().Term, Serial: m.serial.Load(), Evicted: m.evicted.list(),
	}
	r.Hints = m.hints.all()
	if all := m.caRoots().Certificates(); len(all) > 1 {
		for _, c := range all {
			r.CAs = append(r.CAs, c.Raw)
		}
	}
	if n := m.self(); n != nil {
		r.Addresses = n.Addresses
	}
	if v.Map != nil {
		r.Map = v.Map.Envelope
	}
	if b, ok := m.keeper.Beacon(); ok {
		r.Beacon = &b
	}
	switch {
	case since == v:
		return r
	case since == nil:
		r.Chain = m.keeper.Chain()
	default:
		r.Chain = m.keeper.Since(since.At()) // ends with a map that is known already: no harm
	}
	r.Docs = docsSince(v, since)
	return r
}

// docsSince lists the documents of the roster of v that masterd with the view
// since lacks. Of a roster that is not the one that the map names it keeps none.
func docsSince(v, since *candmap.View) (docs [][]byte) {
	if v.Roster == nil {
		return nil
	}
	var have map[cluster.Digest][]byte
	if since != nil && since.Complete() {
		have = since.Roster.Docs()
	}
	for digest, doc := range v.Roster.Docs() {
		if have[digest] == nil {
			docs = append(docs, doc)
		}
	}
	return docs
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
	v := m.viewToGive()
	if v.Map == nil {
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node holds no candidate map")
	}
	return m.localView(v, nil), nil
}

// viewToGive returns the view in force, which masterd is about to get. Apply
// looks after a map came into force whether masterd may act; so what is noted
// here is seen there, or the newer map is seen here.
func (m *member) viewToGive() *candmap.View {
	for {
		v := m.keeper.View()
		if m.candidate(v) {
			m.masterd.mayAct()
		}
		if m.keeper.View() == v {
			return v
		}
	}
}
