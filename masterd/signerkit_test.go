package masterd

import (
	"context"
	"crypto/ed25519"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// raftView plays raft for a signer.
type raftView struct {
	mu      sync.Mutex
	st      *state.State
	term    uint64
	leader  raft.ServerID
	changed chan struct{}
}

func newRaftView(st *state.State, term uint64, leader int) *raftView {
	return &raftView{st: st, term: term, leader: server(leader), changed: make(chan struct{})}
}

// server is the raft server of node i; node 0 is nobody.
func server(i int) raft.ServerID {
	if i == 0 {
		return ""
	}
	return consensus.ServerID(statetest.ID(i), 1)
}

func (v *raftView) State() *state.State {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.st
}

func (v *raftView) Watch() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

func (v *raftView) Term() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.term
}

func (v *raftView) Leader() raft.ServerID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.leader
}

func (v *raftView) set(st *state.State, term uint64, leader int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.st, v.term, v.leader = st, term, server(leader)
	close(v.changed)
	v.changed = make(chan struct{})
}

// crashDisk is a stable store that can fail before or after a write.
type crashDisk struct {
	*raft.InmemStore
	before, after error
}

func newCrashDisk() *crashDisk { return &crashDisk{InmemStore: raft.NewInmemStore()} }

func (d *crashDisk) Set(k, v []byte) error {
	if d.before != nil {
		return d.before
	}
	if err := d.InmemStore.Set(k, v); err != nil {
		return err
	}
	return d.after
}

// voterKit is a voter with its disk; restart makes a new signer on that disk.
type voterKit struct {
	t    statetest.TB
	raft *raftView
	disk *crashDisk
	key  ed25519.PrivateKey
	now  time.Time
	ctx  context.Context //nolint:containedctx // of the requests
	*signer
}

// newVoterKit makes voter 1, which follows leader 1 in term 1 of the lab.
func newVoterKit(t statetest.TB, lab *statetest.Lab) *voterKit {
	t.Helper()
	k := &voterKit{
		t: t, raft: newRaftView(lab.S, lab.Term, 1), disk: newCrashDisk(), now: lab.Now, ctx: context.Background(),
		key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)),
	}
	k.restart()
	return k
}

func (k *voterKit) restart() {
	k.t.Helper()
	s, err := newSigner(k.raft, statetest.ID(1), k.keys, k.disk, func() time.Time { return k.now })
	if err != nil {
		k.t.Fatalf("%v", err)
	}
	k.signer = s
}

func (k *voterKit) keys() []ed25519.PrivateKey {
	if k.key == nil {
		return nil
	}
	return []ed25519.PrivateKey{k.key}
}

// first is the signature of a voter that has one key.
func first(sigs []candmap.Signature, err error) (candmap.Signature, error) {
	if err != nil || len(sigs) == 0 {
		return candmap.Signature{}, err
	}
	return sigs[0], nil
}

// askMap asks for a signature on a version, as its leader would.
func (k *voterKit) askMap(e state.ChainEntry) (candmap.Signature, error) {
	peer, _, _ := consensus.ParseServerID(k.raft.Leader())
	return first(k.sign(k.ctx, peer, rpc.SignRequest{PayloadType: candmap.MapType, Version: e.Version, Hash: e.Hash, Term: k.raft.Term()}))
}

func (k *voterKit) askBeacon(b candmap.Beacon) (candmap.Signature, error) {
	payload, err := b.Encode()
	if err != nil {
		k.t.Fatalf("%v", err)
	}
	peer, _, _ := consensus.ParseServerID(k.raft.Leader())
	return first(k.sign(k.ctx, peer, rpc.SignRequest{PayloadType: candmap.BeaconType, Version: b.At(), Hash: b.Map, Payload: payload, Term: k.raft.Term()}))
}

func beaconFor(st *state.State, e state.ChainEntry, at time.Time) candmap.Beacon {
	return candmap.Beacon{Cluster: st.Cluster.UUID, Epoch: e.Version.Epoch, Version: e.Version.Version, Map: e.Hash, Time: candmap.Stamp(at)}
}

func mustSign(t testing.TB, what string, sig candmap.Signature, err error) {
	t.Helper()
	if err != nil || len(sig.Sig) == 0 {
		t.Fatalf("%s is not signed: %v", what, err)
	}
}

func mustRefuse(t testing.TB, what string, want cluster.Code, sig candmap.Signature, err error) {
	t.Helper()
	if len(sig.Sig) > 0 {
		t.Fatalf("%s is signed", what)
	}
	if got := cluster.CodeOf(err); got != want {
		t.Fatalf("%s: refused with %v (%s), want %s", what, err, got, want)
	}
}

// other returns a history of the same cluster that goes another way after the
// first n commands of the lab.
func other(t statetest.TB, lab *statetest.Lab, n int) *statetest.Lab {
	l := &statetest.Lab{TB: t, S: state.New(), Now: statetest.Epoch, Term: lab.Term}
	for _, b := range lab.Log[:n] {
		l.Apply(b)
	}
	l.Now = statetest.Epoch.Add(time.Duration(n) * time.Second)
	return l
}

func lease(l *statetest.Lab, seconds uint32) {
	l.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(seconds)}})
}
