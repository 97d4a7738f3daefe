package masterd

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// signingKey finds the private half of a node's signing key: statetest makes
// it from a number.
func signingKey(t *testing.T, n *state.Node) ed25519.PrivateKey {
	t.Helper()
	for gen := range 1000 {
		seed := cluster.DigestOf(fmt.Appendf(nil, "seed of %d", int(n.UUID[7])<<16+gen))
		k := ed25519.NewKeyFromSeed(seed[:])
		if slices.Equal([]byte(n.Keys.Signing), k.Public().(ed25519.PublicKey)) { //nolint:forcetypeassert // documented
			return k
		}
	}
	t.Fatalf("no key for %s", n.Name)
	return nil
}

// reign is node 1 as the elected master of the lab's cluster, with raft in
// memory and twins of all nodeds.
type reign struct {
	t      *testing.T
	l      *leader
	world  *nodeds
	keys   *keyTwin
	signer *signer
	began  time.Time
}

// keyTwin plays the noded of every node when it is asked for keys.
type keyTwin struct {
	mu    sync.Mutex
	asked []cluster.NodeID
	ssh   bool // the last one was asked for an SSH key
	fail  error
	reply func(node cluster.NodeID, r rpc.KeyCreateRequest) rpc.CandidateKeys // nil: only the certificate
}

func (k *keyTwin) KeyCreate(_ context.Context, node cluster.NodeID, r rpc.KeyCreateRequest) (rpc.CandidateKeys, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked, k.ssh = append(k.asked, node), r.SSHSetup != nil && *r.SSHSetup
	if k.reply != nil {
		keys := k.reply(node, r)
		keys.Installed = cluster.DigestOf(r.Certificate)
		return keys, k.fail
	}
	return rpc.CandidateKeys{Installed: cluster.DigestOf(r.Certificate)}, k.fail
}

func (k *keyTwin) CertPrepare(context.Context, cluster.NodeID, rpc.CertPrepareRequest) (rpc.CertPrepareReply, error) {
	return rpc.CertPrepareReply{}, errors.New("nobody asks for this")
}

func (k *keyTwin) CertInstall(context.Context, cluster.NodeID, rpc.CertInstallRequest) (rpc.CertInstallReply, error) {
	return rpc.CertInstallReply{}, errors.New("nobody asks for this")
}

func (k *keyTwin) KeyDestroyAt(context.Context, rpc.Target) (rpc.KeyDestroyReply, error) {
	return rpc.KeyDestroyReply{}, errors.New("nobody asks for this")
}

func (k *keyTwin) KeyDestroy(context.Context, cluster.NodeID) (rpc.KeyDestroyReply, error) {
	return rpc.KeyDestroyReply{}, errors.New("nobody asks for this")
}

func (k *keyTwin) times(id cluster.NodeID) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.asked {
		if a == id {
			n++
		}
	}
	return n
}

// nowhere is the network of a cluster of one.
type nowhere struct{}

func (nowhere) Send(context.Context, raft.ServerID, string, []byte) ([]byte, error) {
	return nil, errors.New("nobody there")
}

// newReign founds raft with the lab's state. The leader's keeper holds version
// 1 alone, so what followed is committed and not published.
func newReign(t *testing.T, lab *statetest.Lab) *reign {
	t.Helper()
	r := &reign{t: t, world: newNodeds(), keys: &keyTwin{}, began: time.Now()}
	id, disk, snaps := server(1), raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	if err := consensus.Found(id, disk, snaps, lab.S); err != nil {
		t.Fatal(err)
	}
	node, err := consensus.New(consensus.Config{
		ID: id, Logs: disk, Stable: disk, Snapshots: snaps, Sender: nowhere{}, Logger: hclog.NewNullLogger(),
		Fatal: func(err error) { t.Errorf("fatal: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	now := func() time.Time { return lab.Now.Add(time.Since(r.began)) }
	key := signingKey(t, lab.S.Node(statetest.ID(1)))
	if r.signer, err = newSigner(node, statetest.ID(1), func() []ed25519.PrivateKey { return []ed25519.PrivateKey{key} }, disk, now); err != nil {
		t.Fatal(err)
	}
	keeper := keeperAt(t, lab.S.Chain[0], key, now)
	<-node.Leadership()
	r.l = &leader{
		scripts: noHooks{},
		node:    node, self: statetest.ID(1), keeper: keeper, nodes: r.keys, clock: newClock(now), log: zap.NewNop(), alive: func(context.Context, cluster.NodeID) bool { return true },
		push: &pusher{call: r.world, reach: newReach(), now: now, chain: keeper.Since},
		sign: func(ctx context.Context, voter cluster.NodeID, req rpc.SignRequest) ([]candmap.Signature, error) {
			return r.signer.sign(ctx, voter, req)
		},
		levelOf:    func(context.Context, cluster.NodeID, rpc.Daemon) int { return 1 },
		work:       func(ctx context.Context, _ *leader) error { <-ctx.Done(); return context.Cause(ctx) },
		publishing: make(chan struct{}, 1), moving: make(chan struct{}, 1), pinning: make(chan struct{}, 1), wake: make(chan struct{}, 1), ready: make(chan struct{}), ensured: map[cluster.NodeID]ensured{},
	}
	return r
}

func keeperAt(t *testing.T, e state.ChainEntry, key ed25519.PrivateKey, now func() time.Time) *candmap.Keeper {
	t.Helper()
	boot := now()
	k, err := candmap.NewKeeper(candmap.KeeperConfig{
		Cluster: statetest.ID(0xc1), Store: candmap.NewMemStore(),
		Clocks: func() candmap.Clocks { return candmap.Clocks{Wall: now(), Boot: now().Sub(boot) + time.Hour} },
	})
	if err != nil {
		t.Fatal(err)
	}
	sig, err := candmap.Sign(key, candmap.MapType, e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	env := candmap.Merge(candmap.Envelope{PayloadType: candmap.MapType, Payload: e.Payload}, sig)
	if _, err := k.Create(t.Context(), env, nil); err != nil {
		t.Fatal(err)
	}
	return k
}

// lead runs the leader until the test ends, once it is in office.
func (r *reign) lead() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.l.run(ctx); err != nil && ctx.Err() == nil {
			r.t.Errorf("the leader stopped: %v", err)
		}
	}()
	r.t.Cleanup(func() { cancel(); <-done })
	select {
	case <-r.l.ready:
	case <-time.After(time.Minute):
		r.t.Fatal("it does not take office")
	}
}

// labOf has n regular nodes beside the master, and this lease.
func labOf(t *testing.T, n int, leaseSeconds uint32) *statetest.Lab {
	t.Helper()
	lab := statetest.New(t)
	for i := 2; i <= n+1; i++ {
		lab.Add(i)
	}
	lease(lab, leaseSeconds)
	return lab
}

func members(from, to int) (ids []cluster.NodeID) {
	for i := from; i <= to; i++ {
		ids = append(ids, statetest.ID(i))
	}
	return ids
}

// version returns the newest map that was delivered to node i.
func (r *reign) version(i int) (v cluster.Version) {
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	for _, d := range r.world.nodes[statetest.ID(i)].got {
		for _, env := range d.Maps {
			if m, err := candmap.DecodeMap(env.Payload); err == nil && m.At().Newer(v) {
				v = m.At()
			}
		}
	}
	return v
}

// TestG7TakeOfficeCompletesWhatIsCommitted: the master before died between
// its commits and their publication.
func TestG7TakeOfficeCompletesWhatIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := labOf(t, 3, 120)
		r := newReign(t, lab)
		r.world.up(members(1, 4)...)
		r.lead()
		head := lab.S.Head()
		if r.l.held().Hash != head.Hash {
			t.Errorf("it holds map %s, committed is %s", r.l.held().At(), head.Version)
		}
		for i := 1; i <= 4; i++ {
			if r.version(i) != head.Version {
				t.Errorf("node %d was given map %s, want %s", i, r.version(i), head.Version)
			}
		}
		if r.signer.newest() != head.Version {
			t.Errorf("signed up to %s", r.signer.newest())
		}
	})
}

func TestChangeIsPublishedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReign(t, labOf(t, 3, 120))
		r.world.up(members(1, 3)...) // node 4 is dead
		r.lead()
		time.Sleep(time.Minute)
		result, o, err := r.l.change(t.Context(), state.KindParamsChange,
			state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(uint32(60))}}, r.l.meta("test", ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(o.effective) != 3 || !slices.Equal(o.missed, members(4, 4)) {
			t.Errorf("effective on %d, missed %v", len(o.effective), o.missed)
		}
		for i := 1; i <= 3; i++ {
			if r.version(i) != result.Version {
				t.Errorf("node %d was given map %s, want %s", i, r.version(i), result.Version)
			}
		}
		u := r.l.unreachable(o)
		if len(u) != 1 || u[0].Node != "node4.lab.test" || u[0].RPCUntil == nil || u[0].RPCUntil.After(r.l.now().Add(120*time.Second)) {
			t.Errorf("unreachable %+v", u)
		}
	})
}

// TestOfflineNodesAreNotWaitedFor, and not counted; they are told all the same.
func TestOfflineNodesAreNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := labOf(t, 3, 120)
		for _, i := range []int{3, 4} {
			lab.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(i), Flags: &state.FlagPatch{Offline: new(true)}})
		}
		r := newReign(t, lab)
		r.world.up(members(1, 3)...) // node 3 is offline, and answers; node 4 does not
		r.lead()
		start := time.Now()
		result, o, err := r.l.change(t.Context(), state.KindParamsChange,
			state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(uint32(60))}}, r.l.meta("test", ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("it waited %s for an offline node", took)
		}
		if len(o.effective) != 2 || len(o.missed) > 0 {
			t.Errorf("effective on %v, missed %v", o.effective, o.missed)
		}
		synctest.Wait()
		if r.version(3) != result.Version {
			t.Errorf("an offline node that answers was given map %s", r.version(3))
		}
	})
}

// TestBeaconsKeepHealthyNodesFresh although others never answer: the next
// beacon does not wait for them.
func TestBeaconsKeepHealthyNodesFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lease = 3 * time.Second
		r := newReign(t, labOf(t, 4, uint32(lease/time.Second)))
		r.world.up(members(1, 2)...)
		r.lead()
		var worst time.Duration
		last, seen := time.Now(), 0
		for range 3000 {
			time.Sleep(10 * time.Millisecond)
			r.world.mu.Lock()
			n := r.world.nodes[statetest.ID(2)].beacons
			r.world.mu.Unlock()
			if n > seen {
				seen, last = n, time.Now()
			}
			worst = max(worst, time.Since(last))
		}
		if worst > lease/2 {
			t.Errorf("%s passed between two beacons, the lease is %s", worst, lease)
		}
	})
}

// TestCatchUpIsNotHeldUpByTheDead: many nodes are down, and one comes back.
func TestCatchUpIsNotHeldUpByTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReign(t, labOf(t, 20, 120))
		r.world.up(members(1, 1)...)
		r.lead()
		time.Sleep(time.Minute)
		r.world.up(statetest.ID(21))
		back := time.Now()
		for r.version(21) != r.l.held().At() {
			time.Sleep(10 * time.Millisecond)
			if time.Since(back) > time.Minute {
				t.Fatal("it never catches up")
			}
		}
		if took := time.Since(back); took > 3*pushTimeout {
			t.Errorf("it caught up after %s", took)
		}
	})
}

// TestG7KeysAreEnsuredOnce for every candidate that answers: the master that
// promoted it may have died before it installed the certificate.
func TestG7KeysAreEnsuredOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := labOf(t, 3, 120)
		lab.Promote(2)
		lab.Promote(3)
		r := newReign(t, lab)
		r.world.up(statetest.ID(1), statetest.ID(2), statetest.ID(4)) // node 3 is dead
		r.keys.fail = errors.New("busy")
		r.lead()
		time.Sleep(10 * time.Second)
		if n := r.keys.times(statetest.ID(2)); n < 3 {
			t.Errorf("a candidate that refuses was asked %d times", n)
		}
		r.keys.mu.Lock()
		r.keys.fail, r.keys.asked = nil, nil
		r.keys.mu.Unlock()
		time.Sleep(10 * time.Second)
		if n := r.keys.times(statetest.ID(2)); n != 1 {
			t.Errorf("a candidate that has its keys was asked %d times", n)
		}
		if n := r.keys.times(statetest.ID(3)) + r.keys.times(statetest.ID(4)); n > 0 {
			t.Errorf("a dead candidate or a normal node was asked %d times", n)
		}
		r.keys.mu.Lock()
		defer r.keys.mu.Unlock()
		if !r.keys.ssh {
			t.Error("a candidate is not told that SSH is set up")
		}
	})
}

// TestG7UnpublishedCommitIsPublishedLater: the caller of a change went away
// after the commit.
func TestG7UnpublishedCommitIsPublishedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReign(t, labOf(t, 1, 120))
		r.world.up(members(1, 2)...)
		r.lead()
		result, err := r.l.node.Propose(t.Context(), state.KindParamsChange,
			state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(uint32(60))}}, r.l.meta("test", ""))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * reconcilePause)
		if r.version(2) != result.Version {
			t.Errorf("node 2 holds %s, committed is %s", r.version(2), result.Version)
		}
	})
}

// TestOfficeIsTakenWithoutTheDead: after a failover the former master does not
// answer, and nobody waits for it before the first change.
func TestOfficeIsTakenWithoutTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := labOf(t, 3, 120)
		lab.Promote(2)
		lab.Do(state.KindSetMaster, state.SetMaster{Node: statetest.ID(2)})
		r := newReign(t, lab)
		r.world.up(statetest.ID(1), statetest.ID(3), statetest.ID(4))
		start := time.Now()
		r.lead()
		if took := time.Since(start); took > 2*officePatience {
			t.Errorf("it took %s", took)
		}
		time.Sleep(pushTimeout)
		if got := r.l.node.State(); got.Master != statetest.ID(1) {
			t.Errorf("the master is %s", got.Master)
		}
		for _, i := range []int{1, 3, 4} {
			if r.version(i) != r.l.node.State().Head().Version {
				t.Errorf("node %d was given map %s", i, r.version(i))
			}
		}
	})
}

// noHooks are nodes without hooks.
type noHooks struct{}

func (noHooks) Hooks(context.Context, cluster.NodeID, rpc.HooksRequest) (rpc.HooksReply, error) {
	return rpc.HooksReply{}, nil
}

func (noHooks) Pulse(context.Context, cluster.NodeID) error { return nil }
