package cluster

import (
	"crypto/sha256"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestNewUUID(t *testing.T) {
	seen := map[UUID]bool{}
	for range 1000 {
		u := NewUUID()
		if s := u.String(); s[14] != '4' || (s[19] != '8' && s[19] != '9' && s[19] != 'a' && s[19] != 'b') {
			t.Fatalf("%s is not a version 4 UUID", s)
		}
		if seen[u] || u.IsZero() {
			t.Fatalf("UUID %s twice, or zero", u)
		}
		seen[u] = true
	}
	if !(UUID{}).IsZero() {
		t.Error("the zero UUID is not zero")
	}
}

func TestDigest(t *testing.T) {
	// FIPS 180-4, the example "abc".
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	d := DigestOf([]byte("abc"))
	if d.String() != abc || d.Short() != abc[:12] || d.IsZero() || !(Digest{}).IsZero() {
		t.Errorf("digest %s, short %s, zero %v", d, d.Short(), d.IsZero())
	}
	if d != sha256.Sum256([]byte("abc")) {
		t.Error("a Digest does not compare with sha256.Sum256")
	}
}

func TestVersionOrder(t *testing.T) {
	ordered := []Version{{0, 0}, {0, 9}, {1, 0}, {1, 1}, {1, 2}, {2, 1}, {3, 0}}
	for i, v := range ordered {
		for j, w := range ordered {
			if got := v.Compare(w); got != compare(i, j) {
				t.Errorf("%v against %v: %d", v, w, got)
			}
			if v.Newer(w) != (i > j) {
				t.Errorf("%v newer than %v: %v", v, w, v.Newer(w))
			}
		}
		if v.IsZero() != (i == 0) {
			t.Errorf("%v zero: %v", v, v.IsZero())
		}
	}
}

func compare(i, j int) int {
	switch {
	case i < j:
		return -1
	case i > j:
		return 1
	}
	return 0
}

// The epoch wins over any version, or a recovered cluster could be rolled
// back by the majority that it left behind.
func TestEpochComesFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64()
		v := Version{rapid.Uint64Range(0, 1<<63).Draw(t, "epoch"), n.Draw(t, "old")}
		w := Version{v.Epoch + rapid.Uint64Range(1, 1<<62).Draw(t, "more"), n.Draw(t, "new")}
		if !w.Newer(v) || v.Newer(w) {
			t.Fatalf("%v against %v", v, w)
		}
	})
}

func TestRoleFromFlags(t *testing.T) {
	cases := []struct {
		flags  Flags
		master bool
		role   Role
		code   string
		acts   bool
	}{
		{Flags{}, false, RoleRegular, "R", false},
		{Flags{MasterCandidate: true}, false, RoleCandidate, "C", true},
		{Flags{MasterCandidate: true}, true, RoleMaster, "M", true},
		{Flags{Drained: true}, false, RoleDrained, "D", false},
		{Flags{Offline: true}, false, RoleOffline, "O", false},
		{Flags{MasterCapable: true, VMCapable: true}, false, RoleRegular, "R", false},
	}
	for _, c := range cases {
		got := c.flags.Role(c.master)
		if got != c.role || got.Code() != c.code || got.Candidate() != c.acts {
			t.Errorf("%+v, master %v: %v (%s), candidate %v", c.flags, c.master, got, got.Code(), got.Candidate())
		}
	}
	if r := Role(9); r.String() != "role(9)" || r.Code() != "?" || r.Candidate() {
		t.Errorf("an unknown role prints %s, %s, candidate %v", r, r.Code(), r.Candidate())
	}
}

func TestFlagsValid(t *testing.T) {
	for bits := range 32 {
		on := func(i int) bool { return bits>>i&1 == 1 }
		f := Flags{MasterCandidate: on(0), Drained: on(1), Offline: on(2), MasterCapable: on(3), VMCapable: on(4)}
		exclusive := bits&7 == 0 || bits&7 == 1 || bits&7 == 2 || bits&7 == 4
		capable := !f.MasterCandidate || f.MasterCapable
		if f.Valid() != (exclusive && capable) {
			t.Errorf("%+v valid: %v", f, f.Valid())
		}
	}
}

func TestPortsValid(t *testing.T) {
	if !DefaultPorts.Valid() {
		t.Error("the default ports are not valid")
	}
	same, unset := DefaultPorts, DefaultPorts
	same.RAPI = same.SSH
	unset.Gossip = 0
	for _, p := range []Ports{{}, same, unset} {
		if p.Valid() {
			t.Errorf("%+v is valid", p)
		}
	}
}

func TestCheckAddr(t *testing.T) {
	bad := []netip.Addr{
		{},
		netip.IPv4Unspecified(), netip.IPv6Unspecified(), netip.MustParseAddr("::ffff:192.0.2.1"),
		netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("239.1.1.1"), netip.IPv6LinkLocalAllNodes(),
	}
	for _, a := range bad {
		if CheckAddr(a) == nil {
			t.Errorf("%v passes", a)
		}
	}
	if err := CheckAddr(netip.MustParseAddr("2001:db8::1")); err != nil {
		t.Error(err)
	}
}
