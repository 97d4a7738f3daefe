package masterip

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rolekey/cluster"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

// virtual runs a test on one machine in virtual time.
func virtual(t *testing.T, f func(t *testing.T, m *machine)) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		f(t, m)
		m.stop()
	})
}

func nothing([]fakePlace) []fakePlace { return nil }

const lease = 30 * time.Second

func TestHoldsWhileMaster(t *testing.T) {
	virtual(t, func(t *testing.T, m *machine) {
		m.start()
		m.want("at first", false, "")
		m.news(false, lease)
		m.want("another is master", false, "")
		m.news(true, lease)
		m.want("master", true, "")
		if p := m.k.all()[0]; p.Prefix != ours4.Address || p.Netdev != "eth0" || !p.end.Equal(time.Now().Add(28*time.Second)) {
			t.Errorf("%+v", p)
		}
		began := time.Now()
		for range 4 {
			m.wait(lease / 3)
			m.news(true, lease)
		}
		var at []time.Duration
		for _, a := range m.k.told() {
			at = append(at, a.Sub(began))
		}
		if !slices.Equal(at, announceAt) {
			t.Errorf("announced at %v, want %v", at, announceAt)
		}
		m.news(false, lease)
		m.want("no longer master", false, "")
		if _, err := os.Stat(m.file); err == nil {
			t.Error("the record stays")
		}
		m.news(true, lease)
		m.want("master again", true, "")
		if len(m.k.told()) != len(announceAt)+1 {
			t.Errorf("%d announcements", len(m.k.told()))
		}
	})
}

// A master that is cut off hears nothing, not even that it is stale.
func TestStaleMasterGivesUp(t *testing.T) {
	virtual(t, func(t *testing.T, m *machine) {
		m.start()
		m.news(true, lease)
		m.wait(lease - time.Millisecond)
		m.want("just before the end of the lease", true, "")
		m.wait(time.Millisecond)
		m.want("at its end", false, "")
		m.news(true, lease)
		m.want("fresh again", true, "")
	})
}

// A short restart does not move the address; a long one ends with the lease,
// by the kernel's clock alone.
func TestRestart(t *testing.T) {
	virtual(t, func(t *testing.T, m *machine) {
		m.start()
		m.news(true, lease)
		m.stop()
		m.wait(2 * time.Second)
		m.start()
		m.want("after the restart", true, "")
		m.wait(2 * time.Second)
		m.news(true, lease)
		m.want("after the first beacon", true, "")
		m.stop()
		m.wait(lease)
		if m.holds() {
			t.Error("the kernel keeps the address of a dead noded")
		}
		m.start()
		m.want("after the long restart", false, "")
		m.news(true, lease)
		m.want("after the first beacon", true, "")
		m.stop()
		m.mu.Lock()
		m.master = false
		m.mu.Unlock()
		m.start()
		m.want("another became master meanwhile", false, "")
	})
}

func TestForeignAddressesAreLeftAlone(t *testing.T) {
	later := cluster.MasterAddress{Address: ours4.Address, Netdev: "eth1"}
	for name, p := range map[string]struct {
		Place
		life time.Duration
	}{
		"the same":            {place("eth0", "192.0.2.9/24", true), 0},
		"with a lifetime":     {place("eth0", "192.0.2.9/24", false), time.Hour},
		"with another length": {place("eth0", "192.0.2.9/16", true), 0},
		"on another device":   {place("lo", "192.0.2.9/32", true), 0},
	} {
		virtual(t, func(t *testing.T, m *machine) {
			m.k.put(p.Place, p.life)
			foreign := m.k.all()[0]
			m.start()
			m.news(true, lease)
			m.want(name, false, "is on "+p.Netdev+" already, and not by this noded")
			m.news(false, lease)
			m.want(name+", not master", false, "")
			m.mu.Lock()
			m.addr = &later
			m.mu.Unlock()
			m.news(true, lease)
			if all := m.k.all(); len(all) != 1 || all[0] != foreign {
				t.Errorf("%s: %+v", name, m.k.all())
			}
			m.k.edit(nothing)
			m.wait(round)
			m.want(name+", removed", true, "")
		})
	}
}

// An administrator who makes our address one without lifetime has taken it
// over; one who removes it gets it back.
func TestAdministratorsHands(t *testing.T) {
	virtual(t, func(t *testing.T, m *machine) {
		m.start()
		m.news(true, lease)
		m.k.edit(nothing)
		m.wait(round)
		m.want("removed by hand", true, "")
		m.k.edit(func(p []fakePlace) []fakePlace { p[0].Forever, p[0].mine = true, false; return p })
		m.wait(round)
		m.want("made permanent by hand", false, "not by this noded")
		m.news(false, lease)
		if len(m.k.all()) != 1 {
			t.Error("the administrator's address is gone")
		}
		if err := Release(m.k, m.file); err != nil || len(m.k.all()) != 1 {
			t.Errorf("released: %+v, %v", m.k.all(), err)
		}
	})
}

func TestChangeOfAddress(t *testing.T) {
	virtual(t, func(t *testing.T, m *machine) {
		m.start()
		m.news(true, lease)
		moved := cluster.MasterAddress{Address: ours4.Address, Netdev: "eth1"}
		for _, next := range []*cluster.MasterAddress{&moved, &ours6, &ours4} {
			m.mu.Lock()
			m.addr = next
			m.mu.Unlock()
			m.news(true, lease)
			m.want(next.Address.String(), true, "")
			if len(m.k.all()) != 1 || m.k.all()[0].Netdev != next.Netdev || m.k.all()[0].Prefix.Addr() != next.Address.Addr() {
				t.Errorf("%+v, want %v", m.k.all(), next)
			}
		}
		// A change while noded is down is made up for, stale or not.
		m.stop()
		m.mu.Lock()
		m.addr = &ours6
		m.mu.Unlock()
		m.start()
		m.want("changed meanwhile, stale", false, "")
		m.news(true, lease)
		m.want("changed meanwhile", true, "")
		m.mu.Lock()
		m.addr = nil
		m.mu.Unlock()
		m.news(true, lease)
		m.want("taken from the cluster", false, "")
	})
}

func TestKernelRefuses(t *testing.T) {
	virtual(t, func(t *testing.T, m *machine) {
		m.k.set(errors.New("operation not permitted"))
		m.start()
		m.news(true, lease)
		m.want("refused", false, "operation not permitted")
		m.k.set(nil)
		m.wait(round)
		m.want("allowed", true, "")
		m.k.set(errors.New("busy"))
		m.news(false, lease)
		m.want("cannot give up", true, "busy")
		m.wait(lease)
		m.want("given up by the kernel", false, "")
	})
}

// A record that cannot be read makes nothing ours; the address of the run
// before ends by its lifetime, and then all is well.
func TestDamagedRecord(t *testing.T) {
	for _, text := range []string{"", "{", `{"address":"192.0.2.9/24"}`, `{"address":"192.0.2.9/24","netdev":"../x"}`, `{"address":"192.0.2.9/24","netdev":"eth0","more":1}`} {
		virtual(t, func(t *testing.T, m *machine) {
			m.start()
			m.news(true, lease)
			m.stop()
			if err := os.WriteFile(m.file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			m.start()
			m.news(true, 10*lease)
			m.wait(time.Second)
			if s := m.h.Status(); s.Held || !contains(s.Problem, "not by this noded") {
				t.Errorf("%q: %+v", text, s)
			}
			m.wait(lease + round)
			m.want(text, true, "")
		})
	}
}

func TestRelease(t *testing.T) {
	virtual(t, func(t *testing.T, m *machine) {
		if err := Release(m.k, m.file); err != nil {
			t.Errorf("nothing held: %v", err)
		}
		m.start()
		m.news(true, lease)
		m.stop()
		m.k.set(errors.New("busy"))
		if err := Release(m.k, m.file); err == nil || !m.holds() {
			t.Errorf("refused by the kernel: %v", err)
		}
		m.k.set(nil)
		if err := Release(m.k, m.file); err != nil || m.holds() {
			t.Errorf("%v, %+v", err, m.k.all())
		}
		if _, err := os.Stat(m.file); err == nil {
			t.Error("the record stays")
		}
	})
}

// TestNeverBeyondTheLease: whatever happens to two machines, no address stands
// on one of them after its lease, but for what the kernel is late, and what an
// administrator put there is never touched.
func TestNeverBeyondTheLease(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.IntRange(0, 7), 1, 40).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			m := newMachine(t)
			m.start()
			defer func() { m.stop() }()
			foreign := netip.MustParsePrefix("192.0.2.77/24")
			m.k.put(Place{"eth0", foreign, true}, 0)
			up, bound := true, time.Time{} // the end of the newest lease under which it was master
			for _, step := range steps {
				switch {
				case step == 0 && up:
					m.stop()
					up = false
				case step == 1 && !up:
					m.start()
					up = true
				case step == 2 && up:
					m.news(false, lease)
					bound = time.Now().Add(-time.Second) // at once
				case (step == 3 || step == 4) && up:
					m.news(true, lease)
					bound = time.Now().Add(lease)
				case step == 5:
					m.wait(lease / 2)
				case step == 6:
					m.wait(lease)
				case step == 7:
					m.wait(time.Second)
				}
				late := time.Duration(0)
				if !up {
					late = fakeLate
				}
				if m.holds() && time.Now().After(bound.Add(late)) {
					rt.Fatalf("it holds the address %s after its lease", time.Since(bound))
				}
				if !m.k.has(foreign.Addr()) {
					rt.Fatal("an administrator's address is gone")
				}
			}
		})
	})
}

// While somebody else has the address too, ours is not renewed; but it counts as
// held for as long as it stands.
func TestHeldUntilItEnds(t *testing.T) {
	virtual(t, func(t *testing.T, m *machine) {
		m.start()
		m.news(true, lease)
		m.k.put(place("lo", "192.0.2.9/32", true), 0)
		m.news(true, 2*lease)
		m.want("on another device, too", true, "is on lo already, and not by this noded")
		m.wait(lease)
		m.want("its lifetime is over", false, "is on lo already")
		m.news(false, lease)
		m.want("no longer master", false, "")
		if len(m.k.places) != 1 {
			t.Errorf("%+v", m.k.places)
		}
	})
}
