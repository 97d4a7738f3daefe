package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/candmap"
	"rolekey/internal/lab"
	"rolekey/internal/paths"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
	"rolekey/seal"
	"rolekey/tests/kit"
)

// many is how many nodes the state of the large cluster has.
const many = 1000

// thousand measures masterd with a thousand nodes in its state. One of them is
// real and masterd's own. The others are offline: they cost what a node costs in
// the state, and no connection. Their admissions, and as many ended jobs, were
// applied to the state one by one; it lies in masterd's store as the snapshot
// that it could have made itself.
func (b *bench) thousand(ctx context.Context) error {
	if err := b.c.Stop(ctx, b.master.Name); err != nil {
		return err
	}
	if err := populate(b.master); err != nil {
		return fmt.Errorf("fill state: %w", err)
	}
	var idle, busy, changes []float64
	for range 3 {
		if err := b.c.Kill(ctx, b.master.Name, lab.Masterd); err != nil {
			return err
		}
		if err := b.c.Start(ctx, b.master.Name); err != nil {
			return err
		}
		if err := b.settleMaster(ctx); err != nil {
			return err
		}
		if err := b.masterRSS(ctx, &idle); err != nil {
			return err
		}
		if err := b.changeRoster(ctx, &changes); err != nil {
			return err
		}
		if err := b.masterRSS(ctx, &busy); err != nil {
			return err
		}
	}
	show("masterd, resident memory, 1000 nodes in the state, idle", "MiB", idle, atMost(60))
	show("the same after changes of the roster", "MiB", busy, atMost(60))
	show("a change of the roster of 1000, on one candidate", "ms", changes, target{})
	return nil
}

// changeRoster changes what the roster says of the master's node, a few times.
func (b *bench) changeRoster(ctx context.Context, times *[]float64) error {
	r := kit.NewRAPI(b.master)
	defer r.Close()
	for i := range max(2, b.rounds/3) {
		start := time.Now()
		job, err := r.Modify(ctx, b.master.Name, map[string]bool{"vm_capable": i%2 == 1})
		if err == nil {
			err = r.Wait(ctx, job)
		}
		if err != nil {
			return err
		}
		*times = append(*times, ms(time.Since(start)))
	}
	return nil
}

// settleMaster waits until the master is in office and has published its state.
func (b *bench) settleMaster(ctx context.Context) error {
	if _, _, err := b.c.AwaitMaster(ctx, patience, ""); err != nil {
		return err
	}
	_, err := kit.Until(ctx, patience, func(ctx context.Context) error {
		m, err := b.c.ReadMap(ctx, b.master.Name)
		if err != nil {
			return err
		}
		for _, n := range m.Nodes {
			if n.Name == b.master.Name && n.Hash == m.Hash && n.Fresh && len(m.Nodes) == many {
				return nil
			}
		}
		return errors.New("the master's node does not hold the newest map")
	})
	return err
}

func (b *bench) masterRSS(ctx context.Context, into *[]float64) error {
	// why-sleep: an idle daemon is what is measured.
	time.Sleep(idle)
	n, err := b.c.Node(ctx, b.master.Name)
	if err != nil {
		return err
	}
	rss, err := kit.RSS(n.PIDs.Masterd)
	*into = append(*into, float64(rss)/(1<<20))
	return err
}

// populate adds nodes to the state of a masterd that does not run.
func populate(n lab.Node) error {
	loot, err := kit.Steal(n)
	if err != nil {
		return err
	}
	at := paths.Layout{Root: n.Root}
	ring, err := seal.Open(at.Keyring(), seal.Context{Cluster: loot.Cluster, Node: loot.ID, Incarnation: loot.Incarnation})
	if err != nil {
		return err
	}
	store, err := consensus.OpenStore(consensus.StoreConfig{Path: at.RaftDB(), Sealer: ring})
	if err != nil {
		return err
	}
	snaps, err := consensus.OpenSnapshots(consensus.SnapshotsConfig{Dir: at.SnapshotDir(), Keyring: ring})
	if err == nil {
		err = enlarge(store, snaps)
	}
	return errors.Join(err, store.Close())
}

// enlarge reads the state, has it grow, and writes it as the newest snapshot.
func enlarge(store *consensus.Store, snaps *consensus.Snapshots) error {
	st, meta, last, err := newestState(store, snaps)
	if err != nil {
		return err
	}
	if st, err = grown1000(st); err != nil {
		return err
	}
	b, err := state.EncodeSnapshot(st)
	if err != nil {
		return err
	}
	sink, err := snaps.Create(raft.SnapshotVersionMax, last.Index+1, last.Term, meta.Configuration, meta.ConfigurationIndex, nil)
	if err != nil {
		return err
	}
	if _, err := sink.Write(b); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// newestState applies the log to the newest snapshot.
func newestState(store *consensus.Store, snaps *consensus.Snapshots) (*state.State, *raft.SnapshotMeta, raft.Log, error) {
	var entry raft.Log
	metas, err := snaps.List()
	if err != nil || len(metas) == 0 {
		return nil, nil, entry, errors.Join(errors.New("no snapshot"), err)
	}
	meta, r, err := snaps.Open(metas[0].ID)
	if err != nil {
		return nil, nil, entry, err
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, nil, entry, err
	}
	st, err := state.DecodeSnapshot(b)
	if err != nil {
		return nil, nil, entry, err
	}
	last, err := store.LastIndex()
	entry.Index, entry.Term = meta.Index, meta.Term
	for i := meta.Index + 1; err == nil && i <= last; i++ {
		if err = store.GetLog(i, &entry); err != nil || entry.Type != raft.LogCommand {
			continue
		}
		var c state.Command
		if c, err = state.DecodeCommand(entry.Data); err == nil {
			st, _ = st.Apply(c, entry.Index, entry.Term)
		}
	}
	return st, meta, entry, err
}

// grown1000 returns the state of a cluster that has grown.
func grown1000(st *state.State) (_ *state.State, err error) {
	defer func() {
		if p := recover(); p != nil { // of a refused command
			err = fmt.Errorf("%v", p)
		}
	}()
	ca, err := pki.NewCA(st.Cluster.UUID, st.Cluster.Name, time.Now())
	if err != nil {
		return nil, err
	}
	l := &statetest.Lab{TB: refused{}, S: st, Term: st.MasterTerm}
	for i := 2; len(l.S.Nodes) < many; i++ {
		if err := admit(l, ca, i); err != nil {
			return nil, err
		}
	}
	return l.S, nil
}

// refused makes an error of a test's failure.
type refused struct{}

func (refused) Helper()                           {}
func (refused) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// admit adds one node, with certificates of the real size, sets it offline, and
// leaves an ended job.
func admit(l *statetest.Lab, ca *pki.CA, i int) error {
	do := func(kind string, body any) state.Result {
		l.Now = candmap.Stamp(time.Now().Add(-2 * time.Second)) // the Lab adds one
		res := l.Do(kind, body)
		l.Log = nil
		return res
	}
	l.Now = candmap.Stamp(time.Now().Add(-time.Second))
	n, rec := statetest.Node(i), l.Record(i)
	for kind, cert := range map[pki.Kind]*[]byte{pki.KindServer: &n.ServerCert, pki.KindIdentity: &n.IdentityCert} {
		der, err := ca.Issue(pki.Request{Kind: kind, Node: n.Node, Name: n.Name, Addresses: n.Addresses, PublicKey: ca.Cert.PublicKey}, time.Now())
		if err != nil {
			return err
		}
		*cert = der
	}
	do(state.KindAdmissionCreate, state.AdmissionCreate{Record: rec})
	n.Record, n.Incarnation = rec.ID, l.S.NextIncarnation(n.Node)
	do(state.KindNodeAdmit, n)
	do(state.KindAdmissionSpent, state.AdmissionSpent{ID: rec.ID, Identity: n.Identity})
	op := json.RawMessage(fmt.Sprintf(`{"OP_ID":"OP_NODE_SET_PARAMS","node_name":%q,"offline":true}`, n.Name))
	job := do(state.KindJobSubmit, state.JobSubmit{Ops: []json.RawMessage{op}, Summary: []string{"NODE_SET_PARAMS(" + string(n.Name) + ")"}}).JobID
	end := state.JobUpdate{
		ID: job, Status: state.JobSuccess, OpStatus: []state.JobStatus{state.JobSuccess}, OpResult: []json.RawMessage{json.RawMessage(`[["offline","true"]]`)},
		Progress: []string{"effective on 1 of 1 nodes"},
	}
	do(state.KindNodeChange, state.NodeChange{Node: n.Node, Flags: &state.FlagPatch{Offline: new(true)}, Job: &end})
	return nil
}
