package masterip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
)

// Config says what a Holder works with.
type Config struct {
	Kernel Kernel      // nil: System
	File   string      // where it notes which address is ours; required
	Look   func() Want // what is asked of this node now; required
	Log    *zap.Logger // nil: none

	// Tell is nil, or told after the address was taken or given up, not when
	// the kernel has ended it; it must not block.
	Tell func(m cluster.MasterAddress, held bool)
}

// Status is what became of it.
type Status struct {
	Address *cluster.MasterAddress // nil: the cluster has none, and none is held
	Held    bool
	Problem string // "" if all is as it should be
}

// round is how long a change by others stays unseen.
const round = 5 * time.Second

// announceAt are the times after an address was taken at which the neighbours
// are told: at once, and again in case that was lost.
var announceAt = []time.Duration{0, 300 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// Holder puts the address onto its device and takes it away.
type Holder struct {
	cfg  Config
	wake chan struct{}

	// Run's own.
	mine  *cluster.MasterAddress // what the record says
	taken time.Time              // when the address was put there in this run
	told  int                    // announcements since then
	next  time.Time              // of the next one; zero: none is to come

	mu     sync.Mutex
	status Status
}

// New makes a holder.
func New(cfg Config) (*Holder, error) {
	if cfg.File == "" || cfg.Look == nil {
		return nil, errors.New("make holder of the cluster address: a file and a view are required")
	}
	if cfg.Kernel == nil {
		cfg.Kernel = System
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Tell == nil {
		cfg.Tell = func(cluster.MasterAddress, bool) {}
	}
	return &Holder{cfg: cfg, wake: make(chan struct{}, 1)}, nil
}

// Poke has the holder look again at once. It never blocks.
func (h *Holder) Poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Status returns what became of the last look.
func (h *Holder) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status
}

// Run does what is asked until ctx ends. At its end an address that is held
// stays: the next run of the program goes on with it, or the kernel removes it
// when its lifetime ends.
func (h *Holder) Run(ctx context.Context) error {
	var err error
	if h.mine, err = readRecord(h.cfg.File); err != nil {
		h.cfg.Log.Warn("it is not known which address is held", zap.Error(err))
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-h.wake:
		case <-ctx.Done():
			return nil
		}
		want := h.cfg.Look()
		h.follow(want)
		timer.Reset(h.pause(want))
	}
}

// pause is how long nothing is to be done unless something changes.
func (h *Holder) pause(w Want) time.Duration {
	wait := round
	if w.Left > 0 {
		wait = min(wait, w.Left) // it may end without anybody telling
	}
	if !h.next.IsZero() {
		wait = min(wait, max(0, time.Until(h.next)))
	}
	return wait
}

// follow does what is asked, and notes what became of it.
func (h *Holder) follow(w Want) {
	act, life := Decide(w)
	h.next = time.Time{}
	s := Status{Address: w.Address}
	var err error
	if h.mine != nil && (act == Drop || *h.mine != *w.Address) {
		if s.Held, err = h.drop(); err != nil && s.Address == nil {
			s.Address = h.mine
		}
	}
	if err == nil && act == Hold {
		s.Held, err = h.hold(*w.Address, life)
	}
	if act == Keep {
		s.Held, err = h.stands(*w.Address)
	}
	if err != nil {
		s.Problem = err.Error()
	}
	h.note(s)
}

func (h *Holder) note(s Status) {
	h.mu.Lock()
	old := h.status
	h.status = s
	h.mu.Unlock()
	if s.Held != old.Held && s.Address != nil {
		h.cfg.Log.Info("cluster address", zap.Stringer("address", s.Address.Address), zap.String("netdev", s.Address.Netdev), zap.Bool("held", s.Held))
	}
	if s.Problem != "" && s.Problem != old.Problem {
		h.cfg.Log.Error("the cluster address is not as it should be", zap.String("why", s.Problem))
	}
}

// drop takes our address away, and reports whether it still stands.
func (h *Holder) drop() (held bool, err error) {
	if stood, err := release(h.cfg.Kernel, *h.mine); err != nil {
		return true, err
	} else if stood {
		h.cfg.Tell(*h.mine, false)
	}
	h.mine, h.taken = nil, time.Time{}
	if err := removeRecord(h.cfg.File); err != nil {
		h.cfg.Log.Warn("an old record stays", zap.Error(err)) // of an address that does not stand
	}
	return false, nil
}

// release takes an address away that is ours, and reports whether it stood.
func release(k Kernel, m cluster.MasterAddress) (stood bool, err error) {
	places, err := k.Places()
	if err != nil {
		return false, err
	}
	here, _ := find(places, m)
	if here == nil {
		return false, nil
	}
	return true, k.Delete(here.Netdev, here.Prefix)
}

// hold puts the address onto its device, or renews it.
func (h *Holder) hold(m cluster.MasterAddress, life time.Duration) (held bool, err error) {
	places, err := h.cfg.Kernel.Places()
	if err != nil {
		return false, err
	}
	here, elsewhere := find(places, m)
	if elsewhere != nil || here != nil && h.mine == nil {
		on := elsewhere
		if on == nil {
			on = here
		}
		return here != nil && h.mine != nil, fmt.Errorf("%s is on %s already, and not by this noded; it is left alone", on.Prefix, on.Netdev)
	}
	if h.mine == nil {
		if err := writeRecord(h.cfg.File, m); err != nil {
			// After a restart the address will count as somebody else's, and end
			// by its lifetime.
			h.cfg.Log.Warn("it cannot be noted that the cluster address is held", zap.Error(err))
		}
		h.mine = &m
	}
	prefix := prefixFor(places, m)
	if here != nil {
		prefix = here.Prefix
	}
	if err := h.cfg.Kernel.Set(m.Netdev, prefix, life); err != nil {
		return false, err
	}
	if here == nil {
		h.cfg.Tell(m, true)
	}
	if here == nil || h.taken.IsZero() {
		h.taken, h.told = time.Now(), 0
	}
	return true, h.announce(m)
}

// announce makes the announcements that are due.
func (h *Holder) announce(m cluster.MasterAddress) error {
	for h.told < len(announceAt) && time.Since(h.taken) >= announceAt[h.told] {
		h.told++
		if err := h.cfg.Kernel.Announce(m.Netdev, m.Address.Addr()); err != nil {
			return err
		}
	}
	if h.told < len(announceAt) {
		h.next = h.taken.Add(announceAt[h.told])
	}
	return nil
}

// stands reports whether an earlier run's address is still there.
func (h *Holder) stands(m cluster.MasterAddress) (bool, error) {
	if h.mine == nil || *h.mine != m {
		return false, nil
	}
	places, err := h.cfg.Kernel.Places()
	here, _ := find(places, m)
	return here != nil, err
}

// Release takes away what a holder that no longer runs has left.
func Release(k Kernel, file string) error {
	m, err := readRecord(file)
	if err != nil || m == nil {
		return removeRecord(file) // what it would have named ends by its lifetime
	}
	if k == nil {
		k = System
	}
	if _, err := release(k, *m); err != nil {
		return fmt.Errorf("give up the cluster address: %w", err)
	}
	return removeRecord(file)
}
