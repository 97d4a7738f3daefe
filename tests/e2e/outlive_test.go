package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"rolekey/internal/lab"
)

// TestGanetiClientOutlivesMaster: a script that works with Ganeti's own client at the
// cluster address goes on when the master is killed, once it asks again where
// Ganeti's client raises an error.
func TestGanetiClientOutlivesMaster(t *testing.T) {
	script, err := filepath.Abs("testdata/ganeti_outlive.py")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("../../tools/install/fetch-ganeti-client.sh").Output()
	if err != nil {
		t.Skipf("Ganeti's client cannot be had here: %v", err)
	}
	w := machines(t)
	w.threeVoters()
	first := w.master()
	defer func() {
		w.until("the first master is master again", func(context.Context) error {
			if w.master() == first {
				return nil
			}
			r, err := w.tryAdmin("gnt-cluster", "master-failover", "--to", first)
			if err == nil {
				err = r.Want(0) // a node that was just started may be too far behind
			}
			return err
		})
		w.rest(w.node(first).Short())
	}()
	address := w.freeAddress(first)
	w.admin(0, "gnt-cluster", "modify", "--master-netdev", "eth0", "--master-ip", address)
	defer w.admin(0, "gnt-cluster", "modify", "--no-master-ip")
	w.script(first, `umask 077; printf 'ganeti password\n' >/tmp/pw; gnt-cluster rapi-user add ganeti --permission write --password-file /tmp/pw; rm /tmp/pw`)
	defer w.admin(0, "gnt-cluster", "rapi-user", "remove", "ganeti")
	watcher := w.others(first)[0]
	bring := func(from, to string) string { // ours may be where the node has its own
		w.must(exec.Command("cp", "-r", from, w.node(watcher.Name).File(to)).Run())
		return to
	}
	var modules []string
	for i, dir := range filepath.SplitList(strings.TrimSpace(string(out))) {
		modules = append(modules, bring(dir, fmt.Sprintf("/root/modules%d", i)))
	}
	const changes = 20
	p, err := w.Spawn(w.ctx, lab.Cmd{
		Node: watcher.Name, Stderr: t.Output(), Env: []string{"PYTHONPATH=" + strings.Join(modules, ":")},
		Args: []string{
			"/usr/bin/python3", bring(script, "/root/outlive.py"), strings.Split(address, "/")[0], "5080", "ganeti", "ganeti password",
			"/var/lib/rolekey/node/ca.pem", watcher.Name, strconv.Itoa(changes),
		},
	})
	w.must(err)
	done := 0
	for lines := bufio.NewScanner(p.Stdout); lines.Scan(); {
		t.Log(lines.Text())
		if strings.HasPrefix(lines.Text(), "done ") {
			if done++; done == 4 {
				w.must(w.Kill(w.ctx, first, lab.All))
			}
		}
	}
	code, err := p.Wait()
	w.must(err)
	if code != 0 || done != changes {
		t.Errorf("the script ends with %d after %d changes", code, done)
	}
	next, _, err := w.AwaitMaster(w.ctx, limit, first)
	w.must(err)
	t.Logf("%s was the master, %s is", first, next)
	w.must(w.Start(w.ctx, first))
	w.settle()
}

// threeVoters makes all three machines candidates that vote.
func (w *world) threeVoters() {
	w.t.Helper()
	w.rest("node1", "node2", "node3")
	w.until("all three vote", func(context.Context) error {
		voters := 0
		for _, c := range w.readMap().Candidates {
			if c.Voter {
				voters++
			}
		}
		if voters != 3 {
			return fmt.Errorf("%d voters", voters)
		}
		return nil
	})
	w.settle()
}

// freeAddress is one of a node's network that nobody has.
func (w *world) freeAddress(node string) string {
	own := w.node(node).Addresses[0]
	return own[:strings.LastIndexByte(own, '.')+1] + "199/24"
}
