package masterd

import (
	"testing"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/pki"
)

// TestG1ExpiredCandidateDoesNotServe: neither voting nor signing begins with a
// certificate that has ended, unless there is nobody else to renew it.
func TestG1ExpiredCandidateDoesNotServe(t *testing.T) {
	now := time.Now()
	ca, err := pki.NewCA(ct.Cluster, "cluster.example", now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Issue(pki.Request{Kind: pki.KindCandidate, Node: ct.NodeID(1), Name: ct.Name(1), PublicKey: key.Public()}, now)
	if err != nil {
		t.Fatal(err)
	}
	after := now.Add(pki.LifetimeNode + time.Second)
	mapOf := func(voters int, standby ...int) *candmap.Verified {
		all := []int{1, 2, 3}[:voters]
		m := ct.Map(append(all, standby...)...)
		for i := range m.Candidates {
			for _, n := range standby {
				m.Candidates[i].Voter = m.Candidates[i].Voter && m.Candidates[i].UUID != ct.NodeID(n)
			}
		}
		env := ct.Seal(m, all...)
		v, err := candmap.Genesis(env, env.Hash())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for name, c := range map[string]struct {
		m    *candmap.Verified
		self cluster.NodeID
		at   time.Time
		want bool
	}{
		"valid, of three":            {mapOf(3), ct.NodeID(1), now, true},
		"expired, of three":          {mapOf(3), ct.NodeID(1), after, false},
		"expired, the only voter":    {mapOf(1), ct.NodeID(1), after, true},
		"expired, another one votes": {mapOf(1, 2), ct.NodeID(2), after, false},
		"expired, not in the map":    {mapOf(1), ct.NodeID(5), after, false},
		"expired, and one stands by": {mapOf(1, 2), ct.NodeID(1), after, true},
	} {
		if got := mayServe(c.m, c.self, der, c.at); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
