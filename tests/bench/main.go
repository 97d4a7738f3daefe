// Command bench measures Rolekey on this machine: how fast a role spreads and
// how fast it is gone, how that grows with the cluster, how many jobs are done
// in a second, what the gate costs, what the daemons need, and how long the
// cluster is without a master. It prints one line per figure: the median, the
// smallest and the largest value, how many there were, the load of the machine
// when the line was measured, and the target.
//
//	bench [-n ROUNDS] [-only PART,PART...]
//
// All nodes share this machine's processors and its disk, so that figures
// compare only with figures of the same machine and layout. What is compared
// within one line was measured in interleaved rounds. The exit status is 1 if
// something could not be measured; a target that was missed is shown, and is no
// failure. docs/performance.rst says what each figure means.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"rolekey/internal/lab"
)

// layout is a cluster and what is measured inside it, in this order.
type layout struct {
	cfg   lab.Config
	parts []part
}

// part is a set of figures that can be chosen by its name.
type part struct {
	name string
	run  func(b *bench, ctx context.Context) error
}

var layouts = []layout{
	{lab.Config{Nodes: 5, CandidatePoolSize: 3}, []part{
		{"memory", (*bench).memory},
		{"roles", (*bench).roles},
		{"start", (*bench).coldStart},
		{"authorize", (*bench).authorize},
		{"handover", (*bench).handover},
		{"failover", (*bench).failover},
	}},
	{lab.Config{Nodes: 8, CandidatePoolSize: 3}, []part{{"renew", (*bench).renew}}},
	{lab.Config{Nodes: 1}, []part{{"jobs", (*bench).jobs}, {"thousand", (*bench).thousand}}},
}

// alone are the parts that bring their own surroundings.
var alone = []struct {
	name string
	run  func(ctx context.Context, rounds int) error
}{
	{"growth", growth},
	{"sessions", insideEach("sessions", sizes...)},
	{"reach", insideEach("reach", 5, 32)},
	{"rapi", remoteAPI},
	{"verify", insideEach("verify", sizes...)},
	{"gate", func(ctx context.Context, _ int) error { return gate(ctx) }},
}

func main() {
	lab.Main(map[string]lab.Helper{"measure": measure})
	rounds := flag.Int("n", 20, "rounds of each measurement")
	only := flag.String("only", "", "measure these parts, separated by commas: "+strings.Join(partNames(), ", "))
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, *rounds, *only)
	stop()
	os.Exit(code)
}

func partNames() (names []string) {
	for _, l := range layouts {
		for _, p := range l.parts {
			names = append(names, p.name)
		}
	}
	for _, p := range alone {
		names = append(names, p.name)
	}
	return names
}

// chosen reads -only.
func chosen(only string) ([]string, error) {
	if only == "" {
		return partNames(), nil
	}
	names := strings.Split(only, ",")
	for _, n := range names {
		if !slices.Contains(partNames(), n) {
			return nil, fmt.Errorf("no part %q: want some of %s", n, strings.Join(partNames(), ", "))
		}
	}
	return names, nil
}

func run(ctx context.Context, rounds int, only string) int {
	names, err := chosen(only)
	if err == nil && rounds < 1 {
		err = fmt.Errorf("-n %d: want at least one round", rounds)
	}
	if err != nil {
		return failed(err)
	}
	fmt.Println(machine())
	fmt.Println()
	header()
	for _, l := range layouts {
		var here []string
		for _, p := range l.parts {
			if slices.Contains(names, p.name) {
				here = append(here, p.name)
			}
		}
		if len(here) == 0 {
			continue
		}
		if err := inside(ctx, l.cfg, rounds, here...); err != nil {
			return failed(err)
		}
	}
	for _, p := range alone {
		if slices.Contains(names, p.name) {
			if err := p.run(ctx, rounds); err != nil {
				return failed(err)
			}
		}
	}
	return 0
}

// failed says why a figure is missing.
func failed(err error) int {
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}
