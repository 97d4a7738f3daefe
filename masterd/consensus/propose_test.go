package consensus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rolekey/masterd/state"
)

// submit proposes a job with a name.
func submit(t *testing.T, n *Node, name string) (state.Result, error) {
	return n.Propose(t.Context(), state.KindJobSubmit,
		state.JobSubmit{Ops: []json.RawMessage{json.RawMessage(`{"OP_ID":"X"}`)}, Summary: []string{name}}, meta())
}

// TestJobsShareWrites: jobs that are submitted while the disk is busy go to it
// together.
func TestJobsShareWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := founded(t, newLAN())
		before, release := b.disk.writes.Load(), b.disk.hang()
		const n = 48
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				if _, err := submit(t, b.node, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all have been proposed
		release()
		all.Wait()
		if got := b.disk.writes.Load() - before; got > n/4 {
			t.Errorf("%d jobs took %d writes", n, got)
		}
		if got := len(slices.Collect(b.node.State().ActiveJobs())); got != n {
			t.Errorf("%d jobs are there, want %d", got, n)
		}
	})
}

// TestG7ConcurrentProposals: jobs and changes of the map are proposed at once,
// in any mixture, and the leader dies at any time. What was confirmed happened
// once, what was not happened once or never, and all replicas agree.
func TestG7ConcurrentProposals(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		workers := rapid.IntRange(2, 12).Draw(r, "workers")
		each := rapid.IntRange(1, 6).Draw(r, "jobs of each")
		kill := rapid.IntRange(0, workers*each).Draw(r, "kill the leader after") // 0: never
		cluster3(t, func(t *testing.T, boxes []*box) {
			p := &proposer{lead: boxes[0].node, done: map[string]int64{}, kill: kill, enough: make(chan struct{})}
			var all sync.WaitGroup
			for w := range workers {
				all.Go(func() { p.work(t, w, each) })
			}
			if kill > 0 {
				<-p.enough
				boxes[0].kill()
				boxes = boxes[1:]
			}
			all.Wait()
			p.check(t, boxes)
		})
	})
}

// proposer remembers what the leader confirmed.
type proposer struct {
	lead   *Node
	kill   int           // after so many jobs
	enough chan struct{} // closes then
	mu     sync.Mutex
	done   map[string]int64 // number of each job that was confirmed
}

// work submits jobs and ends every second one; now and then it changes the map.
func (p *proposer) work(t *testing.T, worker, jobs int) {
	n := p.lead
	for i := range jobs {
		name := fmt.Sprintf("%d of %d", i, worker)
		res, err := submit(t, n, name)
		if err != nil {
			return // the leader is dead
		}
		p.confirmed(name, res.JobID)
		if worker%3 == 0 {
			lease := uint32(300 + 10*worker + i) // not the default, and no two alike
			if res, err := n.Propose(t.Context(), state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: &lease}}, meta()); err == nil && res.Version.IsZero() {
				t.Error("a change of the lease made no map")
			}
		}
		if i%2 == 0 {
			_, _ = n.Propose(t.Context(), state.KindJobUpdate, state.JobUpdate{ID: res.JobID, Status: state.JobSuccess}, meta())
		}
	}
}

func (p *proposer) confirmed(name string, id int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done[name] = id; len(p.done) == p.kill {
		close(p.enough)
	}
}

func (p *proposer) check(t *testing.T, boxes []*box) {
	lead := leaderOf(t, boxes...)
	until(t, 10*time.Second, "the leader has applied all", func() bool { return lead.node.Barrier(t.Context()) == nil })
	want, err := state.EncodeSnapshot(lead.node.State())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range boxes {
		until(t, 10*time.Second, "all replicas agree", func() bool {
			got, err := state.EncodeSnapshot(b.node.State())
			return err == nil && bytes.Equal(got, want)
		})
	}
	times := map[string]int{}
	for id, j := range lead.node.State().Jobs {
		times[j.Summary[0]]++
		if known, ok := p.done[j.Summary[0]]; ok && known != id {
			t.Errorf("job %q is number %d, and was confirmed as %d", j.Summary[0], id, known)
		}
	}
	for name := range p.done {
		if times[name] == 0 {
			t.Errorf("job %q was confirmed and is lost", name)
		}
	}
	for name, n := range times {
		if n > 1 {
			t.Errorf("job %q is there %d times", name, n)
		}
	}
}
