package noded

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// longSleep is more than the trust period.
const longSleep = candmap.TrustPeriod + 24*time.Hour

func (h *host) trust(hash cluster.Digest) (rpc.TrustReply, error) {
	h.t.Helper()
	var reply rpc.TrustReply
	err := h.post(rpc.LocalTrust, rpc.TrustRequest{Hash: hash}, &reply)
	return reply, err
}

// sleeper is a cluster of three, one of which slept for so long that it does
// not believe the voters of today.
type sleeper struct {
	*host
	w             *world
	first, second *host
}

func newSleeper(t *testing.T) *sleeper {
	t.Helper()
	w, first := founded(t)
	s := &sleeper{host: joined(t, w), w: w, first: first, second: joined(t, w)}
	w.mustPush(s.member().id.Node) // a roster with all of them
	s.stop()
	w.ahead = longSleep
	w.promote(s.second, true)
	w.next(func(*candmap.Map) { w.nodes[2].HostKeys = nil }) // another roster
	for _, h := range []*host{s.first, s.second} {
		w.mustPush(h.member().id.Node)
	}
	s.cfg.Clocks = func() candmap.Clocks {
		c := candmap.SystemClocks()
		c.Wall = c.Wall.Add(longSleep)
		return c
	}
	return s
}

// wake starts the sleeper, and proves that it does not follow by itself.
func (s *sleeper) wake() *running {
	s.t.Helper()
	s.up()
	m := s.member()
	_, err := m.keeper.Deliver(s.t.Context(), s.w.chain, s.w.docs())
	wantCode(s.t, "delivery to a node that slept", err, cluster.CodeTrustExpired)
	if st := s.status(); !strings.Contains(st.Problem, "noded trust HASH") {
		s.t.Errorf("status %+v", st)
	}
	return m
}

// TestG3LongSleep: only a word of local root, with the right hash, brings a node
// that slept too long under the voters of today; then it goes on by itself.
func TestG3LongSleep(t *testing.T) {
	t.Parallel()
	s := newSleeper(t)
	m := s.wake()
	before := m.keeper.View().At()

	_, err := s.trust(cluster.DigestOf([]byte("no map")))
	wantCode(t, "unknown hash", err, cluster.CodeNotFound)
	if !strings.Contains(err.Error(), "the newest that they offer is version "+s.w.at().String()) || strings.Contains(err.Error(), s.w.cur.Hash.Short()) {
		t.Errorf("unknown hash: %v", err)
	}
	_, err = s.trust(s.w.boot.Map.Hash())
	wantCode(t, "an old map", err, cluster.CodeMapOlder)
	if m.keeper.View().At() != before {
		t.Fatal("a refused order had an effect")
	}

	reply, err := s.trust(s.w.cur.Hash)
	if err != nil || reply.Version != s.w.at() || reply.Previous != before || !reply.Durable || reply.From == "" || len(reply.Problems) > 0 {
		t.Fatalf("trust: %+v, %v", reply, err)
	}
	if v := m.keeper.View(); v.At() != s.w.at() || !v.Complete() {
		t.Errorf("in force: %s, roster complete: %v", v.At(), v.Complete())
	}
	if reply, err = s.trust(s.w.cur.Hash); err != nil || reply.Previous != reply.Version || reply.From != "" {
		t.Errorf("trust again: %+v, %v", reply, err)
	}

	// The voters change again.
	s.w.demote(s.second.member().id.Node)
	s.w.mustPush(s.first.member().id.Node)
	if err := s.w.call(m.id.Node, rpc.MethodBeaconPut, "", s.w.beacon(), nil); err != nil {
		t.Fatal(err)
	}
	await(t, m, "the next map arrives by itself", func() bool { return m.keeper.View().At() == s.w.at() && m.keeper.Fresh() })
}

func TestTrustNobodyAnswers(t *testing.T) {
	t.Parallel()
	s := newSleeper(t)
	s.wake()
	s.first.stop()
	s.second.stop()
	_, err := s.trust(s.w.cur.Hash)
	wantCode(t, "trust", err, cluster.CodeUnavailable)
	if !strings.Contains(err.Error(), "none of the 2 nodes") || !strings.Contains(err.Error(), string(s.first.name)) {
		t.Errorf("trust: %v", err)
	}
}

// What a node pins when it falls asleep is all that it knows others by.
func TestTrustRenewedCertificates(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := joined(t, w)
	right := w.nodes[0].Server
	w.next(func(*candmap.Map) { w.nodes[0].Server = []cluster.Digest{cluster.DigestOf([]byte("former key"))} })
	w.mustPush(h.member().id.Node)
	w.next(func(*candmap.Map) { w.nodes[0].Server = right })
	w.mustPush(first.member().id.Node)
	_, err := h.trust(w.cur.Hash)
	wantCode(t, "trust", err, cluster.CodeIdentityMismatch)
	if !strings.Contains(err.Error(), "renewed") || !strings.Contains(cluster.HintOf(err), "noded leave --yes") || !strings.Contains(cluster.HintOf(err), "noded join") {
		t.Errorf("trust: %v; hint %s", err, cluster.HintOf(err))
	}
}

// TestTrustDelivered: nobody can be asked, and the map that local root vouches for
// comes as a delivery. No other one is taken for it, and none later.
func TestTrustDelivered(t *testing.T) {
	t.Parallel()
	s := newSleeper(t)
	m := s.wake()
	s.first.stop()
	s.second.stop()
	other := s.w.cur
	s.w.next(func(*candmap.Map) {})
	want := s.w.cur
	deliver := func(env candmap.Envelope) error {
		return s.w.call(m.id.Node, rpc.MethodMapPut, "", rpc.MapDelivery{Maps: []candmap.Envelope{env}, Docs: s.w.docs()}, nil)
	}
	if err := deliver(want.Envelope); err == nil {
		t.Fatal("it was taken without the word of local root")
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.trust(want.Hash)
		done <- err
	}()
	var err error
	for over := false; !over; {
		select {
		case err = <-done:
			over = true
		default:
			if deliver(other.Envelope) == nil {
				t.Fatal("another map was taken")
			}
			if deliver(want.Envelope) == nil {
				err, over = <-done, true
			}
		}
	}
	if err != nil || m.keeper.View().Map.Hash != want.Hash || !m.keeper.View().Complete() {
		t.Errorf("trust: %v; %s is in force", err, m.keeper.View().At())
	}
	if m.awaited.Load() != nil {
		t.Error("it is still awaited")
	}
}

func TestTrustRemovedNode(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := joined(t, w)
	w.next(func(*candmap.Map) { w.nodes = w.nodes[:1] })
	w.mustPush(first.member().id.Node)
	_, err := h.trust(w.cur.Hash)
	wantCode(t, "trust", err, cluster.CodeNotInRoster)
	if !strings.Contains(cluster.HintOf(err), "noded join") {
		t.Errorf("hint %q", cluster.HintOf(err))
	}
}

// TestG7DamagedMap: a node whose map was damaged on disk still finds others,
// by its roster, and takes the map of today, changed since or not.
func TestG7DamagedMap(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]bool{"same map": false, "newer map": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, first := founded(t)
			h := joined(t, w)
			w.mustPush(first.member().id.Node)
			h.stop()
			write(t, filepath.Join(h.cfg.Paths.MapDir(), "current.json"), []byte("junk"))
			if change {
				w.next(func(*candmap.Map) {})
				w.mustPush(first.member().id.Node)
			}
			h.up()
			if s := h.status(); !strings.Contains(s.Problem, "damaged") || !strings.Contains(s.Problem, "noded trust HASH") {
				t.Fatalf("status %+v", s)
			}
			if reply, err := h.trust(w.cur.Hash); err != nil || reply.Version != w.at() || !reply.Previous.IsZero() || !reply.Durable {
				t.Fatalf("trust: %+v, %v", reply, err)
			}
			if v := h.member().keeper.View(); !v.Complete() || v.Map.Hash != w.cur.Hash {
				t.Errorf("in force: %s", v.At())
			}
			if s := h.status(); strings.Contains(s.Problem, "damaged") {
				t.Errorf("status %+v", s)
			}
		})
	}
}

func TestTrustWithNothingLeft(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := joined(t, w)
	h.stop()
	write(t, filepath.Join(h.cfg.Paths.MapDir(), "current.json"), []byte("junk"))
	if err := os.RemoveAll(filepath.Join(h.cfg.Paths.MapDir(), "roster")); err != nil {
		t.Fatal(err)
	}
	h.up()
	_, err := h.trust(w.cur.Hash)
	wantCode(t, "trust", err, cluster.CodeUnavailable)
	if !strings.Contains(cluster.HintOf(err), "noded join") {
		t.Errorf("trust: %v; hint %q", err, cluster.HintOf(err))
	}
}

func TestTrustOutsideCluster(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.up()
	_, err := h.trust(cluster.DigestOf(nil))
	wantCode(t, "trust", err, cluster.CodeNoMap)
}
