package masterd

import (
	"context"
	"encoding/json"
	"sync"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// calls are the leader's calls to noded, stamped with map and term where they
// change a node.
type calls struct {
	client *rpc.Client
	member *member
}

// PutMap implements nodeCaller.
func (c calls) PutMap(ctx context.Context, node cluster.NodeID, d rpc.MapDelivery) (rpc.MapAck, error) {
	var ack rpc.MapAck
	err := c.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Noded}, rpc.MethodMapPut, "", d, &ack)
	return ack, err
}

// PutBeacon implements nodeCaller.
func (c calls) PutBeacon(ctx context.Context, node cluster.NodeID, env candmap.Envelope) (rpc.MapAck, error) {
	var ack rpc.MapAck
	err := c.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Noded}, rpc.MethodBeaconPut, "", env, &ack)
	return ack, err
}

// KeyCreate implements nodeKeys.
func (c calls) KeyCreate(ctx context.Context, node cluster.NodeID, r rpc.KeyCreateRequest) (rpc.CandidateKeys, error) {
	var keys rpc.CandidateKeys
	err := c.order(ctx, node, rpc.MethodKeyCreate, r, &keys)
	return keys, err
}

// CertPrepare asks a node for requests for its next certificates.
func (c calls) CertPrepare(ctx context.Context, node cluster.NodeID, r rpc.CertPrepareRequest) (rpc.CertPrepareReply, error) {
	var reply rpc.CertPrepareReply
	err := c.order(ctx, node, rpc.MethodCertPrepare, r, &reply)
	return reply, err
}

// CertInstall has a node use new certificates.
func (c calls) CertInstall(ctx context.Context, node cluster.NodeID, r rpc.CertInstallRequest) (rpc.CertInstallReply, error) {
	var reply rpc.CertInstallReply
	err := c.order(ctx, node, rpc.MethodCertInstall, r, &reply)
	return reply, err
}

// Hooks implements hooks.Asker.
func (c calls) Hooks(ctx context.Context, node cluster.NodeID, r rpc.HooksRequest) (rpc.HooksReply, error) {
	var reply rpc.HooksReply
	err := c.order(ctx, node, rpc.MethodHooks, r, &reply)
	return reply, err
}

// Pulse implements hooks.Asker. Anybody may ask for the version.
func (c calls) Pulse(ctx context.Context, node cluster.NodeID) error {
	var v rpc.VersionReply
	return c.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Noded}, rpc.MethodVersion, "", nil, &v)
}

// order makes a call that changes a node. One that has just joined or come back
// has heard no beacon yet, and gets it first.
func (c calls) order(ctx context.Context, node cluster.NodeID, m rpc.Method, req, resp any) error {
	to := rpc.Target{Node: node, Daemon: rpc.Noded}
	err := c.stamped(ctx, to, m, req, resp)
	if l := c.member.office.holder(); cluster.CodeOf(err) == cluster.CodeMapStale && l != nil {
		if err := l.beacon(ctx, beaconTimeout); err != nil {
			return err
		}
		err = c.stamped(ctx, to, m, req, resp)
	}
	return err
}

// stamped makes an order that names the map by which it is given.
func (c calls) stamped(ctx context.Context, to rpc.Target, m rpc.Method, req, resp any) error {
	return byNewest(c.stamp, func(by rpc.Stamp) error {
		return c.client.Call(rpc.WithStamp(ctx, by), to, m, "", req, resp)
	})
}

// byNewest makes a call by the newest map of this node. If a newer one comes in
// force and reaches the other node before the call does, it is made once more.
func byNewest(newest func() rpc.Stamp, call func(by rpc.Stamp) error) error {
	by := newest()
	err := call(by)
	if now := newest(); cluster.CodeOf(err) == cluster.CodeMapOlder && now.Version.Newer(by.Version) {
		err = call(now)
	}
	return err
}

// KeyDestroy implements nodeKeys.
func (c calls) KeyDestroy(ctx context.Context, node cluster.NodeID) (rpc.KeyDestroyReply, error) {
	return c.KeyDestroyAt(ctx, rpc.Target{Node: node, Daemon: rpc.Noded})
}

// KeyDestroyAt implements nodeKeys.
func (c calls) KeyDestroyAt(ctx context.Context, to rpc.Target) (rpc.KeyDestroyReply, error) {
	var reply rpc.KeyDestroyReply
	err := c.stamped(ctx, to, rpc.MethodKeyDestroy, struct{}{}, &reply)
	return reply, err
}

// Repair has a node put its own files right.
func (c calls) Repair(ctx context.Context, node cluster.NodeID) (rpc.RepairReply, error) {
	var reply rpc.RepairReply
	err := c.order(ctx, node, rpc.MethodRepair, struct{}{}, &reply)
	return reply, err
}

// State asks a node for what verify needs.
func (c calls) State(ctx context.Context, node cluster.NodeID) (rpc.NodeState, error) {
	var s rpc.NodeState
	err := c.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Noded}, rpc.MethodState, "", nil, &s)
	return s, err
}

// Facts asks a node for what is on its disk.
func (c calls) Facts(ctx context.Context, node cluster.NodeID, r rpc.FactsRequest) (rpc.NodeFacts, error) {
	var f rpc.NodeFacts
	err := c.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Noded}, rpc.MethodFacts, "", r, &f)
	return f, err
}

// SSHProbe asks a candidate to authenticate by SSH to targets.
func (c calls) SSHProbe(ctx context.Context, node cluster.NodeID, r rpc.SSHProbeRequest) (rpc.SSHProbeReply, error) {
	var reply rpc.SSHProbeReply
	err := c.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Noded}, rpc.MethodSSHProbe, "", r, &reply)
	return reply, err
}

// SSHSettle has a node wait for logins by SSH.
func (c calls) SSHSettle(ctx context.Context, node cluster.NodeID, r rpc.SSHSettleRequest) (rpc.SSHSettleReply, error) {
	var reply rpc.SSHSettleReply
	err := c.client.Call(ctx, rpc.Target{Node: node, Daemon: rpc.Noded}, rpc.MethodSSHSettle, "", r, &reply)
	return reply, err
}

func (c calls) stamp() rpc.Stamp {
	return rpc.Stamp{Version: c.member.keeper.View().At(), Term: c.member.node.Term()}
}

// office knows the leader while this node is master.
type office struct {
	mu sync.Mutex
	l  *leader
}

func (o *office) enter(l *leader) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.l = l
}

func (o *office) leave() { o.enter(nil) }

// holder returns the leader once it is in office, or nil.
func (o *office) holder() *leader {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.l == nil {
		return nil
	}
	select {
	case <-o.l.ready:
		return o.l
	default:
		return nil
	}
}

// State implements keyserver.Master.
func (m *member) State() *state.State { return m.node.State() }

// Ready implements keyserver.Master.
func (m *member) Ready() error {
	if m.office.holder() != nil {
		return nil
	}
	st := m.node.State()
	if n := st.Node(st.Master); n != nil && n.UUID != m.self.node {
		e := cluster.Errorf(cluster.CodeNotMaster, "this node is not the master; the master is %s", n.Name).
			WithHint("run the command on %s", n.Name)
		e.Node = string(n.Name)
		return e
	}
	return cluster.Errorf(cluster.CodeNoQuorum, "there is no master at present: a majority of the voters must be up to elect one").
		WithHint("try again in a few seconds; gnt-cluster getmaster tells who was master last")
}

// Change implements keyserver.Master.
func (m *member) Change(ctx context.Context, kind string, body any, actor, request string) (state.Result, error) {
	l := m.office.holder()
	if l == nil {
		return state.Result{}, m.Ready()
	}
	result, _, err := l.change(ctx, kind, body, l.meta(actor, request), nil)
	return result, err
}

// Added implements keyserver.Master.
func (m *member) Added(ctx context.Context, name cluster.Name, request string) error {
	op, err := json.Marshal(map[string]string{"OP_ID": jobs.OpNodeAdd, "node_name": string(name)})
	if err != nil {
		return err
	}
	summary := "NODE_ADD(" + string(name) + ")"
	if _, err = m.submit(ctx, []json.RawMessage{op}, []string{summary}, "node "+string(name), request); err != nil {
		return err
	}
	l, n := m.office.holder(), m.node.State().NodeByName(name)
	if l != nil && n != nil {
		l.push.reach.back(n.UUID) // while it was set up nobody waited for it
	}
	return nil
}

// Chain implements keyserver.Master.
func (m *member) Chain(from cluster.Version) []candmap.Envelope { return m.keeper.Since(from) }

// Beacon implements keyserver.Master.
func (m *member) Beacon() (candmap.Envelope, bool) { return m.keeper.Beacon() }
