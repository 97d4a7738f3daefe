package candmap

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// maxNap bounds how late Run sees that a clock was set or the machine
	// slept: timers count neither. Fresh is exact in any case.
	maxNap = time.Second
	// maxRepair bounds how long work that failed waits for the next try.
	maxRepair = 5 * time.Second
	// restPause is how long the rest of the work waits for more of it.
	restPause = 250 * time.Millisecond
)

// Run reports when the map becomes stale or fresh, does again what failed, and
// records the newest time heard, at most every third of a lease. It returns
// when ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	k.running.Store(true)
	wg.Go(func() { k.watchLease(ctx) })
	saved := k.repair(ctx)
	k.running.Store(false)
	wg.Wait()
	select {
	case k.disk <- struct{}{}:
		k.saveRest()
		k.giveBack(k.disk)
	default: // whoever has it hangs, or sees to it
	}
	return k.saveLast(&saved, time.Nanosecond)
}

// watchLease has no I/O in its way.
func (k *Keeper) watchLease(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	first, was := true, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-k.wake:
		}
		left := k.Left()
		if stale := left == 0; first || stale != was {
			first, was = false, stale
			k.cfg.Log.Info("freshness changed", zap.Bool("stale", stale))
			if k.cfg.OnStale != nil {
				k.cfg.OnStale(stale)
			}
		}
		if left == 0 {
			left = maxNap
		}
		timer.Reset(min(left, maxNap))
	}
}

// repair returns the newest time that was recorded.
func (k *Keeper) repair(ctx context.Context) (saved time.Time) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	soon := true // the timer is due soon, and more work does not put it off
	for {
		select {
		case <-ctx.Done():
			return saved
		case <-k.later:
			if !soon {
				soon = true
				timer.Reset(restPause)
			}
			continue
		case <-timer.C:
			soon = false
		}
		k.settle(ctx, true)
		if err := k.saveLast(&saved, k.third()); err != nil {
			k.cfg.Log.Warn("cannot record the newest time heard", zap.Error(err))
		}
		timer.Reset(min(maxRepair, k.third()))
	}
}

func (k *Keeper) third() time.Duration {
	if v := k.View(); v.Map != nil {
		return v.Map.Lease() / 3
	}
	return maxRepair
}

// saveLast records the newest time heard. Once in a third of a lease is
// enough: replays in between are stale by the clock.
func (k *Keeper) saveLast(saved *time.Time, every time.Duration) error {
	last := k.Lease().Last()
	if last.IsZero() || last.Sub(*saved) < every {
		return nil
	}
	if err := k.cfg.Store.SaveLast(last); err != nil {
		return fmt.Errorf("save newest time heard: %w", err)
	}
	*saved = last
	return nil
}
