package verify

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/hooks"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
	"rolekey/rpc"
)

// field is a cluster as verify meets it: node 1 is master, 2 and 3 are
// candidates, 4 is regular, 5 offline and 6 drained.
type field struct {
	t       *testing.T
	lab     *statetest.Lab
	held    *candmap.Verified
	answers map[cluster.NodeID]*rpc.NodeState
	errs    map[cluster.NodeID]error
	logins  func(from, to cluster.NodeID) string
	late    func(node cluster.NodeID, a *rpc.NodeState) // changes an answer while it is given
	scripts hooks.Report
	facts   map[cluster.NodeID]rpc.NodeFacts // nil: all is well
	voting  func(*roles.View)
	looked  func() // before state and map are looked at
	opts    string
	lines   []string
	report  Report

	strangers func(from cluster.NodeID, r *rpc.ProbeReply) error
	loginsAt  func(from cluster.NodeID, to rpc.SSHTarget) string // instead of logins
	gullible  map[cluster.NodeID]bool                            // accept all
	noProbes  map[cluster.NodeID]bool                            // make no attempts to log in
}

func newField(t *testing.T) *field {
	t.Helper()
	lab := statetest.New(t)
	for i := 2; i <= 6; i++ {
		lab.Add(i)
	}
	lab.Promote(2)
	lab.Promote(3)
	lab.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{CandidatePoolSize: new(3)}})
	lab.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(5), Flags: &state.FlagPatch{Offline: new(true)}})
	lab.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(6), Flags: &state.FlagPatch{Drained: new(true)}})
	f := &field{
		t: t, lab: lab, errs: map[cluster.NodeID]error{}, opts: `{"error_codes":true}`,
		logins: func(cluster.NodeID, cluster.NodeID) string { return "" },
	}
	ca, err := pki.NewCA(cluster.UUID{1}, "lab.test", lab.Now)
	if err != nil {
		t.Fatal(err)
	}
	lab.S.CA.Cert = ca.Cert.Raw
	f.publish()
	return f
}

// publish makes the head of the chain the map that is held, and all nodes hold
// it too.
func (f *field) publish() {
	f.t.Helper()
	f.held = f.verified()
	f.answers = map[cluster.NodeID]*rpc.NodeState{}
	for _, n := range f.lab.S.SortedNodes() {
		f.answers[n.UUID] = f.clean(n)
	}
}

func (f *field) verified() *candmap.Verified {
	f.t.Helper()
	e := f.lab.S.Head()
	v, err := candmap.Genesis(f.signed(e.Payload), e.Hash)
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

// signed is a map that all voters of today have signed.
func (f *field) signed(payload []byte) candmap.Envelope {
	f.t.Helper()
	env := candmap.Envelope{PayloadType: candmap.MapType, Payload: payload}
	for _, id := range f.lab.S.Voters() {
		sig, err := candmap.Sign(f.key(f.lab.S.Node(id)), candmap.MapType, payload)
		if err != nil {
			f.t.Fatal(err)
		}
		env = candmap.Merge(env, sig)
	}
	return env
}

// key finds the private half of a node's signing key: statetest makes it from
// a number.
func (f *field) key(n *state.Node) ed25519.PrivateKey {
	for gen := range 1000 {
		seed := cluster.DigestOf(fmt.Appendf(nil, "seed of %d", int(n.UUID[7])<<16+gen))
		k := ed25519.NewKeyFromSeed(seed[:])
		if slices.Equal([]byte(n.Keys.Signing), k.Public().(ed25519.PublicKey)) { //nolint:forcetypeassert // documented
			return k
		}
	}
	f.t.Fatalf("no key for %s", n.Name)
	return nil
}

// clean is what a node says when all is well.
func (f *field) clean(n *state.Node) *rpc.NodeState {
	year := f.lab.Now.Add(365 * 24 * time.Hour)
	a := &rpc.NodeState{
		Node: n.UUID, Name: n.Name, Time: f.lab.Now, Version: f.held.At(), Hash: f.held.Hash, Roster: f.held.Roster,
		LeaseSeconds: f.held.LeaseSeconds, Policy: f.held.Policy, Fresh: true, Server: n.Server[0], Identity: n.Identity[0],
		ServerEnds: year, IdentityEnds: year, SSHSetup: true, Authorized: f.authorized(),
	}
	if n.Keys != nil {
		a.Client, a.MasterKeys, a.PrivateKey, a.PublicKey = n.Keys.Client, true, true, &n.Keys.SSH[0]
	}
	return a
}

func (f *field) authorized() (keys []cluster.SSHKey) {
	for _, c := range f.held.Candidates {
		if f.held.SSHReach == cluster.ReachCandidates || c.UUID == f.held.Master {
			keys = append(keys, c.SSH...)
		}
	}
	return keys
}

func (f *field) at(i int) *rpc.NodeState { return f.answers[statetest.ID(i)] }

func (f *field) node(i int) *state.Node { return f.lab.S.Node(statetest.ID(i)) }

// State implements Asker.
func (f *field) State(ctx context.Context, node cluster.NodeID) (rpc.NodeState, error) {
	if err := f.errs[node]; err != nil {
		return rpc.NodeState{}, err
	}
	a := f.answers[node]
	if a == nil { // it never answers
		<-ctx.Done()
		return rpc.NodeState{}, ctx.Err()
	}
	answer := *a
	if f.late != nil {
		f.late(node, &answer)
	}
	return answer, nil
}

// Facts implements Asker.
func (f *field) Facts(_ context.Context, node cluster.NodeID, r rpc.FactsRequest) (rpc.NodeFacts, error) {
	if got, ok := f.facts[node]; ok {
		return got, nil
	}
	out := rpc.NodeFacts{Files: map[string]cluster.Digest{"ssconf_master_node": {1}}}
	for _, n := range f.lab.S.SortedNodes() {
		out.Gossip = append(out.Gossip, n.UUID)
	}
	for _, e := range f.held.Candidates {
		if len(e.SSH) > 0 && len(r.Keys) == 0 {
			return out, errors.New("no keys are asked for")
		}
	}
	return out, nil
}

// told completes what a node says of itself.
func (f *field) told(facts rpc.NodeFacts) rpc.NodeFacts {
	facts.Files = map[string]cluster.Digest{"ssconf_master_node": {1}}
	for _, n := range f.lab.S.SortedNodes() {
		facts.Gossip = append(facts.Gossip, n.UUID)
	}
	return facts
}

// Voting implements Asker.
func (f *field) Voting(context.Context) roles.View {
	v := roles.View{
		Leader: f.lab.S.Master, MapVoters: f.lab.S.Voters(), RaftVoters: f.lab.S.Voters(),
		CaughtUp: func(cluster.NodeID) bool { return true }, Reachable: func(cluster.NodeID) bool { return true },
	}
	for _, n := range f.lab.S.Candidates() {
		v.Candidates = append(v.Candidates, n.UUID)
		if !n.Voter {
			v.RaftNonvoters = append(v.RaftNonvoters, n.UUID)
		}
	}
	if f.voting != nil {
		f.voting(&v)
	}
	return v
}

// Hooks implements Asker.
func (f *field) Hooks(context.Context, func(cluster.NodeID) bool) hooks.Report { return f.scripts }

// Probe implements Asker: nodes refuse as they must.
func (f *field) Probe(_ context.Context, node cluster.NodeID, r rpc.ProbeRequest) (rpc.ProbeReply, error) {
	var reply rpc.ProbeReply
	for _, id := range r.Calls {
		reply.Calls = append(reply.Calls, rpc.ProbedCall{Node: id, Identity: cluster.CodeNotInMap, Nothing: cluster.CodeNoCertificate})
	}
	for _, id := range r.Logins {
		reply.Logins = append(reply.Logins, rpc.ProbedLogin{Node: id, Outcome: rpc.LoginRefused})
	}
	if f.strangers != nil {
		return reply, f.strangers(node, &reply)
	}
	return reply, nil
}

// PutMap implements Asker, as a node that verifies maps.
func (f *field) PutMap(_ context.Context, node cluster.NodeID, d rpc.MapDelivery) (rpc.MapAck, error) {
	if f.gullible[node] {
		return rpc.MapAck{}, nil
	}
	_, err := candmap.Follow(f.held, d.Maps[0])
	if err == nil {
		f.t.Errorf("a map that nodes accept was delivered: %s", d.Maps[0].Payload)
	}
	return rpc.MapAck{}, err
}

// OldMap implements Asker.
func (f *field) OldMap() (candmap.Envelope, bool) {
	for _, l := range f.lab.S.Chain {
		if f.held.At().Newer(l.Version) {
			return f.signed(l.Payload), true
		}
	}
	return candmap.Envelope{}, false
}

// Outsider implements Asker.
func (f *field) Outsider(*state.State) (Outsider, error) { return outsider{f}, nil }

type outsider struct{ f *field }

// Read implements Outsider.
func (o outsider) Read(_ context.Context, node cluster.NodeID) error {
	if o.f.gullible[node] {
		return nil
	}
	return cluster.Errorf(cluster.CodeNotInMap, "no")
}

// Close implements Outsider.
func (outsider) Close() error { return nil }

// SSHProbe implements Asker.
func (f *field) SSHProbe(_ context.Context, node cluster.NodeID, r rpc.SSHProbeRequest) (rpc.SSHProbeReply, error) {
	if f.logins == nil || f.noProbes[node] {
		return rpc.SSHProbeReply{}, errors.New("no answer")
	}
	var reply rpc.SSHProbeReply
	for _, target := range r.Targets {
		if f.loginsAt != nil {
			reply.Results = append(reply.Results, rpc.SSHProbeResult{Node: target.Node, Error: f.loginsAt(node, target)})
			continue
		}
		reply.Results = append(reply.Results, rpc.SSHProbeResult{Node: target.Node, Error: f.logins(node, target.Node)})
	}
	return reply, nil
}

// view implements View.
func (f *field) view() (*state.State, *candmap.Verified) {
	if f.looked != nil {
		f.looked()
	}
	return f.lab.S, f.held
}

// run verifies and returns the verdict and the lines of errors and warnings.
func (f *field) run() (bool, []string) {
	f.t.Helper()
	f.lines = nil
	var bad []string
	report, err := Run(f.t.Context(), f, f.view, json.RawMessage(f.opts),
		func() time.Time { return f.lab.Now }, func(line string) {
			f.lines = append(f.lines, line)
			if strings.HasPrefix(line, "  - ") && !strings.HasPrefix(line, "  - NOTICE") {
				bad = append(bad, line)
			}
		})
	if err != nil {
		f.t.Fatal(err)
	}
	for _, found := range report.Findings {
		if found.Remedy == "" || strings.Contains(found.Remedy, "NAME") {
			f.t.Errorf("what to do about %q: %q", found.Text, found.Remedy)
		}
	}
	f.report = report
	return report.OK(), bad
}
