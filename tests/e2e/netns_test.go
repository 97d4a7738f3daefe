package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// netns is the cluster whose nodes are machines of their own (isolation netns),
// brought up when a test first asks for it.
var netns struct {
	once sync.Once
	lab  *lab.Cluster
	err  error
}

// machines is a cluster of three machines at rest, whatever tests before have
// left: node1 is the only candidate. The daemons have no --root there, SSH is at
// port 22, and every node has an IPv4 and an IPv6 address. Files of a node lie at
// Node.File(path). Where that cannot be had, the test is skipped.
func machines(t *testing.T) *world {
	t.Helper()
	netns.once.Do(func() {
		netns.lab, netns.err = lab.Up(context.Background(), lab.Config{
			Nodes: 3, Isolation: lab.IsolationNetns, CandidatePoolSize: 1, MapLease: lease, Progress: os.Stderr,
		})
	})
	skipWithoutMachines(t, netns.err)
	w := open(t, netns.lab.Dir())
	w.rest("node1")
	return w
}

func skipWithoutMachines(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, lab.ErrNeedsRoot) || errors.Is(err, lab.ErrNoNamespaces) {
		t.Skipf("needs nodes with namespaces of their own: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// endMachines takes the cluster down, if there is one.
func endMachines() error {
	if netns.lab == nil {
		return nil
	}
	return netns.lab.Down(context.Background())
}

// TestMachinesFollowRoles: at the real paths, on port 22, by name and by either
// family a candidate's root gets in everywhere and nobody else's does.
func TestMachinesFollowRoles(t *testing.T) {
	w := machines(t)
	master, other, n := w.node("node1"), w.node("node2"), w.node("node3")
	w.must(w.logins(master, n, nil))
	w.must(w.logins(n, other, kit.ShutOut))

	w.admin(0, "gnt-node", "modify", "-C", "yes", n.Name)
	w.settle()
	w.must(w.logins(n, other, nil))
	w.must(w.logins(n, master, nil))
	loot := w.rob(n.Name)
	key := filepath.Join(t.TempDir(), "stolen")
	w.must(os.WriteFile(key, loot.SSHKey, 0o600))
	w.must(w.LoginWith(w.ctx, key, n, other))
	session, err := w.Spawn(w.ctx, lab.Cmd{Node: n.Name, Args: []string{"ssh", other.Addresses[1], "hostname; cat"}, Stderr: t.Output()})
	w.must(err)
	if line, err := bufio.NewReader(session.Stdout).ReadString('\n'); line != other.Name+"\n" {
		t.Errorf("a session over IPv6: %q, %v", line, err)
	}

	w.admin(0, "gnt-node", "modify", "-C", "no", n.Name)
	if code, err := session.Wait(); code != 255 || err != nil {
		t.Errorf("the session of the node that was demoted: code %d, %v", code, err)
	}
	w.must(w.logins(n, other, kit.ShutOut))
	w.must(w.logins(n, master, kit.ShutOut))
	w.must(kit.ShutOut(w.LoginWith(w.ctx, key, n, other)))
	w.refused(loot.Caller(loot.Candidate), w.Noded(other), "/v1/state", "not_in_map")
	if _, err := os.Lstat(n.File("/var/lib/rolekey/ssh/id")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the former candidate's key: %v", err)
	}
	w.clean()
}

// logins logs in by the name and every address. judge, if any, tells whether
// the outcome is the right one.
func (w *world) logins(from, to lab.Node, judge func(error) error) error {
	var g errgroup.Group
	for _, dest := range append([]string{to.Name, to.Short()}, to.Addresses...) {
		g.Go(func() error {
			err := w.LoginAt(w.ctx, from, to, dest)
			if judge != nil {
				err = judge(err)
			}
			if err != nil {
				return fmt.Errorf("from %s to %s: %w", from.Short(), dest, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// TestMachinesCutOff: a cut is silence for both families, and ends without harm.
func TestMachinesCutOff(t *testing.T) {
	w := machines(t)
	master, n := w.node("node1"), w.node("node3")
	w.must(w.Partition(w.ctx, n.Name))
	for _, address := range n.Addresses {
		r, err := w.Sh(w.ctx, master.Name, "ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=1", address, "true")
		if err != nil || r.Code != 255 || !strings.Contains(r.Stderr, "timed out") {
			t.Errorf("ssh %s over a cut: %+v, %v", address, r.Result, err)
		}
	}
	if err := w.LoginAt(w.ctx, master, w.node("node2"), "node2"); err != nil {
		t.Errorf("between nodes on one side: %v", err)
	}
	w.until("the node that is cut off is stale", func(ctx context.Context) error {
		r, err := w.Sh(ctx, n.Name, "noded", "status")
		if err == nil && !strings.Contains(strings.ToLower(r.Stdout), "stale") {
			err = errors.New(r.Stdout)
		}
		return err
	})
	w.must(w.Heal(w.ctx))
	w.settle()
	w.must(w.logins(master, n, nil))
	w.clean()
}

// TestMachinesLeaveNothing: the end of the holder, however it comes, is the end
// of everything that it made on this machine.
func TestMachinesLeaveNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("needs whole clusters, which -short leaves out")
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	mounts, devices := traces(t)
	c, err := lab.Up(ctx, lab.Config{Nodes: 2, Isolation: lab.IsolationNetns, Dir: t.TempDir(), Bare: true})
	skipWithoutMachines(t, err)
	st, err := c.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(st.Holder, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, n := range st.Nodes {
		for _, pid := range []int{n.Init, n.PIDs.SSHD, n.PIDs.Noded, n.PIDs.Masterd} {
			if _, err := kit.Until(ctx, limit, func(context.Context) error {
				if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("process %d of %s is there: %v", pid, n.Name, err)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
	}
	if m, d := traces(t); m != mounts || d != devices {
		t.Errorf("left:\n%s%s\nbefore:\n%s%s", m, d, mounts, devices)
	}
	if err := lab.Sweep(c.Dir()); err != nil {
		t.Error(err)
	}
}

// traces are the mounts and network devices of this process's namespaces.
func traces(t *testing.T) (mounts, devices string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		devices += i.Name + " "
	}
	return string(b), devices
}
