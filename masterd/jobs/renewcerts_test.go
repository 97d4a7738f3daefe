package jobs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

const (
	renewCerts = `{"OP_ID":"OP_CLUSTER_RENEW_CRYPTO","new_node_certificates":true}`
	renewCA    = `{"OP_ID":"OP_CLUSTER_RENEW_CRYPTO","new_cluster_certificate":true}`
	renewDue   = `{"OP_ID":"OP_CLUSTER_RENEW_DUE"}`
)

func TestCertificatesOfAllNodes(t *testing.T) {
	w := newWorld(t, 5, 3)
	before := w.State().Head().Version.Version
	wantSuccess(t, w.finish(w.submit(renewCerts)), `[]`)
	if err := w.renewed(); err != nil {
		t.Error(err)
	}
	if maps := w.State().Head().Version.Version - before; maps != 2 {
		t.Errorf("it took %d maps, want one that lists both and one that retires", maps)
	}
	first := w.node(2).Server[0]
	wantSuccess(t, w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_RENEW_CRYPTO","new_node_certificates":true,"node_name":"`+string(w.node(4).Name)+`"}`)), `[]`)
	if err := w.renewed(); err != nil || w.node(2).Server[0] != first {
		t.Errorf("one node alone: %v", err)
	}
}

// TestG7OldKeyGoesAllTheSame: a node that gets another certificate for its new
// key, by its own renewal, before the old key is retired keeps that one no longer.
func TestG7OldKeyGoesAllTheSame(t *testing.T) {
	w := newWorld(t, 3, 2)
	n := w.node(2)
	old := n.Identity
	w.machines[n.UUID].certsInUse = func(r rpc.CertInstallRequest) {
		s := w.lab.S
		ca, err := pki.ParseCA(s.CA.Cert, s.CA.Key)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.Certificates {
			cert, err := pki.ParseCertDER(c.Certificate)
			if err != nil || c.Kind != state.CertIdentity {
				continue
			}
			der, err := ca.Issue(pki.Request{Kind: pki.KindIdentity, Node: n.UUID, Name: n.Name, Addresses: n.Addresses, PublicKey: cert.PublicKey}, w.lab.Now.Add(2*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			w.lab.Do(state.KindNodeCerts, state.NodeCerts{Node: n.UUID, Kind: c.Kind, Cert: der, Pins: s.Node(n.UUID).Identity})
		}
	}
	wantSuccess(t, w.finish(w.submit(renewCerts)), `[]`)
	if now := w.node(2).Identity; len(now) != 1 || now[0] == old[0] {
		t.Errorf("%d keys are listed, the old one among them: %v", len(now), slices.Contains(now, old[0]))
	}
}

func TestAuthorityChanged(t *testing.T) {
	w := newWorld(t, 5, 3)
	old := string(w.State().CA.Cert)
	wantSuccess(t, w.finish(w.submit(renewCA)), `[]`)
	if s := w.State(); string(s.CA.Cert) == old || len(s.CA.Old) > 0 || s.CA.Next != nil || len(s.CA.Roots()) != 1 {
		t.Errorf("authorities: %d are trusted", len(s.CA.Roots()))
	}
	if err := w.renewed(); err != nil {
		t.Error(err)
	}
}

// TestRenewedTwice: a renewal in the second of an earlier one replaces all again.
func TestRenewedTwice(t *testing.T) {
	w := newWorld(t, 4, 3)
	pins := func() (all []cluster.Digest) {
		for _, n := range w.State().SortedNodes() {
			all = append(all, slices.Concat(n.Server, n.Identity)...)
		}
		return append(all, cluster.DigestOf(w.State().CA.Cert))
	}
	at := w.lab.Now
	for i, op := range []string{renewCA, renewCA, renewCA, renewCerts, renewCA} {
		w.lab.Now = at // each change takes a second there
		old := pins()
		wantSuccess(t, w.finish(w.submit(op)), `[]`)
		if err := w.renewed(); err != nil {
			t.Error(err)
		}
		kept := slices.DeleteFunc(pins(), func(d cluster.Digest) bool { return !slices.Contains(old, d) })
		if op == renewCA && len(kept) > 0 || len(kept) > 1 {
			t.Errorf("renewal %d keeps %d of %d", i, len(kept), len(old))
		}
	}
}

// TestReplaced: what was issued by a clock that was far ahead is replaced as well.
func TestReplaced(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 500e6, time.UTC)
	for issued, want := range map[time.Duration]bool{
		-time.Second: true, 0: true, time.Second: false, 3 * time.Second: false, time.Minute: true, 9000 * time.Hour: true,
	} {
		if got := replaced(now.Truncate(time.Second).Add(issued), now, now); got != want {
			t.Errorf("issued %s from now: %v", issued, got)
		}
	}
}

// TestNodeAwayDuringRenewal: whoever does not answer in any phase is marked, its
// pins stay, and it is finished when it is back; the former authority is trusted
// until then, or until the limit has passed.
func TestNodeAwayDuringRenewal(t *testing.T) {
	for _, op := range []string{renewCerts, renewCA} {
		for phase := range 4 {
			w := newWorld(t, 5, 3)
			gone := w.at(3)
			calls := []string{"", "prepare", "look", "install"}[phase]
			gone.up = phase > 0
			w.onCall = func(what string) {
				if phase > 0 && strings.HasPrefix(what, calls) {
					w.mu.Lock()
					gone.up = false
					w.mu.Unlock()
				}
			}
			wantSuccess(t, w.finish(w.submit(op)), `[]`)
			if err := w.renewed(); err != nil {
				t.Errorf("phase %d: %v", phase, err)
			}
			n := w.node(3)
			if n.RenewBefore.IsZero() || !slices.Contains(n.Server, gone.certs(n).used[state.CertServer]) {
				t.Errorf("phase %d: not marked, or its key is not listed any more", phase)
			}
			if want := op == renewCA; (len(w.State().CA.Old) > 0) != want {
				t.Errorf("phase %d: the former authority is trusted: %v", phase, !want)
			}
			w.onCall = nil
			wantSuccess(t, w.finish(w.submit(renewDue)), `[]`)
			if w.node(3).RenewBefore.IsZero() {
				t.Errorf("phase %d: the mark is gone and the node is not back", phase)
			}
			gone.up = true
			wantSuccess(t, w.finish(w.submit(renewDue)), `[]`)
			if err := w.renewed(); err != nil || len(w.State().CA.Old) > 0 {
				t.Errorf("phase %d, back: %v, %d former authorities", phase, err, len(w.State().CA.Old))
			}
		}
	}
}

func TestRenewLimit(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.at(4).up = false
	wantSuccess(t, w.finish(w.submit(renewCA)), `[]`)
	w.lab.Now = w.lab.Now.Add(RenewLimit - time.Hour)
	wantSuccess(t, w.finish(w.submit(renewDue)), `[]`)
	if len(w.State().CA.Old) != 1 {
		t.Error("the former authority is not trusted any more within the limit")
	}
	w.lab.Now = w.lab.Now.Add(2 * time.Hour)
	wantSuccess(t, w.finish(w.submit(renewDue)), `[]`)
	if len(w.State().CA.Old) != 0 {
		t.Error("the former authority is trusted after the limit")
	}
}

// TestG7RenewalMasterDies kills the master before and after each of its calls.
func TestG7RenewalMasterDies(t *testing.T) {
	for _, op := range []string{renewCerts, renewCA} {
		for _, after := range []bool{false, true} {
			for at := 0; ; at++ {
				w := newWorld(t, 4, 3)
				old := string(w.State().CA.Cert)
				id := w.submit(op)
				w.dieAt, w.after = len(w.calls)+at, after
				err := w.reign(id)
				w.dieAt = -1
				if err == nil {
					break
				}
				wantSuccess(t, w.finish(id), `[]`)
				if err := w.renewed(); err != nil {
					t.Errorf("killed at call %d (%v): %v", at, after, err)
				}
				if s := w.State(); (string(s.CA.Cert) != old) != (op == renewCA) || len(s.CA.Roots()) != 1 {
					t.Errorf("killed at call %d (%v): %d authorities", at, after, len(s.CA.Roots()))
				}
			}
		}
	}
}

// TestRenewalCanceled: before anything new is listed all stays as it was, and
// afterwards the renewal goes on to its end.
func TestRenewalCanceled(t *testing.T) {
	for _, op := range []string{renewCerts, renewCA} {
		undone, done := 0, 0
		for at := 0; ; at++ {
			w := newWorld(t, 4, 3)
			old, pins := string(w.State().CA.Cert), w.node(2).Server[0]
			id := w.submit(op)
			calls, asked := 0, false
			w.onCall = func(string) {
				if j := w.job(id); calls == at && j.Step != "" && !j.Status.Ended() {
					asked = true
					w.do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: state.JobCanceling})
				} else if calls == at {
					at++
				}
				calls++
			}
			w.finish(id)
			if !asked {
				break
			}
			s := w.State()
			if s.CA.Next != nil || len(s.CA.Old) > 0 || !s.Node(w.node(2).UUID).RenewBefore.IsZero() {
				t.Errorf("canceled at call %d: something is left", at)
			}
			if w.node(2).Server[0] == pins {
				undone++
				if string(s.CA.Cert) != old || len(w.node(2).Server) != 1 {
					t.Errorf("canceled at call %d: half done", at)
				}
				continue
			}
			done++
			if err := w.renewed(); err != nil {
				t.Errorf("canceled at call %d: %v", at, err)
			}
		}
		if undone == 0 || done == 0 {
			t.Errorf("%s: %d times undone, %d times done", op, undone, done)
		}
	}
}

// TestRenewalWithLiars: what a node answers wrongly hurts itself alone.
func TestRenewalWithLiars(t *testing.T) {
	for what, spoil := range map[string]func(w *world, r *rpc.CertPrepareReply){
		"no request":       func(_ *world, r *rpc.CertPrepareReply) { r.Requests = nil },
		"another kind":     func(_ *world, r *rpc.CertPrepareReply) { r.Requests[0].Kind = "candidate" },
		"not a request":    func(_ *world, r *rpc.CertPrepareReply) { r.Requests[0].CSR = []byte("x") },
		"one key for both": func(_ *world, r *rpc.CertPrepareReply) { r.Requests[1].CSR = r.Requests[0].CSR },
		"unknown in use":   nil,
	} {
		w := newWorld(t, 4, 3)
		w.at(4).spoilCerts = func(r *rpc.CertPrepareReply) {
			switch {
			case len(r.Requests) == 0:
			case spoil != nil:
				spoil(w, r)
			default:
				r.Requests[0].Used[0] ^= 1
			}
		}
		wantSuccess(t, w.finish(w.submit(renewCerts)), `[]`)
		if marked := !w.node(4).RenewBefore.IsZero(); marked != (spoil != nil) {
			t.Errorf("%s: marked: %v", what, marked)
		}
		w.at(4).up = false
		if err := w.renewed(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestNodeJoinsDuringRenewal gets new certificates as well, whenever it comes.
func TestNodeJoinsDuringRenewal(t *testing.T) {
	for at := range 12 {
		w := newWorld(t, 3, 3)
		calls := 0
		w.onCall = func(string) {
			if calls++; calls == at+1 {
				w.mu.Lock()
				w.lab.Add(9)
				w.machines[w.lab.S.SortedNodes()[3].UUID] = &machine{up: true}
				w.mu.Unlock()
			}
		}
		wantSuccess(t, w.finish(w.submit(renewCA)), `[]`)
		w.onCall = nil
		wantSuccess(t, w.finish(w.submit(renewDue)), `[]`)
		if err := w.renewed(); err != nil || len(w.State().CA.Old) > 0 {
			t.Errorf("joined at call %d: %v", at, err)
		}
	}
}

// TestCandidateCertificateDue: nobody else renews it by itself.
func TestCandidateCertificateDue(t *testing.T) {
	w := newWorld(t, 3, 3)
	wantSuccess(t, w.finish(w.submit(renewCerts)), `[]`)
	was := w.node(2).Keys.Client[0]
	authorities := 0
	for range 40 { // years
		w.lab.Now = w.lab.Now.Add(pki.LifetimeNode / 4)
		if CADue(w.State(), w.lab.Now) {
			authorities++
			wantSuccess(t, w.finish(w.submit(renewCA)), `[]`)
		}
		if !CertsDue(w.State(), w.lab.Now, anyNode, true) {
			continue
		}
		wantSuccess(t, w.finish(w.submit(renewDue)), `[]`)
		if err := w.renewed(); err != nil {
			t.Fatal(err)
		}
	}
	if w.node(2).Keys.Client[0] == was {
		t.Error("it was never renewed")
	}
	for _, n := range w.State().Candidates() {
		cert, err := pki.ParseCertDER(n.Certs.Candidate)
		if err != nil || w.lab.Now.After(cert.NotAfter) {
			t.Errorf("%s: expired, %v", n.Name, err)
		}
	}
	if authorities < 2 || authorities > 3 { // two thirds of twenty years, and some jitter
		t.Errorf("the authority was changed %d times in 40 years", authorities)
	}
}

func anyNode(cluster.NodeID) bool { return true }
