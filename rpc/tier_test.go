package rpc

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/pki"
)

func TestClassify(t *testing.T) {
	w := newWorld(t)
	view := w.view.Load()
	foreign := *w.peer(pki.KindCandidate, 2) // the digest of node 2's certificate, the UUID of node 5
	foreign.Identity.Node = ct.NodeID(5)
	wrongKind := *w.peer(pki.KindCandidate, 1)
	wrongKind.Identity.Kind = pki.KindServer
	inMapAsIdentity := *w.peer(pki.KindCandidate, 1)
	inMapAsIdentity.Identity.Kind = pki.KindIdentity
	foreignPin := *w.peer(pki.KindIdentity, 2)
	foreignPin.Identity.Node = ct.NodeID(5)
	serverPin := *w.peer(pki.KindServer, 2)
	for name, tc := range map[string]struct {
		view *candmap.View
		peer *Peer
		tier Tier
		lack cluster.Code
	}{
		"nobody":                      {view, &Peer{}, TierOpen, cluster.CodeNoCertificate},
		"nobody, digest all the same": {view, &Peer{Digest: w.peer(pki.KindCandidate, 1).Digest, Identity: w.peer(pki.KindCandidate, 1).Identity}, TierOpen, cluster.CodeNoCertificate},
		"master":                      {view, w.peer(pki.KindCandidate, 1), TierMaster, ""},
		"candidate":                   {view, w.peer(pki.KindCandidate, 2), TierCandidate, cluster.CodeNotMaster},
		"normal node":                 {view, w.peer(pki.KindIdentity, 4), TierMember, cluster.CodeNotInMap},
		"master's identity":           {view, w.peer(pki.KindIdentity, 1), TierMember, cluster.CodeNotInMap},
		"normal as candidate":         {view, w.peer(pki.KindCandidate, 4), TierOpen, cluster.CodeNotInMap},
		"former member":               {view, w.peer(pki.KindIdentity, former), TierOpen, cluster.CodeNotInRoster},
		"other's digest":              {view, &foreign, TierOpen, cluster.CodeIdentityMismatch},
		"other's pin":                 {view, &foreignPin, TierOpen, cluster.CodeIdentityMismatch},
		"digest, other kind":          {view, &wrongKind, TierOpen, cluster.CodeIdentityMismatch},
		"digest, kind identity":       {view, &inMapAsIdentity, TierOpen, cluster.CodeNotInRoster},
		"server certificate":          {view, &serverPin, TierOpen, cluster.CodeNotInMap},
		"no view":                     {nil, w.peer(pki.KindCandidate, 1), TierOpen, cluster.CodeNoMap},
		"no map":                      {&candmap.View{Roster: view.Roster}, w.peer(pki.KindIdentity, 4), TierOpen, cluster.CodeNoMap},
		"no roster, candidate":        {&candmap.View{Map: view.Map}, w.peer(pki.KindCandidate, 1), TierMaster, ""},
		"no roster, member":           {&candmap.View{Map: view.Map}, w.peer(pki.KindIdentity, 4), TierOpen, cluster.CodeNotInRoster},
	} {
		g := Classify(tc.view, tc.peer)
		if g.Tier != tc.tier || g.Lack != tc.lack {
			t.Errorf("%s: %s, lacks %q; want %s, %q", name, g.Tier, g.Lack, tc.tier, tc.lack)
		}
	}
}

// A map that names no master has none, whatever the peer's UUID.
func TestClassifyWithoutMaster(t *testing.T) {
	w := newWorld(t)
	m := ct.Next(w.m)
	m.Master = cluster.NodeID{}
	_, view := w.set(m, w.view.Load().Roster)
	nobody := *w.peer(pki.KindCandidate, 1)
	nobody.Identity.Node = cluster.NodeID{}
	for _, p := range []*Peer{w.peer(pki.KindCandidate, 1), &nobody} {
		if g := Classify(view, p); g.Tier == TierMaster {
			t.Errorf("node %s is master of a map without one", p.Identity.Node)
		}
	}
}

func TestAllow(t *testing.T) {
	w := newWorld(t)
	view := w.view.Load()
	lax := ct.Next(w.m)
	lax.Policy = cluster.PolicyBestEffort
	loose := w.viewOf(lax, view.Roster)
	method := func(tier Tier, stale bool) *Method { return &Method{Tier: tier, Stale: stale} }
	// For each caller: the code when calling open, member, candidate, master.
	callers := []struct {
		name string
		peer *Peer
		want [4]cluster.Code
	}{
		{"nobody", &Peer{}, [4]cluster.Code{"", "no_certificate", "no_certificate", "no_certificate"}},
		{"former", w.peer(pki.KindIdentity, former), [4]cluster.Code{"", "not_in_roster", "not_in_map", "not_in_map"}},
		{"former candidate", w.peer(pki.KindCandidate, former), [4]cluster.Code{"", "not_in_roster", "not_in_map", "not_in_map"}},
		{"normal", w.peer(pki.KindIdentity, 4), [4]cluster.Code{"", "", "not_in_map", "not_in_map"}},
		{"candidate", w.peer(pki.KindCandidate, 2), [4]cluster.Code{"", "", "", "not_master"}},
		{"master", w.peer(pki.KindCandidate, 1), [4]cluster.Code{"", "", "", ""}},
	}
	for _, c := range callers {
		for tier := TierOpen; tier <= TierMaster; tier++ {
			for _, fresh := range []bool{true, false} {
				for _, stale := range []bool{true, false} {
					for _, v := range []*candmap.View{view, loose} {
						want := c.want[tier]
						if want == "" && !fresh && !stale && tier >= TierCandidate && v == view {
							want = cluster.CodeMapStale
						}
						g := Classify(v, c.peer)
						var got cluster.Code
						if e := g.Allow(method(tier, stale), v, fresh); e != nil {
							got = e.Code
						}
						if got != want {
							t.Errorf("%s calls %s, fresh %v, stale method %v, policy %s: %q, want %q", c.name, tier, fresh, stale, v.Map.Policy, got, want)
						}
					}
				}
			}
		}
	}
}

// W4: Ganeti's noded let everybody in when its list of candidates was missing
// or empty.
func TestW4NoMapOpensNothing(t *testing.T) {
	w := newWorld(t)
	for _, view := range []*candmap.View{nil, {}, {Roster: w.view.Load().Roster}} {
		for _, p := range []*Peer{{}, w.peer(pki.KindCandidate, 1), w.peer(pki.KindIdentity, 4)} {
			g := Classify(view, p)
			for _, m := range append(NodedMethods(), MasterdMethods()...) {
				for _, fresh := range []bool{true, false} {
					if e := g.Allow(&m, view, fresh); (e == nil) != (m.Tier == TierOpen) {
						t.Errorf("%s without a map: %v", m.Name, e)
					}
				}
			}
		}
	}
}

func TestAcceptingDoesNotAllocate(t *testing.T) {
	w := newWorld(t)
	view := w.view.Load()
	for name, p := range map[string]*Peer{"master": w.peer(pki.KindCandidate, 1), "member": w.peer(pki.KindIdentity, 4)} {
		m := &Method{Tier: TierMember}
		if n := testing.AllocsPerRun(100, func() {
			g := Classify(view, p)
			g.until(&p.Identity, p.Identity.NotBefore)
			if e := g.Allow(m, view, true); e != nil {
				t.Fatal(e)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// A connection outlives the certificate that opened it; what the certificate
// was good for ends all the same.
func TestExpiryIsJudgedPerCall(t *testing.T) {
	for kind, m := range map[pki.Kind]Method{pki.KindIdentity: MethodMapGet, pki.KindCandidate: MethodKeyCreate} {
		w := newWorld(t)
		end := w.peer(kind, 1).Identity.NotAfter
		if kind == pki.KindIdentity {
			end = end.Add(pki.Grace)
		}
		srv := w.serve(4, nil)
		var dials atomic.Int64
		c := w.client(kind, 1, srv, counted(&dials))
		at := func(now time.Time) error {
			w.now.Store(&now)
			return call(t, c, m)
		}
		wantCode(t, "new", call(t, c, m), "")
		wantCode(t, "at its end", at(end), "")
		err := at(end.Add(time.Second))
		wantCode(t, "expired", err, cluster.CodeNoCertificate)
		if err == nil || !strings.Contains(err.Error(), "expired") || cluster.HintOf(err) == "" {
			t.Errorf("%s: the refusal does not tell why: %v", kind, err)
		}
		wantCode(t, "open to anybody", call(t, c, MethodVersion), "")
		if n := dials.Load(); n != 1 {
			t.Errorf("%s: %d connections", kind, n)
		}
	}
}

func TestMethodTable(t *testing.T) {
	names, places := map[string]bool{}, map[string]bool{}
	masterds := slices.DeleteFunc(MasterdMethods(), func(m Method) bool { return m.Name == MethodVersion.Name }) // both answer it
	for _, m := range append(NodedMethods(), masterds...) {
		if names[m.Name] || places[m.Verb+m.Path] {
			t.Errorf("%s: name or place twice", m.Name)
		}
		names[m.Name], places[m.Verb+m.Path] = true, true
		looks := m.Name == "ssh-probe" || m.Name == "ssh-settle" || m.Name == "probe" || m.Name == "facts" // the master's own, and changes nothing
		if m.Mutating != (m.Tier == TierMaster && !looks) || m.Mutating && m.Stale {
			t.Errorf("%s: mutating %v, stale %v in tier %s", m.Name, m.Mutating, m.Stale, m.Tier)
		}
		if m.Timeout <= 0 || (m.Verb == "GET") != (m.MaxBody == 0) {
			t.Errorf("%s: no time, or a body limit that does not fit the verb", m.Name)
		}
	}
}

func TestParseStamp(t *testing.T) {
	for _, s := range []string{"1.1 0", "1.42 7", "3.9 18446744073709551615"} {
		if got, err := ParseStamp(s); err != nil || got.String() != s {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "1.1", "1.1 ", "1.1 01", "1.1 -1", "1.1  1", "1.01 1", "1.1 1 1", "1.1 18446744073709551616", "1.1 1" + string(make([]byte, 100))} {
		if got, err := ParseStamp(s); err == nil {
			t.Errorf("%q: accepted as %v", s, got)
		} else {
			wantCode(t, s, err, cluster.CodeBadFormat)
		}
	}
}
