package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rolekey/tests/kit"
)

// cputime is processor time in milliseconds, of all daemons of a kind.
type cputime struct{ noded, masterd float64 }

func (t cputime) since(o cputime) cputime { return cputime{t.noded - o.noded, t.masterd - o.masterd} }

// readCPU sums up what the daemons of a cluster have used so far.
func readCPU(ctx context.Context, c *kit.Cluster) (t cputime, err error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return t, err
	}
	for _, n := range nodes {
		for pid, sum := range map[int]*float64{n.PIDs.Noded: &t.noded, n.PIDs.Masterd: &t.masterd} {
			used, err := processCPU(pid)
			if err != nil {
				return t, err
			}
			*sum += used
		}
	}
	return t, nil
}

// processCPU adds the threads of a process: unlike the sum that the kernel
// gives in ticks, theirs are exact.
func processCPU(pid int) (used float64, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("read processor time of process %d: it has no threads (%v)", pid, err)
	}
	for _, path := range threads {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		var ns int64
		if _, err := fmt.Fscan(strings.NewReader(string(b)), &ns); err != nil {
			return 0, fmt.Errorf("read processor time of process %d: %w", pid, err)
		}
		used += float64(ns) / 1e6
	}
	return used, nil
}
