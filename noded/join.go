package noded

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
)

// joining is what a join was asked for; the keys beside it are bound to it.
type joining struct {
	Record  cluster.UUID `json:"record"`
	Cluster cluster.UUID `json:"cluster"`
	Name    cluster.Name `json:"name"`
}

// serveJoin makes this machine a node by an admission string. Until the rename
// of the node folder everything is only prepared; the keys are kept, so that a
// second run with the same string gets the same answer.
func (d *Daemon) serveJoin(ctx context.Context, r *rpc.JoinRequest) (any, error) {
	end, err := d.begin("joining")
	if err != nil {
		return nil, err
	}
	defer end()
	token, err := pki.ParseToken(r.Token)
	if err != nil {
		return nil, err
	}
	fields := token.Fields()
	if reply, ok := d.joined(fields); ok {
		if m := d.current(); m != nil {
			m.awaitContact(ctx)
		}
		return reply, nil
	}
	if err := d.vacant(); err != nil {
		return nil, err
	}
	if len(r.Addresses) == 0 {
		r.Addresses = d.cfg.Addresses
	}
	if err := checkAddresses(r.Addresses); err != nil {
		return nil, err
	}
	if err := d.beginJoin(fields); err != nil {
		return nil, err
	}
	return d.join(ctx, fields, r.Addresses)
}

// joined recognises the string that made this node: the reply of the first run
// was lost.
func (d *Daemon) joined(t pki.TokenFields) (rpc.JoinReply, bool) {
	id, err := readIdentity(d.cfg.Paths.NodeDir())
	if err != nil || id == nil || id.Record != t.Record || id.Cluster != t.Cluster {
		return rpc.JoinReply{}, false
	}
	reply := rpc.JoinReply{Cluster: id.Cluster, Node: id.Node, Name: id.Name}
	if m := d.current(); m != nil {
		reply.Version = m.keeper.View().At()
	}
	return reply, true
}

// beginJoin makes the temporary folder, or takes up the one of an interrupted
// run with the same string. Keys of another string are no use any more.
func (d *Daemon) beginJoin(t pki.TokenFields) error {
	if err := d.underWay(d.joinDir()); err != nil {
		return err
	}
	want := joining{Record: t.Record, Cluster: t.Cluster, Name: t.Name}
	path := filepath.Join(d.joinDir(), requestFile)
	var have joining
	if ok, err := readStrict(path, &have); err == nil && ok && have == want {
		return nil
	}
	if err := os.RemoveAll(d.joinDir()); err != nil {
		return fmt.Errorf("clear folder: %w", err)
	}
	if err := os.MkdirAll(d.joinDir(), 0o700); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := d.step("request"); err != nil {
		return err
	}
	return writeJSON(path, want)
}

func (d *Daemon) join(ctx context.Context, t pki.TokenFields, addrs []netip.Addr) (rpc.JoinReply, error) {
	reply := rpc.JoinReply{Cluster: t.Cluster, Name: t.Name}
	if err := d.step("keys"); err != nil {
		return reply, err
	}
	a, err := d.newAdmission(ctx, t, addrs)
	if err != nil {
		return reply, err
	}
	defer a.client.Close()
	if err := d.step("admit"); err != nil {
		return reply, err
	}
	w, err := a.run(ctx)
	if err != nil {
		return reply, err
	}
	in := w.installation(t, addrs, a.body.Ports)
	if err := d.install(ctx, d.joinDir(), in); err != nil {
		return reply, fmt.Errorf("install: %w", err)
	}
	m, err := d.startUp(ctx, firstNews{w.newest.Envelope, w.reply.Beacon})
	if err != nil {
		return reply, fmt.Errorf("this node has joined, but does not serve yet: %w", err)
	}
	m.awaitContact(ctx)
	reply.Node, reply.Version = in.id.Node, w.newest.At()
	return reply, nil
}

// contactLimit bounds how long a join waits for the keyserver to hear of it.
const contactLimit = 5 * time.Second

// awaitContact returns when the keyserver knows that the node has joined, so that
// the administrator's next change waits for this node too. If that takes longer
// it goes on by itself: the node is a member already.
func (m *running) awaitContact(ctx context.Context) {
	timer := time.NewTimer(contactLimit)
	defer timer.Stop()
	select {
	case <-m.contacted:
	case <-m.ended:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// installation is what the welcome brought.
func (w *welcome) installation(t pki.TokenFields, addrs []netip.Addr, ports cluster.Ports) installation {
	return installation{
		id: identity{
			Cluster: t.Cluster, Node: w.reply.Node, Incarnation: w.self.Incarnation, Name: t.Name,
			Addresses: addrs, Ports: ports, Record: t.Record,
		},
		cas: w.cas, server: w.reply.Server, identity: w.reply.Identity, gossip: w.reply.Gossip,
		first: w.pinned, chain: w.chain, docs: w.reply.Docs, contact: true,
	}
}

// unreachable explains a join for which nobody was found.
func unreachable(tried []netip.AddrPort, reasons []string) error {
	var at []string
	for _, a := range tried {
		at = append(at, a.String())
	}
	return cluster.Errorf(cluster.CodeUnavailable, "no master of the cluster could be reached at %s: %s", strings.Join(at, ", "), strings.Join(reasons, "; ")).
		WithHint("check the network and the firewall between this node and these addresses; the admission string is still good")
}
