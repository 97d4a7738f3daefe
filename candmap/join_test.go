package candmap_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

// links is a chain of maps from 1.1 on, each signed as it must be; voters[i]
// is the one voter of version i+1.
func links(voters ...int) (maps []*candmap.Map, envs []candmap.Envelope) {
	m := ct.Map(voters[0])
	for i, n := range voters {
		prev := n
		if i > 0 {
			m, prev = ct.Next(m), voters[i-1]
			ct.SetVoters(m, n)
		}
		maps, envs = append(maps, m), append(envs, ct.Seal(m, prev, n))
	}
	return maps, envs
}

func emptyNode(t *testing.T) *node {
	n := &node{t: t, store: &ct.Store{}, clock: ct.NewClock()}
	n.start()
	return n
}

func TestJoin(t *testing.T) {
	_, envs := links(1, 2, 3, 4)
	for name, c := range map[string]struct {
		pinned candmap.Envelope
		pin    cluster.Digest
		chain  []candmap.Envelope
		want   cluster.Code
		at     string
	}{
		"pinned only":       {envs[1], envs[1].Hash(), nil, "", "1.2"},
		"with chain":        {envs[1], envs[1].Hash(), envs[2:], "", "1.4"},
		"chain from before": {envs[1], envs[1].Hash(), envs[1:], "", "1.4"},
		"wrong pin":         {envs[1], envs[0].Hash(), nil, cluster.CodeBadSignature, ""},
		"broken chain":      {envs[0], envs[0].Hash(), envs[2:], cluster.CodeBadSignature, ""},
		"other cluster":     {otherCluster(), otherCluster().Hash(), nil, cluster.CodeBadSignature, ""},
	} {
		n := emptyNode(t)
		n.clock.Advance(10 * candmap.TrustPeriod) // the pin counts, not the age
		ack, err := n.k.Join(t.Context(), c.pinned, c.pin, c.chain, nil)
		if cluster.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if c.at == "" {
			if n.k.View().Map != nil {
				t.Errorf("%s: the node holds %s", name, n.k.View().At())
			}
			continue
		}
		if !ack.Durable || ack.Version.String() != c.at || n.take() != "revoke:0.0>"+c.at+" apply:"+c.at+" announce" {
			t.Errorf("%s: %+v", name, ack)
		}
		if _, err := n.k.Join(t.Context(), c.pinned, c.pin, c.chain, nil); cluster.CodeOf(err) != cluster.CodeConflict {
			t.Errorf("%s: joined twice: %v", name, err)
		}
	}
}

func TestG7NodeThatSlept(t *testing.T) {
	maps, envs := links(1, 1, 2, 3)
	n := emptyNode(t)
	if _, err := n.k.Create(t.Context(), envs[0], nil); err != nil {
		t.Fatal(err)
	}
	n.clock.Advance(candmap.TrustPeriod + time.Hour)
	if _, err := n.deliver(envs[2], envs[3]); cluster.CodeOf(err) != cluster.CodeTrustExpired {
		t.Errorf("a sleeper followed a change of authority: %v", err)
	}
	if n.k.View().At() != maps[0].At() {
		t.Fatalf("holds %s", n.k.View().At())
	}
	// Old news of the same authority does not help: it proves no present.
	n.mustDeliver(envs[1])
	if _, err := n.deliver(envs[2]); cluster.CodeOf(err) != cluster.CodeTrustExpired {
		t.Errorf("old news restored trust: %v", err)
	}
	t.Run("its own authority still lives", func(t *testing.T) {
		n.start()
		if _, err := n.k.DeliverBeacon(ct.Beacon(maps[1], n.clock.Now().Wall, 1)); err != nil {
			t.Fatal(err)
		}
		n.mustDeliver(envs[2])
	})
	t.Run("local root decides", func(t *testing.T) {
		n := emptyNode(t)
		if _, err := n.k.Create(t.Context(), envs[0], nil); err != nil {
			t.Fatal(err)
		}
		n.clock.Advance(candmap.TrustPeriod + time.Hour)
		if _, err := n.k.Trust(t.Context(), envs[3], envs[2].Hash(), nil); cluster.CodeOf(err) != cluster.CodeBadSignature {
			t.Errorf("another hash: %v", err)
		}
		if _, err := n.k.Trust(t.Context(), otherCluster(), otherCluster().Hash(), nil); err == nil {
			t.Error("a map of another cluster was trusted")
		}
		if ack, err := n.k.Trust(t.Context(), envs[3], envs[3].Hash(), nil); err != nil || ack.Version != maps[3].At() {
			t.Errorf("Trust = %+v, %v", ack, err)
		}
		if _, err := n.k.Trust(t.Context(), envs[3], envs[3].Hash(), nil); err != nil {
			t.Errorf("trusting it again: %v", err)
		}
		if _, err := n.k.Trust(t.Context(), envs[2], envs[2].Hash(), nil); cluster.CodeOf(err) != cluster.CodeMapOlder {
			t.Errorf("trusting an older one: %v", err)
		}
	})
}

func TestG7ClusterThatWasOffForAYear(t *testing.T) {
	n := newNode(t, 1, 2, 3)
	n.clock.Advance(365 * 24 * time.Hour)
	n.clock.Reboot()
	n.start()
	m := ct.Next(n.k.View().Map.Map)
	m.Master, m.Issued = ct.NodeID(2), candmap.Stamp(n.clock.Now().Wall)
	n.mustDeliver(ct.Seal(m, 2, 3)) // the same voters name a new master
	if !n.k.Fresh() || n.k.Lease().TrustExpired(n.clock.Now()) {
		t.Fatal("the cluster did not come back")
	}
	next := ct.Next(m)
	ct.SetVoters(next, 2, 3, 4)
	n.mustDeliver(ct.Seal(next, 2, 3, 4))
}

// Recent word of the authority held and the change after it may come together.
func TestSleeperIsWokenInOneDelivery(t *testing.T) {
	n := newNode(t, 1)
	n.clock.Advance(candmap.TrustPeriod + time.Hour)
	a := ct.Next(n.k.View().Map.Map)
	a.Issued = candmap.Stamp(n.clock.Now().Wall)
	b := ct.Next(a)
	ct.SetVoters(b, 2)
	if ack := n.mustDeliver(ct.Seal(a, 1), ct.Seal(b, 1, 2)); ack.Version != b.At() {
		t.Errorf("holds %s", ack.Version)
	}
}

func TestSinceServesWhatCrossesAuthorities(t *testing.T) {
	maps, envs := links(1, 1, 2, 2, 2, 3, 3)
	n := emptyNode(t)
	if _, err := n.k.Join(t.Context(), envs[0], envs[0].Hash(), envs[1:], nil); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[uint64][]string{
		0: {"1.1", "1.3", "1.6", "1.7"}, 1: {"1.3", "1.6", "1.7"}, 4: {"1.6", "1.7"}, 6: {"1.7"}, 7: nil, 8: nil,
	} {
		if got := ats(n.k.Since(cluster.Version{Epoch: 1, Version: from})); !slices.Equal(got, want) {
			t.Errorf("Since(1.%d) = %v, want %v", from, got, want)
		}
	}
	if got := n.k.Since(maps[5].At()); got[0].Hash() != envs[6].Hash() {
		t.Error("the last one is not the current map")
	}
}

// A link that a disk lost leaves a gap, and does not cut off the present.
func TestSinceWithALostLink(t *testing.T) {
	_, envs := links(1, 2, 3)
	n := emptyNode(t)
	if _, err := n.k.Join(t.Context(), envs[0], envs[0].Hash(), envs[1:], nil); err != nil {
		t.Fatal(err)
	}
	reads := 0
	n.store.Fail = func(op string) error {
		if op == "Link" {
			if reads++; reads == 2 {
				return errors.New("input/output error")
			}
		}
		return nil
	}
	if got := ats(n.k.Since(cluster.Version{})); !slices.Equal(got, []string{"1.1", "1.3"}) {
		t.Errorf("Since = %v", got)
	}
}

// A sender may push its whole chain every time: what was held is passed over.
func TestWholeChainMayBePushed(t *testing.T) {
	_, envs := links(1, 2, 3, 4)
	n := emptyNode(t)
	if _, err := n.k.Join(t.Context(), envs[0], envs[0].Hash(), envs[1:3], nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if ack := n.mustDeliver(envs...); ack.Version.Version != 4 {
			t.Errorf("holds %s", ack.Version)
		}
	}
	if _, err := n.deliver(envs[:3]...); cluster.CodeOf(err) != cluster.CodeMapOlder {
		t.Errorf("a chain that ends in the past: %v", err)
	}
}

func TestChainIsPruned(t *testing.T) {
	n := newNode(t, 1)
	for range candmap.MaxRecent + 10 {
		n.mustDeliver(n.next(1))
	}
	saved, err := n.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(saved.Links) != candmap.MaxRecent+1 {
		t.Errorf("%d links are kept, want %d and the first", len(saved.Links), candmap.MaxRecent)
	}
	if !slices.ContainsFunc(saved.Links, func(l candmap.Link) bool { return l.Authority && l.At.Version == 1 }) {
		t.Error("the first map was dropped")
	}
}

func TestSinceIsBounded(t *testing.T) {
	var voters []int
	for i := range candmap.MaxChain + 20 {
		voters = append(voters, 1+i%2)
	}
	maps, envs := links(voters...)
	n := emptyNode(t)
	if _, err := n.k.Join(t.Context(), envs[0], envs[0].Hash(), envs[1:candmap.MaxChain], nil); err != nil {
		t.Fatal(err)
	}
	n.mustDeliver(envs[candmap.MaxChain:]...)
	if got := n.k.Chain(); len(got) != candmap.MaxChain-1 || got[len(got)-1].Hash() != envs[len(envs)-2].Hash() {
		t.Errorf("Chain has %d maps, or does not end before the current one", len(got))
	}
	q := emptyNode(t)
	last := envs[len(envs)-1]
	if _, err := q.k.Join(t.Context(), last, last.Hash(), nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := q.k.Fill(t.Context(), n.k.Chain()); err != nil {
		t.Errorf("Fill with what Chain gave: %v", err)
	}
	// A node that pulls again and again arrives all the same.
	p := emptyNode(t)
	if _, err := p.k.Join(t.Context(), envs[0], envs[0].Hash(), nil, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		answer := n.k.Since(p.k.View().At())
		if len(answer) > candmap.MaxChain {
			t.Fatalf("an answer of %d maps", len(answer))
		}
		p.mustDeliver(answer...)
	}
	if p.k.View().At() != maps[len(maps)-1].At() {
		t.Errorf("arrived at %s", p.k.View().At())
	}
}

func TestFill(t *testing.T) {
	_, envs := links(1, 2, 3, 4, 4)
	served := envs[:4]
	junk, _ := links(6, 7)
	forged := ct.Seal(junk[0], 6)
	for name, c := range map[string]struct {
		envs []candmap.Envelope
		want cluster.Code
	}{
		"whole, as served":  {envs, ""},
		"up to one held":    {served, ""},
		"nothing":           {nil, ""},
		"a gap":             {[]candmap.Envelope{envs[0], envs[2]}, cluster.CodeBadSignature},
		"leads nowhere":     {[]candmap.Envelope{forged}, cluster.CodeBadSignature},
		"ends in a forgery": {[]candmap.Envelope{envs[0], forged}, cluster.CodeBadSignature},
		"other cluster":     {[]candmap.Envelope{otherCluster()}, cluster.CodeBadSignature},
		"too many":          {slices.Repeat(envs[:1], candmap.MaxChain+1), cluster.CodeTooLarge},
	} {
		n := emptyNode(t)
		if _, err := n.k.Join(t.Context(), envs[3], envs[3].Hash(), nil, nil); err != nil {
			t.Fatal(err)
		}
		err := n.k.Fill(t.Context(), c.envs)
		if cluster.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		want := []string{"1.4"}
		if err == nil && c.envs != nil {
			want = []string{"1.1", "1.2", "1.3", "1.4"}
		}
		if got := ats(n.k.Since(cluster.Version{})); !slices.Equal(got, want) {
			t.Errorf("%s: the chain is %v, want %v", name, got, want)
		}
	}
	if err := emptyNode(t).k.Fill(t.Context(), envs); cluster.CodeOf(err) != cluster.CodeNoMap {
		t.Errorf("without a map: %v", err)
	}
}

func TestRosterMayComeLater(t *testing.T) {
	n := newNode(t, 1)
	old := n.k.View().Roster
	r := ct.Roster(ints(40)...)
	m := ct.Next(n.k.View().Map.Map)
	m.Roster = r.Hash()
	ack := n.mustDeliver(ct.Seal(m, 1))
	if !slices.Equal(ack.Missing, []cluster.Digest{r.Hash()}) || n.k.View().Roster != old {
		t.Fatalf("missing %v", ack.Missing)
	}
	n.take()
	var got int
	for len(ack.Missing) > 0 {
		if got++; got > 5 {
			t.Fatal("the roster never completes")
		}
		docs := [][]byte{[]byte("unasked for")}
		for _, d := range ack.Missing[:(len(ack.Missing)+1)/2] {
			docs = append(docs, r.Docs()[d])
		}
		missing, err := n.k.DeliverDocs(t.Context(), docs)
		if err != nil {
			t.Fatal(err)
		}
		if got == 1 {
			// What was served stays, what is in the old roster is not asked for.
			for _, d := range missing {
				if old.Docs()[d] != nil {
					t.Error("a bucket that is here already is missing")
				}
			}
		}
		ack.Missing = missing
		if len(missing) > 0 && n.take() != "" {
			t.Error("an incomplete roster had effects")
		}
		if got == 5 && len(missing) > 0 {
			docs = nil
			for _, d := range missing {
				docs = append(docs, r.Docs()[d])
			}
			if ack.Missing, err = n.k.DeliverDocs(t.Context(), docs); err != nil {
				t.Fatal(err)
			}
		}
	}
	if v := n.k.View(); !v.Complete() || v.Roster.Hash() != r.Hash() {
		t.Error("the roster is not complete")
	}
	if got := n.take(); got != "revoke:1.2>1.2 apply:1.2 announce" {
		t.Errorf("events: %s", got)
	}
	n.start()
	if !n.k.View().Complete() {
		t.Error("the roster did not survive a restart")
	}
}

func TestOlderRosterSurvivesARestart(t *testing.T) {
	n := newNode(t, 1)
	old := n.k.View().Roster.Hash()
	m := ct.Next(n.k.View().Map.Map)
	m.Roster = ct.Pin("roster", 9)
	n.mustDeliver(ct.Seal(m, 1))
	n.start()
	if v := n.k.View(); v.Roster == nil || v.Roster.Hash() != old || v.Complete() {
		t.Error("the older roster was lost")
	}
	if ack := n.mustDeliver(n.k.View().Map.Envelope); !slices.Equal(ack.Missing, []cluster.Digest{m.Roster}) {
		t.Errorf("missing %v", ack.Missing)
	}
}
