// Command demo starts a cluster of five nodes on this machine and shows what
// Rolekey promises, by trying it: real daemons, a real sshd on every node, real
// cuts in the network, and attacks with stolen keys. Each line of its output is
// one claim, what was seen of it, and the verdict: PASS, FAIL or SKIP. The last
// line counts them; the exit status is 1 if any claim failed.
//
//	demo [-dir DIR] [-no-namespaces] [-v]
//
// The story runs in a process of its own inside the cluster's namespaces,
// because that is where the nodes' addresses are. Where the kernel allows none,
// or with -no-namespaces, the cluster uses the host's loopback, and what needs
// cuts in the network is skipped. With -dir the files of a cluster that
// disappointed stay there for reading.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// The cluster of the demo.
const (
	nodes = 5
	pool  = 3
	lease = 3 * time.Second
)

func main() {
	lab.Main(map[string]lab.Helper{"story": story})
	dir := flag.String("dir", "", "folder of the cluster; default: a temporary one")
	host := flag.Bool("no-namespaces", false, "use the host's loopback even where namespaces work")
	verbose := flag.Bool("v", false, "tell how the cluster is brought up")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, lab.Config{Dir: *dir, NoNamespaces: *host}, *verbose)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, cfg lab.Config, verbose bool) int {
	cfg.Nodes, cfg.CandidatePoolSize, cfg.MapLease, cfg.Progress = nodes, pool, lease, io.Discard
	if verbose {
		cfg.Progress = os.Stderr
	}
	start := time.Now()
	fmt.Printf("Bringing up %d nodes on this machine: candidate pool %d, map lease %v.\n\n", nodes, pool, lease)
	code, err := kit.WithCluster(ctx, cfg, "story", start.Format(time.RFC3339Nano))
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		if code < 0 { // the story never got to its last line
			fmt.Println("0 passed, 1 failed")
		}
		return 1
	}
	return code
}

// story tells the whole story. It runs inside the cluster.
func story(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	t, err := newTeller(ctx, args[0], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	defer os.RemoveAll(t.work)
	if start, err := time.Parse(time.RFC3339Nano, args[1]); err == nil {
		t.up = time.Since(start)
	}
	for _, chapter := range chapters {
		if ctx.Err() != nil {
			break
		}
		fmt.Fprintf(t.out, "%s\n", chapter.title)
		_ = t.settle(ctx) // if the cluster has not settled, the claims say so
		chapter.tell(t, ctx)
		fmt.Fprintln(t.out)
	}
	return t.end()
}

// chapters are told in this order: each begins with the cluster as the one
// before left it.
var chapters = []struct {
	title string
	tell  func(*teller, context.Context)
}{
	{"Five machines, one map", (*teller).admission},
	{"A promoted node may act at once", (*teller).promotion},
	{"Everybody else may not", (*teller).outsiders},
	{"A demoted node may not any more, at once", (*teller).demotion},
	{"The master dies", (*teller).failover},
	{"Forged and replayed maps", (*teller).forgery},
	{"A node that hears nothing stops trusting", (*teller).silence},
	{"A node that slept through a demotion", (*teller).sleeper},
	{"And in the end", (*teller).inspection},
}
