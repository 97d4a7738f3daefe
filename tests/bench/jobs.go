package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"rolekey/tests/kit"
)

const (
	clients   = 32  // that submit jobs at the same time, each after its last one has ended
	smallJobs = 600 // of one round
)

// jobs measures how many small jobs one candidate does in a second. A small job
// sets a flag that is set: it is queued, planned and recorded, and changes
// nothing on any node.
func (b *bench) jobs(ctx context.Context) error {
	var many, one []float64
	for range max(3, b.rounds/2) {
		took, err := b.crowd(ctx, clients, smallJobs)
		if err != nil {
			return err
		}
		many = append(many, smallJobs/took.Seconds())
		if took, err = b.crowd(ctx, 1, smallJobs/4); err != nil {
			return err
		}
		one = append(one, smallJobs/4/took.Seconds())
	}
	show("small jobs from 32 clients at once, one candidate", "jobs/s", many, atLeast(200))
	show("small jobs from one client, each after the last has ended", "jobs/s", one, target{})
	return nil
}

// crowd has clients do so many jobs, and returns how long that took.
func (b *bench) crowd(ctx context.Context, clients, jobs int) (time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var left atomic.Int64
	left.Store(int64(jobs))
	var all sync.WaitGroup
	start := time.Now()
	for range clients {
		all.Go(func() {
			r := kit.NewRAPI(b.master)
			defer r.Close()
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				if err := oneJob(ctx, r, b.master.Name); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return time.Since(start), context.Cause(ctx)
}

func oneJob(ctx context.Context, r *kit.RAPI, node string) error {
	job, err := r.Modify(ctx, node, map[string]bool{"vm_capable": true})
	if err != nil {
		return err
	}
	return r.Wait(ctx, job)
}
