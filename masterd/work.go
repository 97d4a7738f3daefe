package masterd

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/hooks"
	"rolekey/masterd/jobs"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/masterd/verify"
	"rolekey/pki"
	"rolekey/rpc"
)

// runJobs works on the cluster's jobs for as long as the leader leads.
func (d *Daemon) runJobs(ctx context.Context, l *leader) error {
	return jobs.New(worker{l}, d.log.Named("jobs")).Run(ctx)
}

// worker is the leader as the jobs see it.
type worker struct{ l *leader }

var _ jobs.Cluster = worker{}

// State implements jobs.Cluster.
func (w worker) State() *state.State { return w.l.node.State() }

// Watch implements jobs.Cluster.
func (w worker) Watch() <-chan struct{} { return w.l.node.Watch() }

// Now implements jobs.Cluster.
func (w worker) Now() time.Time { return w.l.now() }

// Change implements jobs.Cluster.
func (w worker) Change(ctx context.Context, kind string, body any, actor, request string) (jobs.Spread, error) {
	_, o, err := w.l.change(ctx, kind, body, w.l.meta(actor, request), nil)
	w.l.poke()
	return w.spread(o), err
}

// Republish implements jobs.Cluster.
func (w worker) Republish(ctx context.Context) (jobs.Spread, error) {
	o, err := w.l.publish(ctx, w.State().Head().Version, nil)
	return w.spread(o), err
}

// Redistribute implements jobs.Cluster.
func (w worker) Redistribute(ctx context.Context) (jobs.Spread, error) {
	d, err := w.l.prove(ctx, w.State().Head().Version)
	if err != nil {
		return jobs.Spread{}, err
	}
	d.docs = docsOf(w.State().Roster())
	o := w.l.push.toAll(ctx, d, nil)
	s := w.spread(o)
	for _, n := range w.State().SortedNodes() {
		for _, p := range o.acks[n.UUID].Problems {
			s.Problems = append(s.Problems, string(n.Name)+": "+p)
		}
	}
	return s, nil
}

func (w worker) spread(o outcome) jobs.Spread {
	return jobs.Spread{Done: len(o.effective), All: len(o.effective) + len(o.missed), Unreachable: w.l.unreachable(o)}
}

// Dismiss implements jobs.Cluster. The node is in no roster any more, so its
// address and the key to know it by come from the record before the removal.
func (w worker) Dismiss(ctx context.Context, gone *state.Node) error {
	if gone.Flags.Offline {
		return nil
	}
	told, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	held := w.l.held()
	d := rpc.MapDelivery{Maps: append(w.l.keeper.Chain(), held.Envelope), Docs: docsOf(w.State().Roster())}
	var ack rpc.MapAck
	err := w.l.client.Call(told, at(gone, gone.Addresses[0]), rpc.MethodMapPut, "", d, &ack)
	if err != nil {
		return cluster.Errorf(cluster.CodeUnavailable, "node %s was not told that it is removed; it holds no power any more: %v", gone.Name, err)
	}
	if !gone.Flags.MasterCandidate {
		return nil
	}
	reply, err := w.l.nodes.KeyDestroyAt(ctx, at(gone, gone.Addresses[0]))
	return jobs.Remains(gone.Name, reply, err)
}

// Answers implements jobs.Cluster. Anybody may ask for the version, and a node
// that comes back, with an old map, answers.
func (w worker) Answers(ctx context.Context, node cluster.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	var v rpc.VersionReply
	err := w.l.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Noded}, rpc.MethodVersion, "", nil, &v)
	if err != nil {
		return err
	}
	if level := w.State().FeatureLevel; v.Features < level {
		return cluster.Errorf(cluster.CodeUnsupportedFormat, "its noded, %.60s, knows feature level %d, and the cluster is at level %d", v.Software, v.Features, level).
			WithHint("upgrade rolekey on that node first")
	}
	w.l.push.reach.back(node) // while it was offline nobody waited for it
	return nil
}

// AnswersAt implements jobs.Cluster. The address says nothing about who answers
// there, and the key that the node's certificate must have does.
func (w worker) AnswersAt(ctx context.Context, node cluster.NodeID, addr netip.Addr) error {
	n := w.State().Node(node)
	if n == nil {
		return cluster.Errorf(cluster.CodeNotFound, "node %s is not in the cluster", node)
	}
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	var v rpc.VersionReply
	return w.l.client.Call(ctx, at(n, addr), rpc.MethodVersion, "", nil, &v)
}

// at is a node's noded at an address that the roster may not list.
func at(n *state.Node, addr netip.Addr) rpc.Target {
	return rpc.Target{Addr: netip.AddrPortFrom(addr, n.Ports.Noded), Expect: func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) != 1 || !slices.Contains(n.Server, pki.PinOf(cs.PeerCertificates[0])) {
			return fmt.Errorf("another server than node %s answers at %s", n.Name, addr)
		}
		return nil
	}}
}

// KeyCreate implements jobs.Cluster.
func (w worker) KeyCreate(ctx context.Context, node cluster.NodeID, r rpc.KeyCreateRequest) (rpc.CandidateKeys, error) {
	return w.l.nodes.KeyCreate(ctx, node, r)
}

// repairTimeout bounds how long a node may take to put its files right.
const repairTimeout = 15 * time.Second

// Repair implements jobs.Cluster.
func (w worker) Repair(ctx context.Context, node cluster.NodeID) (rpc.RepairReply, error) {
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	return w.l.repairs.Repair(ctx, node)
}

// KeyDestroy implements jobs.Cluster.
func (w worker) KeyDestroy(ctx context.Context, node cluster.NodeID) (rpc.KeyDestroyReply, error) {
	return w.l.nodes.KeyDestroy(ctx, node)
}

// SSHSettle implements jobs.Cluster.
func (w worker) SSHSettle(ctx context.Context, node cluster.NodeID, r rpc.SSHSettleRequest) (rpc.SSHSettleReply, error) {
	return w.l.settles.SSHSettle(ctx, node, r)
}

// Inspect implements jobs.Cluster.
func (w worker) Inspect(ctx context.Context, node cluster.NodeID) (rpc.NodeState, error) {
	return w.l.ask.State(ctx, node)
}

// CertPrepare implements jobs.Cluster.
func (w worker) CertPrepare(ctx context.Context, node cluster.NodeID, r rpc.CertPrepareRequest) (rpc.CertPrepareReply, error) {
	return w.l.nodes.CertPrepare(ctx, node, r)
}

// CertInstall implements jobs.Cluster.
func (w worker) CertInstall(ctx context.Context, node cluster.NodeID, r rpc.CertInstallRequest) (rpc.CertInstallReply, error) {
	return w.l.nodes.CertInstall(ctx, node, r)
}

// Verify implements jobs.Cluster.
func (w worker) Verify(ctx context.Context, op json.RawMessage, tell func(string)) (verify.Report, error) {
	view := func() (*state.State, *candmap.Verified) { return w.State(), w.l.held() }
	ask := verifier{w.l.ask, w}
	return verify.Run(ctx, ask, view, op, w.Now, tell)
}

// Hooks implements jobs.Cluster.
func (w worker) Hooks(ctx context.Context, c hooks.Call) hooks.Report { return w.l.hooks(ctx, c) }

// Voting implements jobs.Cluster.
func (w worker) Voting(ctx context.Context) roles.View { return w.l.votingNow(ctx) }
