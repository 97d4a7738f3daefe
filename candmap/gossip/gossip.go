package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/task"
)

// Gossip is one node's part in the spreading of announcements.
type Gossip struct {
	cfg   Config
	log   *zap.Logger
	in    *mailbox
	out   announcer
	count counters
	now   atomic.Pointer[instance] // nil while no sockets are open
	told  atomic.Uint64            // what reportSuspicious last counted

	mu      sync.Mutex
	keys    [][]byte // the first is sent with, all are accepted
	rekeyed chan struct{}
}

// New checks the configuration. Nothing is opened before Run.
func New(cfg Config) (*Gossip, error) {
	cfg.fill()
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("make gossip: %w", err)
	}
	keys, err := checkKeys([]cluster.Secret{cfg.Key})
	if err != nil {
		return nil, fmt.Errorf("make gossip: %w", err)
	}
	g := &Gossip{cfg: cfg, log: cfg.Log, in: newMailbox(), keys: keys, rekeyed: make(chan struct{}, 1)}
	g.out.queue.RetransmitMult = retransmits
	g.out.queue.NumNodes = func() int { return max(1, g.alive()) }
	return g, nil
}

// Run gossips until ctx ends, and then tells the others that this node leaves.
// It opens the sockets, and if it cannot, or loses them, tries again: gossip
// must not take the daemon down. Call it once.
func (g *Gossip) Run(ctx context.Context) error {
	group := task.New(ctx)
	group.Go("judge announcements", g.judgeAll)
	group.Go("keep membership", g.keepMember)
	return group.Wait()
}

// Rekey makes use the key to send with; it and the others are accepted. To
// rotate without loss, on all nodes: Rekey(old, next), Rekey(next, old),
// Rekey(next). It takes effect soon after it returns. Dropping a key reopens
// the sockets, because memberlist's RemoveKey races with its readers.
func (g *Gossip) Rekey(use cluster.Secret, accept ...cluster.Secret) error {
	keys, err := checkKeys(append([]cluster.Secret{use}, accept...))
	if err != nil {
		return fmt.Errorf("change gossip key: %w", err)
	}
	g.mu.Lock()
	g.keys = keys
	g.mu.Unlock()
	select {
	case g.rekeyed <- struct{}{}:
	default:
	}
	return nil
}

// Stats returns the counters.
func (g *Gossip) Stats() Stats { return g.count.stats() }

func (g *Gossip) currentKeys() [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.keys)
}

// keepMember keeps this node a member, through one instance of memberlist
// after another.
func (g *Gossip) keepMember(ctx context.Context) error {
	wait := minBackoff
	for {
		err := g.session(ctx, func() { wait = minBackoff })
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errReopen) {
			continue
		}
		g.log.Error("gossip is down, trying again", zap.Duration("in", wait), zap.Error(err))
		if !sleep(ctx, wait) {
			return nil
		}
		wait = min(2*wait, maxBackoff)
	}
}

// errReopen ends a session so that the next one starts with other keys, or says
// that it is somewhere else.
var errReopen = errors.New("reopen with other keys or another address")

// session is the life of one instance. It returns errReopen, an error, or nil
// if ctx ended. It tells opened when the sockets are open.
func (g *Gossip) session(ctx context.Context, opened func()) error {
	inst, err := open(g, g.currentKeys())
	if err != nil {
		return err
	}
	opened()
	g.now.Store(inst)
	defer g.now.Store(nil)
	defer inst.close()
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	inst.tick()
	for {
		select {
		case <-ctx.Done():
			inst.leave()
			return nil
		case <-inst.transport.lost:
			return errors.New("the sockets were closed")
		case <-g.rekeyed:
			if !inst.adopt(g.currentKeys()) {
				return errReopen
			}
		case <-ticker.C:
			if g.advertised() != inst.at {
				return errReopen
			}
			inst.tick()
		}
	}
}

// sleep reports whether it slept to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
