package pki

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"rolekey/cluster"
)

func TestRenewAtBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "start"), 0)
		life := time.Duration(rapid.Int64Range(1, int64(20*365*day)).Draw(t, "life"))
		seed := cluster.DigestOf([]byte(rapid.String().Draw(t, "seed")))
		got := RenewAt(start, start.Add(life), seed)
		if got != RenewAt(start, start.Add(life), seed) {
			t.Fatal("the date moves")
		}
		after := got.Sub(start)
		if latest := life / 3 * 2; after > latest || after < latest-life/20 {
			t.Fatalf("life %s: due after %s", life, after)
		}
	})
}

// Certificates that were issued together are renewed spread over the whole of
// a twentieth of their life.
func TestRenewAtSpreads(t *testing.T) {
	start := testNow
	end := start.Add(2000 * day)
	perTenth := map[int64]int{}
	for i := range 1000 {
		at := RenewAt(start, end, cluster.DigestOf([]byte{byte(i), byte(i >> 8)}))
		perTenth[int64(start.Add(2000*day/3*2).Sub(at)/(10*day))]++
	}
	for i := range int64(10) {
		if perTenth[i] < 50 {
			t.Errorf("tenth %d of the spread has %d of 1000", i, perTenth[i])
		}
	}
	if at := RenewAt(end, start, cluster.Digest{}); !at.Equal(end) {
		t.Errorf("a life that ends before it begins is due at %s", at)
	}
}

// G7: the last certificate before its renewal outlives a year with all
// machines off, and two months more.
func TestG7YearOff(t *testing.T) {
	ca := newTestCA(t)
	for _, kind := range []Kind{KindServer, KindIdentity, KindCandidate} {
		id, err := Identify(issue(t, ca, request(t, kind)))
		if err != nil {
			t.Fatal(err)
		}
		if left := id.NotAfter.Sub(id.RenewAt()); left < (366+60)*day {
			t.Errorf("%s: %s left when renewal is due", kind, left)
		}
	}
}
