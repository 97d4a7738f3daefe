package jobs

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/hooks"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/masterd/verify"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// errDead is what a master that was killed gets from its last call.
var errDead = errors.New("killed")

// machine is a node as it really is.
type machine struct {
	up        bool
	signing   ed25519.PrivateKey // nil: no candidate keys
	csr       []byte
	installed cluster.Digest
	dismissed bool
	nowhere   []netip.Addr // where it does not answer
	problems  []string     // of destroying keys, or of its files
	spoil     func(*rpc.CandidateKeys)
	refuse    int // so many orders for keys
	refusal   error
	ssh       sshSide
	cert      certSide

	spoilCerts func(*rpc.CertPrepareReply)
	certsInUse func(rpc.CertInstallRequest) // called once, when certificates are in use
	gossip     gossipSide
	seals      *sshkeys.Recipient
}

// world is a Cluster over a replicated state that needs no raft, with one
// machine for each node. It can kill the master at any of its calls.
type world struct {
	t       *testing.T
	mu      sync.Mutex
	hooking sync.Mutex
	waits   bool // the hook does, for another call

	lab      *statetest.Lab
	changed  chan struct{}
	machines map[cluster.NodeID]*machine
	raft     []cluster.NodeID // servers that raft has and the map has no more
	calls    []string
	report   []string                        // of verify
	findings []*verify.Finding               // of verify
	verdict  error                           // of verify
	untilEnd bool                            // a verification takes until it is ended
	scripts  func(c hooks.Call) hooks.Report // nil: no node has hooks

	// The master dies at the call with this number, before its effect or after.
	dieAt  int
	after  bool
	kill   context.CancelCauseFunc
	onCall func(what string)
}

// newWorld founds a cluster of n nodes whose first ones are candidates.
func newWorld(t *testing.T, n, candidates int) *world {
	t.Helper()
	lab := &statetest.Lab{TB: t, S: state.New(), Now: statetest.Epoch, Term: 1}
	g := statetest.Genesis()
	ca, err := pki.NewCA(g.Cluster.UUID, g.Cluster.Name, statetest.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	g.CA.Cert = ca.Cert.Raw
	if g.CA.Key, err = ca.MarshalKey(); err != nil {
		t.Fatal(err)
	}
	g.Params.CandidatePoolSize, g.FeatureLevel = candidates, cluster.FeatureLevel
	lab.Do(state.KindGenesis, g)
	w := &world{t: t, lab: lab, changed: make(chan struct{}), machines: map[cluster.NodeID]*machine{}, dieAt: -1}
	for i := 1; i <= n; i++ {
		if i > 1 {
			lab.Add(i)
		}
		w.machines[statetest.ID(i)] = &machine{up: true}
		if i > 1 && i <= candidates {
			w.promoteByHand(i)
		}
	}
	w.at(1).hold(g.Node.Keys.SSH[0], cluster.StorageFile)
	w.spreadMap()
	return w
}

// promoteByHand makes node i a candidate, and a voter from the third on.
func (w *world) promoteByHand(i int) {
	w.t.Helper()
	keys := statetest.Keys(i, 1)
	w.lab.Do(state.KindNodeChange, state.NodeChange{
		Node: statetest.ID(i), Flags: &state.FlagPatch{MasterCandidate: new(true)}, Keys: &keys, Candidate: statetest.Cert(i, 1),
	})
	m := w.machines[statetest.ID(i)]
	m.signing = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	m.installed = keys.Client[0]
	m.hold(keys.SSH[0], cluster.StorageFile)
	if i%2 == 1 {
		voters := []cluster.NodeID{}
		for v := 1; v <= i; v++ {
			voters = append(voters, statetest.ID(v))
		}
		w.lab.Do(state.KindSetVoters, state.SetVoters{Voters: voters})
	}
}

func (w *world) at(i int) *machine { return w.machines[statetest.ID(i)] }

func (w *world) node(i int) *state.Node { return w.State().Node(statetest.ID(i)) }

// call runs an effect as one call of the master, which may die at it.
func (w *world) call(ctx context.Context, what string, effect func() error) error {
	w.mu.Lock()
	number := len(w.calls)
	w.calls = append(w.calls, what)
	hook := w.onCall
	w.mu.Unlock()
	dies, after := w.hooked(hook, what, number)
	if err := ctx.Err(); err != nil {
		return err
	}
	if dies && !after {
		w.kill(errDead)
		return errDead
	}
	w.mu.Lock()
	err := effect()
	w.mu.Unlock()
	if dies {
		w.kill(errDead)
		return errDead
	}
	return err
}

func (w *world) State() *state.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lab.S
}

func (w *world) Watch() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

func (w *world) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lab.Now
}

func (w *world) Change(ctx context.Context, kind string, body any, _, _ string) (Spread, error) {
	err := w.call(ctx, "change "+kind, func() error { return w.commit(kind, body) })
	return w.spread(), err
}

func (w *world) commit(kind string, body any) error {
	before := w.lab.S.Head().Version
	if _, err := w.lab.Try(kind, body); err != nil {
		return err
	}
	if w.lab.S.Head().Version != before {
		w.vouched("map " + w.lab.S.Head().Version.String())
		w.spreadMap()
	}
	close(w.changed)
	w.changed = make(chan struct{})
	return nil
}

// do commits a change that is none of the runner's.
func (w *world) do(kind string, body any) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.commit(kind, body); err != nil {
		w.t.Errorf("%s: %v", kind, err)
	}
}

func (w *world) Republish(ctx context.Context) (Spread, error) {
	err := w.call(ctx, "republish", func() error { return nil })
	return w.spread(), err
}

func (w *world) Redistribute(ctx context.Context) (Spread, error) {
	err := w.call(ctx, "redistribute", func() error { return nil })
	s := w.spread()
	for _, n := range w.State().SortedNodes() {
		for _, p := range w.machines[n.UUID].problems {
			s.Problems = append(s.Problems, string(n.Name)+": "+p)
		}
	}
	return s, err
}

func (w *world) spread() Spread {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s Spread
	for _, n := range w.lab.S.SortedNodes() {
		if n.Flags.Offline {
			continue
		}
		s.All++
		if w.machines[n.UUID].up {
			s.Done++
			continue
		}
		s.Unreachable = append(s.Unreachable, state.Unreachable{
			Node: string(n.Name), RPCUntil: new(candmap.Stamp(statetest.Epoch.Add(time.Hour))),
		})
	}
	return s
}

func (w *world) Dismiss(ctx context.Context, gone *state.Node) error {
	return w.call(ctx, "dismiss "+string(gone.Name), func() error {
		if w.lab.S.Node(gone.UUID) != nil {
			w.t.Errorf("%s is dismissed while it is a member", gone.Name)
		}
		m := w.machines[gone.UUID]
		if !m.up {
			return fmt.Errorf("node %s was not told: no route to host", gone.Name)
		}
		m.dismissed = true
		if !gone.Flags.MasterCandidate {
			return nil
		}
		return Remains(gone.Name, rpc.KeyDestroyReply{Problems: m.problems}, nil)
	})
}

func (w *world) Answers(ctx context.Context, node cluster.NodeID) error {
	return w.call(ctx, "ask "+w.name(node), func() error {
		if !w.machines[node].up {
			return errors.New("no route to host")
		}
		return nil
	})
}

func (w *world) AnswersAt(ctx context.Context, node cluster.NodeID, addr netip.Addr) error {
	return w.call(ctx, "ask at "+addr.String(), func() error {
		if m := w.machines[node]; !m.up || slices.Contains(m.nowhere, addr) {
			return errors.New("no route to host")
		}
		return nil
	})
}

func (w *world) name(id cluster.NodeID) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.lab.S.Node(id); n != nil {
		return string(n.Name)
	}
	return id.String()
}

func (w *world) Voting(context.Context) roles.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := roles.View{
		Leader: w.lab.S.Master, MapVoters: w.lab.S.Voters(), RaftVoters: w.lab.S.Voters(),
		Reachable: func(id cluster.NodeID) bool { return w.machines[id].up },
	}
	for _, n := range w.lab.S.Candidates() {
		v.Candidates = append(v.Candidates, n.UUID)
		if !n.Voter {
			v.RaftNonvoters = append(v.RaftNonvoters, n.UUID)
		}
	}
	v.RaftNonvoters = append(v.RaftNonvoters, w.raft...)
	return v
}

func (w *world) KeyCreate(ctx context.Context, node cluster.NodeID, r rpc.KeyCreateRequest) (keys rpc.CandidateKeys, err error) {
	err = w.call(ctx, "create "+w.name(node), func() error {
		m, n := w.machines[node], w.lab.S.Node(node)
		if !m.up {
			return errors.New("no route to host")
		}
		if m.refuse > 0 {
			m.refuse--
			return m.refusal
		}
		if n == nil || r.Incarnation != n.Incarnation {
			return cluster.Errorf(cluster.CodeConflict, "incarnation %d", r.Incarnation)
		}
		if slices.Contains(w.raft, node) {
			w.t.Errorf("%s makes new keys while raft has its former life", n.Name)
		}
		if want := w.lab.S.Params.SSHSetup; r.SSHSetup == nil || *r.SSHSetup != want {
			w.t.Errorf("%s is not told that SSH is set up: %v", n.Name, want)
		}
		if keys, err = m.keys(w.lab.S, n, r.Certificate); err == nil && r.SSHKey != nil {
			keys.SSH = nil
			err = m.sshKey(w.t, w.lab.S, n, r.SSHKey, &keys)
		}
		if err == nil && m.spoil != nil {
			m.spoil(&keys)
		}
		return err
	})
	return keys, err
}

// keys does what noded and masterd do.
func (m *machine) keys(s *state.State, n *state.Node, cert []byte) (keys rpc.CandidateKeys, err error) {
	if m.signing == nil {
		_, m.signing, err = ed25519.GenerateKey(nil)
		if err != nil {
			return keys, err
		}
	}
	if m.csr == nil {
		key, err := pki.GenerateKey()
		if err != nil {
			return keys, err
		}
		if m.csr, err = pki.NewCSR(key); err != nil {
			return keys, err
		}
	}
	if len(cert) > 0 {
		m.installed = cluster.DigestOf(cert)
	}
	keys = rpc.CandidateKeys{
		Features: cluster.FeatureLevel,
		CSR:      m.csr, Signing: candmap.SigningKey(m.signing.Public().(ed25519.PublicKey)), //nolint:forcetypeassert // documented
		SSH: []cluster.SSHKey{statetest.SSHKey(int(n.UUID[7]), "made")}, Installed: m.installed,
	}
	keys.Possession, err = pki.ProvePossession(m.signing, s.Cluster.UUID, n.UUID, n.Incarnation)
	return keys, err
}

func (w *world) KeyDestroy(ctx context.Context, node cluster.NodeID) (reply rpc.KeyDestroyReply, err error) {
	err = w.call(ctx, "destroy "+w.name(node), func() error {
		if n := w.lab.S.Node(node); n != nil && n.Flags.MasterCandidate {
			w.t.Errorf("keys of %s are destroyed while the map names it", n.Name)
		}
		m := w.machines[node]
		if !m.up {
			return errors.New("no route to host")
		}
		reply.Problems = m.problems
		m.signing, m.csr, m.installed = nil, nil, cluster.Digest{}
		m.ssh.held = nil
		return nil
	})
	return reply, err
}

func (w *world) Verify(ctx context.Context, _ json.RawMessage, tell func(string)) (verify.Report, error) {
	err := w.call(ctx, "verify", func() error { return w.verdict })
	if w.untilEnd {
		<-ctx.Done()
		return verify.Report{}, context.Cause(ctx)
	}
	for _, line := range w.report {
		tell(line)
	}
	return verify.Report{Findings: w.findings}, err
}

func (w *world) Hooks(ctx context.Context, c hooks.Call) (report hooks.Report) {
	if w.scripts == nil {
		return nil
	}
	_ = w.call(ctx, "hooks "+c.Hook+"-"+c.Phase, func() error {
		report = w.scripts(c)
		return nil
	})
	return report
}

// submit queues a job and returns its number.
func (w *world) submit(ops ...string) int64 {
	w.t.Helper()
	var s state.JobSubmit
	for _, op := range ops {
		s.Ops = append(s.Ops, json.RawMessage(op))
		s.Summary = append(s.Summary, "a job")
	}
	return w.lab.Do(state.KindJobSubmit, s).JobID
}

// reign lets one master run jobs until the job has ended, or the master. It
// returns why the master stopped; nil if it was only told to.
func (w *world) reign(id int64) error {
	w.t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	w.kill = cancel
	done := make(chan error, 1)
	go func() { done <- New(w, zap.NewNop()).Run(ctx) }()
	enough := errors.New("the test has seen enough")
	for {
		changed := w.Watch()
		if w.job(id).Status.Ended() {
			cancel(enough)
		}
		select {
		case err := <-done:
			if errors.Is(err, enough) {
				return nil
			}
			return err
		case <-changed:
		case <-time.After(time.Minute):
			w.t.Fatalf("job %d is still %s", id, w.job(id).Status)
		}
	}
}

// finish lets one master finish the job and returns it.
func (w *world) finish(id int64) *state.Job {
	w.t.Helper()
	if err := w.reign(id); err != nil {
		w.t.Fatalf("the master stopped: %v", err)
	}
	return w.job(id)
}

func (w *world) job(id int64) *state.Job { return w.State().Jobs[id] }

// ensure does what the reconciler does beside the jobs.
func (w *world) ensure() {
	w.t.Helper()
	for _, n := range w.State().Candidates() {
		m := w.machines[n.UUID]
		if !m.up || n.UUID == w.State().Master {
			continue
		}
		if _, err := m.keys(w.State(), n, n.Certs.Candidate); err != nil {
			w.t.Error(err)
		}
	}
}

// settled reports what is not as the state intends.
func (w *world) settled() error {
	s := w.State()
	for _, n := range s.SortedNodes() {
		m := w.machines[n.UUID]
		switch {
		case !m.up || n.UUID == s.Master:
		case n.Flags.MasterCandidate && !slices.Contains(n.Keys.Client, m.installed):
			return fmt.Errorf("%s is a candidate and lacks the certificate of the map", n.Name)
		case !n.Flags.MasterCandidate && m.signing != nil:
			return fmt.Errorf("%s is no candidate and holds keys", n.Name)
		}
	}
	return nil
}

func modify(i int, fields string) string {
	return fmt.Sprintf(`{"OP_ID":"OP_NODE_SET_PARAMS","node_name":"%s",%s}`, statetest.Name(i), fields)
}

func remove(i int) string {
	return fmt.Sprintf(`{"OP_ID":"OP_NODE_REMOVE","node_name":"%s"}`, statetest.Name(i))
}

func add(i int) string {
	return fmt.Sprintf(`{"OP_ID":"OP_NODE_ADD","node_name":"%s"}`, statetest.Name(i))
}

func rekey(i int) string {
	return fmt.Sprintf(`{"OP_ID":"%s","node_name":"%s"}`, OpNodeRekey, statetest.Name(i))
}
