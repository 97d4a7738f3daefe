// Command bench measures Rolekey on this machine: how fast a role spreads and
// how fast it is gone, what the gate costs, what the daemons need, and how long
// the cluster is without a master. It prints one line per figure: the median,
// the smallest and the largest value, how many there were, and the target.
//
//	bench [-n ROUNDS]
//
// All nodes share this machine's processors, so that figures compare only with
// figures of the same machine and layout. What is compared within one line was
// measured in interleaved pairs. The exit status is 1 if something could not be
// measured; a target that was missed is shown, and is no failure.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

const (
	nodes = 5
	pool  = 3
)

func main() {
	lab.Main(map[string]lab.Helper{"measure": measure})
	rounds := flag.Int("n", 20, "rounds of each measurement")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, *rounds)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, rounds int) int {
	fmt.Println(machine())
	fmt.Println()
	header()
	code, err := kit.WithCluster(ctx, lab.Config{Nodes: nodes, CandidatePoolSize: pool}, "measure", strconv.Itoa(rounds))
	if err == nil {
		err = gate(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return code
}

// measure runs inside the cluster.
func measure(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	rounds, err := strconv.Atoi(args[1])
	if err != nil || rounds < 1 {
		fmt.Fprintln(os.Stderr, "bench: -n wants a number of rounds")
		return 1
	}
	b, err := newBench(ctx, args[0], rounds)
	for _, part := range []func(*bench, context.Context) error{
		(*bench).memory, (*bench).roles, (*bench).coldStart, (*bench).handover, (*bench).failover,
	} {
		if err == nil {
			err = part(b, ctx)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}
