package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// gateRuns is how often each benchmark is run. Within a run, gate and bare
// server take turns, a thousand times and more.
const gateRuns = 10

// gate compares the gate of package rpc with a bare server of net/http: mutual
// TLS 1.3, the same router and handler. The benchmarks are rpc's own.
func gate(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark(KeptAlive|NewConnections)$",
		"-benchtime", "300ms", "-count", strconv.Itoa(gateRuns), "-buildvcs=false", "rolekey/rpc")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("measure gate: %w: %s", err, out)
	}
	got := readBenchmarks(out)
	for _, b := range []struct{ name, text string }{
		{"KeptAlive", "RPC, connection kept open"}, {"NewConnections", "RPC, a connection for each call"},
	} {
		m := got[b.name]
		if len(m["ratio"]) == 0 {
			return errors.New("measure gate: the output of go test has changed")
		}
		show(b.text+": through the gate", "µs", m["gate-µs"], target{})
		show(b.text+": bare server", "µs", m["bare-µs"], target{})
		show(b.text+": ratio, 1 is free", "", m["ratio"], atLeast(0.95))
	}
	return nil
}

// readBenchmarks reads "BenchmarkX-2  1000  35 ns/op  0.98 ratio" and so on.
func readBenchmarks(out []byte) map[string]map[string][]float64 {
	got := map[string]map[string][]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(f[0], "Benchmark"), "-")
		if got[name] == nil {
			got[name] = map[string][]float64{}
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				got[name][f[i+1]] = append(got[name][f[i+1]], v)
			}
		}
	}
	return got
}
