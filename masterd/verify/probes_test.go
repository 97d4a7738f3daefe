package verify

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// TestG1RefusalsAreProven: a node that trusts whom it must not is found, by each
// of the attempts, and blamed by itself.
func TestG1RefusalsAreProven(t *testing.T) {
	f := newField(t)
	f.gullible = map[cluster.NodeID]bool{statetest.ID(4): true}
	ok, got := f.run()
	var want []string
	for _, what := range []string{"a certificate that the CA has just signed and the map does not list", "a forged candidate map", "an old candidate map"} {
		want = append(want, "  - ERROR:ENODEGATE:node:node4.lab.test:it accepted "+what)
	}
	if ok || !slices.Equal(got, want) {
		t.Errorf("%t, %q", ok, got)
	}
}

func TestStrangers(t *testing.T) {
	for what, c := range map[string]struct {
		do   func(r *rpc.ProbeReply) error
		want string // begins the one line
	}{
		"served": {
			func(r *rpc.ProbeReply) error { r.Calls[0].Identity = rpc.ProbeServed; return nil },
			"ERROR:ENODEGATE:node:TARGET:node 'node4.lab.test' says that it got what only a candidate may read, though it is no master candidate; the master's own attempts there were refused",
		},
		"served without a certificate": {
			func(r *rpc.ProbeReply) error { r.Calls[0].Nothing = rpc.ProbeServed; return nil },
			"ERROR:ENODEGATE:node:TARGET:node 'node4.lab.test' says that it got what only a candidate may read, without a certificate;",
		},
		"another code": {
			func(r *rpc.ProbeReply) error { r.Calls[0].Identity = cluster.CodeInternal; return nil },
			"ERROR:ENODEGATE:node:TARGET:node 'node4.lab.test' says that it was refused, though it is no master candidate, with 'internal' instead of 'not_in_map'",
		},
		"cut off": {func(r *rpc.ProbeReply) error {
			r.Calls[0].Identity, r.Calls[0].Error = cluster.CodeUnavailable, "no route\nto host"
			return nil
		}, ""},
		"no sshd": {func(r *rpc.ProbeReply) error { r.Logins[0].Outcome = rpc.LoginCutOff; return nil }, ""},
		"busy": {func(r *rpc.ProbeReply) error {
			r.Calls[0].Identity, r.Calls[0].Error = cluster.CodeBusy, "no\nroom"
			return nil
		}, "WARNING:ENODERPC:node:node4.lab.test:could not test what node 'TARGET' refuses: no room"},
		"let in": {
			func(r *rpc.ProbeReply) error { r.Logins[0].Outcome = rpc.LoginAdmitted; return nil },
			"ERROR:ENODESSH:node:TARGET:node 'node4.lab.test' says that it was let in by its sshd as root with a key that nobody authorized",
		},
		"undecided": {
			func(r *rpc.ProbeReply) error {
				r.Logins[0] = rpc.ProbedLogin{Node: r.Logins[0].Node, Error: "EOF"}
				return nil
			},
			"WARNING:ENODESSH:node:node4.lab.test:could not test what node 'TARGET' refuses: EOF",
		},
		"short answer": {
			func(r *rpc.ProbeReply) error { r.Calls = nil; return nil },
			"WARNING:ENODERPC:node:node4.lab.test:could not test what node 'TARGET' refuses: it was not tried",
		},
		"earlier release": {
			func(*rpc.ProbeReply) error { return cluster.Errorf(cluster.CodeNotFound, "no such call") },
			"WARNING:ENODEVERSION:node:node4.lab.test:its release makes no probes; upgrade it",
		},
		"broken": {
			func(*rpc.ProbeReply) error { return errors.New("disk\nfull") },
			"WARNING:ENODERPC:node:node4.lab.test:could not test what node 'TARGET' refuses: disk full",
		},
	} {
		f := newField(t)
		f.strangers = func(from cluster.NodeID, r *rpc.ProbeReply) error {
			if from != statetest.ID(4) {
				return nil
			}
			return c.do(r)
		}
		ok, got := f.run()
		most := targetsEach
		switch {
		case c.want == "":
			most = 0 // a firewall may be so
		case what == "earlier release":
			most = 1 // said once
		}
		if len(got) != most || ok != !strings.HasPrefix(c.want, "ERROR") {
			t.Errorf("%s: %t, %q", what, ok, got)
		}
		for _, line := range got {
			pattern, suffix, _ := strings.Cut(c.want, "TARGET")
			if !strings.HasPrefix(line, "  - "+pattern+"node") && suffix != "" || !strings.Contains(line, suffix) || strings.Contains(line, "TARGET") {
				t.Errorf("%s: %q, want %q", what, line, c.want)
			}
		}
	}
}

// TestAccusationsAreSomebodysWord: where the master itself is not refused either,
// the report says so; the remedy blames neither.
func TestAccusationsAreSomebodysWord(t *testing.T) {
	for _, gullible := range []bool{false, true} {
		f := newField(t)
		f.opts = `{"all_pairs":true}`
		f.gullible = map[cluster.NodeID]bool{statetest.ID(6): gullible}
		f.strangers = func(from cluster.NodeID, r *rpc.ProbeReply) error {
			if from == statetest.ID(4) && r.Calls[0].Node == statetest.ID(6) {
				r.Calls[0].Identity = rpc.ProbeServed
			}
			return nil
		}
		f.run()
		want := map[bool]string{false: "; the master's own attempts there were refused", true: "; the master, too, was not refused as it should be"}[gullible]
		if first := f.report.Findings[0]; !strings.HasPrefix(first.Text, "node 'node4.lab.test' says that it got") || !strings.HasSuffix(first.Text, want) ||
			!strings.HasPrefix(first.Remedy, "one of node6.lab.test and node4.lab.test is not what it should be") {
			t.Errorf("%s: %s", first.Text, first.Remedy)
		}
	}
}

// TestEarlierRefusalsAreTold: a refusal that an earlier run has met counts, and
// the report says that it is not of this one.
func TestEarlierRefusalsAreTold(t *testing.T) {
	f := newField(t)
	f.strangers = func(from cluster.NodeID, r *rpc.ProbeReply) error {
		if from == statetest.ID(4) {
			r.Logins[0].AgeSeconds = 3
		}
		return nil
	}
	ok, got := f.run()
	told := slices.ContainsFunc(f.lines, func(l string) bool {
		return strings.HasPrefix(l, "  - NOTICE: Of these logins 2 met their refusal in an earlier run, less than 15 s ago")
	})
	if !ok || len(got) > 0 || !told {
		t.Errorf("%t, %q", ok, f.lines)
	}
}

// TestStrangersHaveTwoTargets: each normal node tries two others, all with
// --all-pairs, and never itself, whenever it is.
func TestStrangersHaveTwoTargets(t *testing.T) {
	f := newField(t)
	for i := range 20 {
		for _, all := range []bool{false, true} {
			c := &check{ask: f, s: f.lab.S, held: f.held, now: f.lab.Now.Add(time.Duration(i) * 15 * time.Second), answers: map[cluster.NodeID]rpc.NodeState{}}
			c.opts.AllPairs = all
			for id, a := range f.answers {
				c.answers[id] = *a
			}
			seen := map[[2]cluster.NodeID]bool{}
			for _, p := range c.strangers() {
				pair := [2]cluster.NodeID{p.from.UUID, p.to.UUID}
				if p.from == p.to || seen[pair] || c.held.Candidate(p.from.UUID) != nil {
					t.Errorf("%s tries %s", p.from.Name, p.to.Name)
				}
				seen[pair] = true
			}
			if want := map[bool]int{false: 4, true: 8}[all]; len(seen) != want {
				t.Errorf("%d pairs, want %d", len(seen), want)
			}
		}
	}
}

// TestFurtherAddresses: an address that candidates cannot use is a warning, and
// one that no candidate has a family for is not tried.
func TestFurtherAddresses(t *testing.T) {
	for _, four := range []bool{true, false} {
		f := newField(t)
		second := netip.MustParseAddr("2001:db8::4")
		if four {
			second = netip.MustParseAddr("192.0.2.44")
		}
		f.change(func(s *state.State) {
			n := *f.node(4)
			n.Addresses = append(slices.Clone(n.Addresses), second)
			s.Nodes = map[cluster.NodeID]*state.Node{}
			for id, o := range f.lab.S.Nodes {
				s.Nodes[id] = o
			}
			s.Nodes[n.UUID] = &n
		})
		var asked atomic.Int32
		f.loginsAt = func(_ cluster.NodeID, to rpc.SSHTarget) string {
			if to.Address != second {
				return ""
			}
			asked.Add(1)
			return "connection refused"
		}
		ok, got := f.run()
		if want := map[bool]int{true: 3, false: 0}[four]; !ok || int(asked.Load()) != want || len(got) != want {
			t.Errorf("%s: %t, asked %d times, %q", second, ok, asked.Load(), got)
		}
		if len(got) > 0 && !strings.HasPrefix(got[0], "  - WARNING:ENODESSH:node:node1.lab.test:at its further address 192.0.2.44: ssh communication with node 'node4.lab.test'") {
			t.Errorf("%q", got[0])
		}
	}
}

// TestDeadNodeCostsOneTimeout: a machine that is dead, and one whose sshd hangs,
// cost one time-out each, however many ask.
func TestDeadNodeCostsOneTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(t)
		delete(f.answers, statetest.ID(4))
		f.late = func(id cluster.NodeID, a *rpc.NodeState) { // a change is on its way: asked again
			if id == statetest.ID(6) {
				a.Version = cluster.Version{Epoch: 1, Version: 1}
			}
		}
		began := time.Now()
		ok, got := f.run()
		if took := time.Since(began); took > askTimeout+settleTries*settlePause {
			t.Errorf("a dead node cost %s", took)
		}
		if ok || !slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, "ENODERPC:node:node4.lab.test:while contacting node") }) {
			t.Errorf("%q", got)
		}
		f = newField(t)
		f.loginsAt = func(_ cluster.NodeID, to rpc.SSHTarget) string {
			if to.Node != statetest.ID(6) {
				return ""
			}
			time.Sleep(askTimeout)
			return "i/o timeout"
		}
		f.opts = `{"error_codes":true,"all_pairs":true}`
		f.strangers = func(_ cluster.NodeID, r *rpc.ProbeReply) error { // who try it too
			if len(r.Logins) > 0 && r.Logins[0].Node == statetest.ID(6) {
				time.Sleep(askTimeout)
				r.Logins[0].Outcome = rpc.LoginUndecided
			}
			return nil
		}
		began = time.Now()
		_, got = f.run()
		if took := time.Since(began); took > askTimeout {
			t.Errorf("a sshd that hangs cost %s", took)
		}
		if len(got) != 3 { // of each candidate
			t.Errorf("%q", got)
		}
	})
}

// TestBrokenSSHDIsToldOnce: of a sshd that lets in no candidate, nobody says that
// strangers could not be tested there; of any other one that is said.
func TestBrokenSSHDIsToldOnce(t *testing.T) {
	undecided := func(_ cluster.NodeID, r *rpc.ProbeReply) error {
		r.Logins[0].Outcome, r.Logins[0].Error = rpc.LoginUndecided, "its sshd takes no public keys from root"
		return nil
	}
	f := newField(t)
	f.strangers = undecided
	if ok, got := f.run(); !ok || len(got) != 4 || !strings.Contains(got[0], "WARNING:ENODESSH:node:node4.lab.test:could not test") {
		t.Errorf("%t, %q", ok, got)
	}
	f = newField(t)
	f.strangers = undecided
	f.logins = func(cluster.NodeID, cluster.NodeID) string { return "its host key is not in the roster" }
	ok, got := f.run()
	if ok || len(got) != 12 || slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, "could not test") }) {
		t.Errorf("%t, %q", ok, got)
	}
	if f.report.Findings[0].Remedy == sshRemedy || !strings.Contains(f.report.Findings[0].Remedy, "accept-host-keys") {
		t.Errorf("what to do about another host key: %s", f.report.Findings[0].Remedy)
	}
}

// TestTimeOfTheWayIsNotSkew: what lies between question and answer is no
// divergence, however long the way was.
func TestTimeOfTheWayIsNotSkew(t *testing.T) {
	for _, c := range []struct {
		off  time.Duration // of the node's clock when it answers, half way
		want string
	}{
		{0, ""},
		{1900 * time.Millisecond, ""},
		{3900 * time.Millisecond, ""}, // 1.9 s after the answer
		{4200 * time.Millisecond, "diverges by at least 2.2s from master node"}, // certain
		{-3900 * time.Millisecond, ""},
		{-4200 * time.Millisecond, "diverges by at least 2.2s from master node"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newField(t)
			began := time.Now()
			now := func() time.Time { return f.lab.Now.Add(time.Since(began)) }
			f.late = func(id cluster.NodeID, a *rpc.NodeState) {
				a.Time = now()
				if id == statetest.ID(4) {
					time.Sleep(2 * time.Second)
					a.Time = now().Add(c.off)
					time.Sleep(2 * time.Second)
				}
			}
			var bad []string
			_, err := Run(t.Context(), f, func() (*state.State, *candmap.Verified) { return f.lab.S, f.held }, json.RawMessage(`{}`), now, func(line string) {
				if strings.HasPrefix(line, "  - ERROR") {
					bad = append(bad, line)
				}
			})
			if got := strings.Join(bad, "\n"); err != nil || (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("off by %s: %q, %v", c.off, got, err)
			}
		})
	}
}

func TestUnknownCodeIsRefused(t *testing.T) {
	f := newField(t)
	for _, code := range append(Codes(), "ENODESETUP", "EINSTANCEPOLICY") {
		if err := checkCodes([]string{code}); err != nil {
			t.Errorf("%s: %v", code, err)
		}
	}
	_, err := Run(t.Context(), f, func() (*state.State, *candmap.Verified) { return f.lab.S, f.held }, json.RawMessage(`{"ignore_errors":["ENODETIMES"]}`),
		func() time.Time { return f.lab.Now }, func(line string) { t.Errorf("told %q", line) })
	var p *roles.PrereqError
	if !errors.As(err, &p) || p.Class != roles.WrongInput || !strings.HasPrefix(p.Msg, "invalid choice: 'ENODETIMES' (choose from ECLUSTERCERT, ") {
		t.Errorf("%v", err)
	}
}

func TestVerboseNamesNodes(t *testing.T) {
	f := newField(t)
	f.opts = `{"verbose":true}`
	f.run()
	at := slices.Index(f.lines, "* Verifying node status")
	want := []string{
		"* Verifying node node1.lab.test (master)", "* Verifying node node2.lab.test (master candidate)", "* Verifying node node3.lab.test (master candidate)",
		"* Verifying node node4.lab.test (regular)", "* Skipping offline node node5.lab.test", "* Verifying node node6.lab.test (drained)",
	}
	if got := f.lines[at+1 : at+7]; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestSummaryNamesWhoIsShut: when a node's sshd is down, the lines name all others.
func TestSummaryNamesWhoIsShut(t *testing.T) {
	f := newField(t)
	f.logins = func(from, to cluster.NodeID) string {
		if to == statetest.ID(4) || to == statetest.ID(6) && from == statetest.ID(2) {
			return "connection refused"
		}
		return ""
	}
	f.run()
	if got := f.lines[len(f.lines)-1]; got != "  No candidate can log in to node4.lab.test: the fault is probably there." {
		t.Errorf("%q", got)
	}
	for _, x := range f.report.Findings {
		if want := map[bool]string{true: "on node4.lab.test: ", false: "on node6.lab.test: "}[strings.Contains(x.Text, "'node4")]; !strings.HasPrefix(x.Remedy, want) {
			t.Errorf("%s: %s", x.Text, x.Remedy)
		}
	}
}

func TestSummary(t *testing.T) {
	f := newField(t)
	f.at(4).Time, f.at(6).Time, f.at(6).PrivateKey = f.lab.Now.Add(time.Hour), f.lab.Now.Add(time.Hour), true
	f.run()
	got := f.lines[slices.Index(f.lines, "* Summary")+1:]
	if len(got) != 3 || got[0] != "  3 errors on 2 nodes: node4.lab.test, node6.lab.test." ||
		!strings.HasPrefix(got[1], "  Worst: node node6.lab.test: Node 'node6.lab.test' is not a master candidate, but root's private cluster key") ||
		!strings.HasPrefix(got[2], "  What to do: gnt-cluster verify --repair") {
		t.Errorf("%q", got)
	}
}

// TestG3ForgedMapIsWorthless: no real key signs what is forged.
func TestG3ForgedMapIsWorthless(t *testing.T) {
	f := newField(t)
	env, err := forge(f.held, f.lab.Now)
	if err != nil {
		t.Fatal(err)
	}
	var keys []candmap.SigningKey
	for _, c := range f.held.Candidates {
		keys = append(keys, c.Signing)
	}
	if n := env.Signers(keys); n != 0 {
		t.Errorf("%d real signatures", n)
	}
	if _, err := candmap.Follow(f.held, env); cluster.CodeOf(err) != cluster.CodeBadSignature {
		t.Errorf("a node says %v", err)
	}
	m, err := candmap.DecodeMap(env.Payload)
	if err != nil || !slices.EqualFunc(m.Candidates, f.held.Candidates, func(a, b candmap.Candidate) bool { return a.UUID == b.UUID && slices.Equal(a.Client, b.Client) }) {
		t.Errorf("it would grant something: %v", err)
	}
}
