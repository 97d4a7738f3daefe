package masterd

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/candmap"
	"rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// nodeds plays the noded of every node. One without an entry never answers.
type nodeds struct {
	mu    sync.Mutex
	nodes map[cluster.NodeID]*nodedTwin
}

// nodedTwin answers deliveries; answer may be nil.
type nodedTwin struct {
	answer  func(d rpc.MapDelivery) (rpc.MapAck, error)
	got     []rpc.MapDelivery
	beacons int
	missing bool // it says that it lacks its SSH key
}

func newNodeds() *nodeds { return &nodeds{nodes: map[cluster.NodeID]*nodedTwin{}} }

func (n *nodeds) PutMap(ctx context.Context, node cluster.NodeID, d rpc.MapDelivery) (rpc.MapAck, error) {
	n.mu.Lock()
	twin := n.nodes[node]
	var missing bool
	if twin != nil {
		twin.got = append(twin.got, d)
		missing = twin.missing
	}
	n.mu.Unlock()
	if twin == nil {
		<-ctx.Done()
		return rpc.MapAck{}, ctx.Err()
	}
	if twin.answer != nil {
		return twin.answer(d)
	}
	m, err := candmap.DecodeMap(d.Maps[len(d.Maps)-1].Payload)
	if err != nil {
		return rpc.MapAck{}, err
	}
	return rpc.MapAck{Version: m.At(), Fresh: true, SSHMissing: missing}, nil
}

func (n *nodeds) PutBeacon(ctx context.Context, node cluster.NodeID, _ candmap.Envelope) (rpc.MapAck, error) {
	n.mu.Lock()
	twin := n.nodes[node]
	var missing bool
	if twin != nil {
		twin.beacons++
		missing = twin.missing
	}
	n.mu.Unlock()
	if twin == nil {
		<-ctx.Done()
		return rpc.MapAck{}, ctx.Err()
	}
	return rpc.MapAck{Fresh: true, SSHMissing: missing}, nil
}

func (n *nodeds) up(ids ...cluster.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		n.nodes[id] = &nodedTwin{}
	}
}

func nodeIDs(n int) (ids []cluster.NodeID) {
	for i := range n {
		ids = append(ids, candmaptest.NodeID(i+1))
	}
	return ids
}

func newPusher(call nodeCaller) *pusher {
	return &pusher{call: call, reach: newReach(), now: time.Now, chain: func(cluster.Version) []candmap.Envelope { return nil }}
}

// theMap is version 1.2 and what it says.
func theMap() (candmap.Envelope, cluster.Version) {
	m := candmaptest.Next(candmaptest.Map(1))
	return candmaptest.Seal(m, 1), m.At()
}

func TestPushCountsWhoConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := nodeIDs(5)
		world := newNodeds()
		world.up(ids[:3]...)
		env, at := theMap()
		world.nodes[ids[1]].answer = func(rpc.MapDelivery) (rpc.MapAck, error) { // holds an older one, and stays with it
			return rpc.MapAck{Version: cluster.Version{Epoch: 1, Version: 1}}, nil
		}
		world.nodes[ids[2]].answer = func(rpc.MapDelivery) (rpc.MapAck, error) { // is ahead already
			return rpc.MapAck{Version: cluster.Version{Epoch: 1, Version: 9}}, nil
		}
		p := newPusher(world)
		var told []int
		start := time.Now()
		o := p.toAll(t.Context(), delivery{nodes: ids, env: env, at: at}, func(done, all int) {
			if all != 5 {
				t.Errorf("progress of %d nodes, want 5", all)
			}
			told = append(told, done)
		})
		if took := time.Since(start); took != pushTimeout {
			t.Errorf("it took %s, want the patience of %s", took, pushTimeout)
		}
		slices.SortFunc(o.effective, state.CompareID)
		if !slices.Equal(o.effective, []cluster.NodeID{ids[0], ids[2]}) || !slices.Equal(o.missed, []cluster.NodeID{ids[1], ids[3], ids[4]}) {
			t.Errorf("effective on %v, missed %v", o.effective, o.missed)
		}
		if len(told) != 5 || told[4] != 2 {
			t.Errorf("progress was %v", told)
		}
		p.wait()
	})
}

// TestPushDoesNotWaitForTheDead: after two failures a node is tried, and not
// waited for; an answer brings it back.
func TestPushDoesNotWaitForTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := nodeIDs(3)
		world := newNodeds()
		world.up(ids[:2]...)
		p := newPusher(world)
		env, at := theMap()
		for i := range givenUpAfter {
			start := time.Now()
			p.toAll(t.Context(), delivery{nodes: ids, env: env, at: at}, nil)
			if took := time.Since(start); took != pushTimeout {
				t.Errorf("attempt %d took %s", i, took)
			}
		}
		start := time.Now()
		o := p.toAll(t.Context(), delivery{nodes: ids, env: env, at: at}, nil)
		if took := time.Since(start); took > 0 {
			t.Errorf("the push waited %s for a node that was given up", took)
		}
		if !slices.Equal(o.missed, ids[2:]) {
			t.Errorf("missed %v", o.missed)
		}
		p.pending.Wait()
		world.up(ids[2])
		p.toAll(t.Context(), delivery{nodes: ids, env: env, at: at}, nil)
		p.pending.Wait()
		if f := p.reach.of(ids[2]).failures; f != 0 {
			t.Errorf("a node that answered counts %d failures", f)
		}
		if o := p.toAll(t.Context(), delivery{nodes: ids, env: env, at: at}, nil); len(o.missed) > 0 {
			t.Errorf("missed %v", o.missed)
		}
	})
}

// TestPushSendsTheChain to a node that cannot verify the newest map alone.
func TestPushSendsTheChain(t *testing.T) {
	for _, code := range []cluster.Code{cluster.CodeBadSignature, cluster.CodeConflict} {
		ids := nodeIDs(1)
		world := newNodeds()
		world.up(ids...)
		env, at := theMap()
		older := candmaptest.Seal(candmaptest.Map(1), 1)
		twin := world.nodes[ids[0]]
		twin.answer = func(d rpc.MapDelivery) (rpc.MapAck, error) {
			if len(d.Maps) == 1 {
				return rpc.MapAck{}, cluster.Errorf(code, "it lacks signatures")
			}
			return rpc.MapAck{Version: at}, nil
		}
		p := newPusher(world)
		p.reach.answered(ids[0], rpc.MapAck{Version: cluster.Version{Epoch: 1, Version: 1}}, time.Now(), 0)
		var asked []cluster.Version
		p.chain = func(from cluster.Version) []candmap.Envelope {
			asked = append(asked, from)
			return []candmap.Envelope{older, env} // Since ends with the current map
		}
		docs := [][]byte{[]byte("doc")}
		o := p.toAll(t.Context(), delivery{nodes: ids, env: env, at: at, docs: docs}, nil)
		if len(o.effective) != 1 || len(twin.got) != 2 {
			t.Fatalf("%s: effective on %v after %d deliveries", code, o.effective, len(twin.got))
		}
		if !slices.Equal(asked, []cluster.Version{{Epoch: 1, Version: 1}}) {
			t.Errorf("the chain was asked for from %v", asked)
		}
		second := twin.got[1]
		if len(second.Maps) != 2 || second.Maps[0].Hash() != older.Hash() || second.Maps[1].Hash() != env.Hash() || len(second.Docs) != 1 {
			t.Errorf("%s: %d maps and %d documents were sent", code, len(second.Maps), len(second.Docs))
		}
	}
}

// TestPushSendsAtMostOneAnswerOfTheChain: more maps than a delivery may hold
// would be refused as a whole.
func TestPushSendsAtMostOneAnswerOfTheChain(t *testing.T) {
	ids := nodeIDs(1)
	world := newNodeds()
	world.up(ids...)
	env, at := theMap()
	world.nodes[ids[0]].answer = func(d rpc.MapDelivery) (rpc.MapAck, error) {
		switch {
		case len(d.Maps) > candmap.MaxChain:
			return rpc.MapAck{}, cluster.Errorf(cluster.CodeTooLarge, "%d maps", len(d.Maps))
		case len(d.Maps) == 1:
			return rpc.MapAck{}, cluster.Errorf(cluster.CodeBadSignature, "it lacks signatures")
		}
		return rpc.MapAck{Version: at}, nil
	}
	p := newPusher(world)
	p.chain = func(cluster.Version) []candmap.Envelope {
		return append(slices.Repeat([]candmap.Envelope{candmaptest.Seal(candmaptest.Map(1), 1)}, candmap.MaxChain-1), env)
	}
	if o := p.toAll(t.Context(), delivery{nodes: ids, env: env, at: at}, nil); len(o.missed) > 0 {
		t.Errorf("not taken: %s", p.reach.of(ids[0]).err)
	}
}

func TestPushKeepsOtherErrors(t *testing.T) {
	ids := nodeIDs(1)
	world := newNodeds()
	world.up(ids...)
	twin := world.nodes[ids[0]]
	twin.answer = func(rpc.MapDelivery) (rpc.MapAck, error) {
		return rpc.MapAck{}, cluster.Errorf(cluster.CodeMapFork, "two forms")
	}
	p := newPusher(world)
	env, at := theMap()
	if o := p.toAll(t.Context(), delivery{nodes: ids, env: env, at: at}, nil); len(o.missed) != 1 || len(twin.got) != 1 {
		t.Errorf("missed %v after %d deliveries", o.missed, len(twin.got))
	}
	if c := p.reach.of(ids[0]); c.failures != 1 || c.err == "" {
		t.Errorf("noted %+v", c)
	}
}

func TestBeaconGoesToAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := nodeIDs(6)
		world := newNodeds()
		world.up(ids[:3]...)
		p := newPusher(world)
		start := time.Now()
		p.beacon(t.Context(), ids, candmap.Envelope{})
		if took := time.Since(start); took != beaconTimeout {
			t.Errorf("it took %s", took)
		}
		for i, id := range ids {
			if got, want := p.reach.of(id).failures, i/3; got != want {
				t.Errorf("node %d has %d failures, want %d", i, got, want)
			}
		}
	})
}

func TestUnreachableBounds(t *testing.T) {
	now := statetest.Epoch
	lab := statetest.New(t)
	n := lab.S.Node(statetest.ID(1))
	plain := state.DefaultParams // 120 s and 24 h
	with := func(f func(*state.Params)) state.Params {
		p := plain
		f(&p)
		return p
	}
	v := func(n uint64) cluster.Version { return cluster.Version{Epoch: 1, Version: n} }
	const lease, ssh = 120 * time.Second, 24 * time.Hour
	ack := func(leaseUntil, sshUntil time.Duration) rpc.MapAck {
		a := rpc.MapAck{Version: v(4), LeaseUntil: now.Add(leaseUntil)}
		if sshUntil > 0 {
			a.SSHUntil = now.Add(sshUntil)
		}
		return a
	}
	for _, c := range []struct {
		name   string
		ack    *rpc.MapAck
		told   uint64        // the newest version before this one
		beacon time.Duration // when the lease of its newest beacon ends
		params state.Params
		rpc    time.Duration // 0: no bound
		ssh    time.Duration
	}{
		{"it never answered this master", nil, 4, 100 * time.Second, plain, lease, lease + ssh},
		{"it answered, and heard no more", new(ack(50*time.Second, 20*time.Hour)), 4, 50 * time.Second, plain, 50 * time.Second, 20 * time.Hour},
		{"its lease had ended when it answered", new(ack(-time.Hour, 20*time.Hour)), 4, -time.Hour, plain, -time.Minute, 20 * time.Hour},
		{"gossip may have brought a later beacon", new(ack(50*time.Second, 20*time.Hour)), 4, 90 * time.Second, plain, 90 * time.Second, 20 * time.Hour},
		{"it may renew the expiry before its lease ends", new(ack(50*time.Second, 12*time.Hour)), 4, 90 * time.Second, plain, 90 * time.Second, 90*time.Second + ssh},
		{"gossip may have brought a map with other keys", new(ack(50*time.Second, 20*time.Hour)), 5, 90 * time.Second, plain, 90 * time.Second, 90*time.Second + ssh},
		{"its sshd knows no expiry", new(ack(50*time.Second, 0)), 4, 50 * time.Second, plain, 50 * time.Second, 0},
		{"best effort has no bound", new(ack(50*time.Second, 20*time.Hour)), 4, 0, with(func(p *state.Params) { p.Policy = cluster.PolicyBestEffort }), 0, 20 * time.Hour},
		{"best effort, never answered", nil, 4, 0, with(func(p *state.Params) { p.Policy = cluster.PolicyBestEffort }), 0, lease + ssh},
		{"without ssh", new(ack(50*time.Second, 20*time.Hour)), 4, 0, with(func(p *state.Params) { p.SSHSetup = false }), 50 * time.Second, 0},
	} {
		r := newReach()
		if c.ack != nil {
			r.answered(n.UUID, *c.ack, now.Add(-time.Minute), 0)
		}
		r.tell(v(c.told), now.Add(c.beacon))
		r.failed(n.UUID, errors.New("no route"), now)
		u := r.bounds(n, c.params, now)
		if u.Node != string(n.Name) {
			t.Errorf("%s: node %s", c.name, u.Node)
		}
		for _, b := range []struct {
			what string
			got  *time.Time
			want time.Duration
		}{{"RPC", u.RPCUntil, c.rpc}, {"SSH", u.SSHUntil, c.ssh}} {
			switch {
			case b.want == 0 && b.got != nil:
				t.Errorf("%s: %s bound %s, want none", c.name, b.what, b.got)
			case b.want != 0 && b.got == nil:
				t.Errorf("%s: no %s bound, want %s", c.name, b.what, b.want)
			case b.want != 0 && !b.got.Equal(now.Add(b.want)):
				t.Errorf("%s: %s bound in %s, want %s", c.name, b.what, b.got.Sub(now), b.want)
			}
		}
	}
}

// TestBoundsFitIntoAJob: a job's record refuses times out of this era.
func TestBoundsFitIntoAJob(t *testing.T) {
	lab := statetest.New(t)
	id := lab.Do(state.KindJobSubmit, state.JobSubmit{Ops: []json.RawMessage{json.RawMessage(`{}`)}, Summary: []string{"x"}}).JobID
	r := newReach()
	n := lab.S.Node(statetest.ID(1))
	r.answered(n.UUID, rpc.MapAck{}, lab.Now, 0)
	lab.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Unreachable: &[]state.Unreachable{r.bounds(n, lab.S.Params, lab.Now)}})
}

// TestPushCompletesTheRoster: a node that says that it lacks documents gets them at
// once, the index first, which names the others; and no maps with them.
func TestPushCompletesTheRoster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := nodeIDs(1)
		index, bucket := []byte("index"), []byte("bucket")
		known := map[cluster.Digest][]byte{cluster.DigestOf(index): index, cluster.DigestOf(bucket): bucket}
		env, at := theMap()
		for name, c := range map[string]struct {
			lacks []cluster.Digest // then nothing
			calls int
		}{
			"nothing":         {nil, 1},
			"index, a bucket": {[]cluster.Digest{cluster.DigestOf(index), cluster.DigestOf(bucket)}, 3},
			"of an older one": {[]cluster.Digest{cluster.DigestOf([]byte("other"))}, 1},
		} {
			world := newNodeds()
			world.up(ids...)
			calls := 0
			world.nodes[ids[0]].answer = func(d rpc.MapDelivery) (rpc.MapAck, error) {
				if calls > 0 && (len(d.Maps) > 0 || len(d.Docs) != 1 || cluster.DigestOf(d.Docs[0]) != c.lacks[calls-1]) {
					t.Errorf("%s: call %d brings %d maps and %d documents", name, calls, len(d.Maps), len(d.Docs))
				}
				ack := rpc.MapAck{Version: at}
				if calls < len(c.lacks) {
					ack.Missing = c.lacks[calls : calls+1]
				}
				calls++
				return ack, nil
			}
			p := newPusher(world)
			p.docs = func(missing []cluster.Digest) (docs [][]byte) {
				for _, d := range missing {
					if doc := known[d]; doc != nil {
						docs = append(docs, doc)
					}
				}
				return docs
			}
			o := p.toAll(t.Context(), delivery{nodes: ids, env: env, at: at}, nil)
			if calls != c.calls || len(o.effective) != 1 {
				t.Errorf("%s: %d calls, effective on %v", name, calls, o.effective)
			}
		}
	})
}
