package masterip

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/cluster"
)

// fakeKernel is a machine's addresses. Lifetimes are counted as the kernel
// does, to the second, and are late by as much as it may be.
type fakeKernel struct {
	mu        sync.Mutex
	places    []fakePlace
	announced []time.Time
	fail      error // of Set, Delete and Announce
}

type fakePlace struct {
	Place
	end  time.Time
	mine bool // put there by Set
}

const fakeLate = 1200 * time.Millisecond

func (k *fakeKernel) expire() {
	kept := k.places[:0]
	for _, p := range k.places {
		if p.Forever || time.Now().Before(p.end.Add(fakeLate)) {
			kept = append(kept, p)
		}
	}
	k.places = kept
}

func (k *fakeKernel) Places() ([]Place, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	var out []Place
	for _, p := range k.places {
		out = append(out, p.Place)
	}
	return out, nil
}

func (k *fakeKernel) Set(dev string, p netip.Prefix, life time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	if k.fail != nil {
		return k.fail
	}
	n := fakePlace{Place{dev, p, false}, time.Now().Add(life), true}
	for i, o := range k.places {
		if o.Netdev == dev && o.Prefix == p {
			if !o.mine {
				return errors.New("a foreign address is touched")
			}
			k.places[i] = n
			return nil
		}
	}
	k.places = append(k.places, n)
	return nil
}

func (k *fakeKernel) Delete(dev string, p netip.Prefix) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	for i, o := range k.places {
		if o.Netdev == dev && o.Prefix == p {
			k.places = append(k.places[:i:i], k.places[i+1:]...)
			return nil
		}
	}
	return nil
}

func (k *fakeKernel) Announce(string, netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.announced = append(k.announced, time.Now())
	return k.fail
}

// put is what an administrator does.
func (k *fakeKernel) put(p Place, life time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.places = append(k.places, fakePlace{p, time.Now().Add(life), false})
}

func (k *fakeKernel) set(fail error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = fail
}

// all returns what stands now.
func (k *fakeKernel) all() []fakePlace {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire()
	return slices.Clone(k.places)
}

func (k *fakeKernel) told() []time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.announced)
}

// edit changes things behind the holder's back.
func (k *fakeKernel) edit(change func(places []fakePlace) []fakePlace) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.places = change(k.places)
}

func (k *fakeKernel) has(a netip.Addr) bool {
	places, _ := k.Places()
	for _, p := range places {
		if p.Prefix.Addr() == a {
			return true
		}
	}
	return false
}

// machine is a node with its view, whose noded can be killed. It lives in
// virtual time.
type machine struct {
	t    *testing.T
	k    *fakeKernel
	file string

	mu     sync.Mutex
	addr   *cluster.MasterAddress
	master bool
	until  time.Time
	heard  bool

	h    *Holder
	stop func()
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, k: &fakeKernel{}, file: filepath.Join(t.TempDir(), "address.json"), addr: &ours4, stop: func() {}}
	t.Cleanup(func() { m.stop() })
	return m
}

func (m *machine) look() Want {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := Want{Address: m.addr, Master: m.master, Left: max(0, time.Until(m.until))}
	m.heard = m.heard || w.Left > 0
	w.Heard = m.heard
	return w
}

// start runs noded, which has heard nothing yet.
func (m *machine) start() {
	m.t.Helper()
	m.stop()
	m.mu.Lock()
	m.heard, m.until = false, time.Time{}
	m.mu.Unlock()
	h, err := New(Config{Kernel: m.k, File: m.file, Look: m.look})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	m.h = h
	m.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			m.t.Error(err)
		}
		m.stop = func() {}
	}
	synctest.Wait()
}

// news is a map or a beacon.
func (m *machine) news(master bool, lease time.Duration) {
	m.mu.Lock()
	m.master, m.until = master, time.Now().Add(lease)
	m.mu.Unlock()
	m.h.Poke()
	synctest.Wait()
}

func (m *machine) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (m *machine) holds() bool {
	return slices.ContainsFunc(m.k.all(), func(p fakePlace) bool { return p.mine })
}

func (m *machine) want(what string, held bool, problem string) {
	m.t.Helper()
	if s := m.h.Status(); s.Held != held || m.holds() != held || (s.Problem != "") != (problem != "") || !contains(s.Problem, problem) {
		m.t.Errorf("%s: held %v, there %v, problem %q; want %v and %q", what, s.Held, m.holds(), s.Problem, held, problem)
	}
}
