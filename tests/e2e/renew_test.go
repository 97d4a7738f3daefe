package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rolekey/internal/lab"
	"rolekey/internal/paths"
	"rolekey/tests/kit"
)

// While keys are replaced every node is called so often, and every permitted
// pair logs in so often, or as often as the machine can: ssh(1) is dear.
const (
	callEvery  = 10 * time.Millisecond
	loginEvery = time.Second
	// keptCalls are made on a connection before it is opened anew.
	keptCalls = 10
)

// traffic is what a cluster does while its keys are replaced. Nothing of it may
// fail.
type traffic struct {
	*world
	group sync.WaitGroup
	over  chan struct{}

	mu            sync.Mutex
	calls, logins int
	failed        []string
}

// begin calls every node from a candidate with its certificate in force, on kept
// connections and on new ones, and logs in from every candidate to every node.
func (w *world) begin() *traffic {
	t := &traffic{world: w, over: make(chan struct{})}
	for _, n := range w.nodes() {
		t.group.Go(func() { t.every(callEvery, "call to "+n.Short(), &t.calls, t.caller("node2", n)) })
		for _, from := range []string{"node1", "node2", "node3"} {
			f := w.node(from)
			if f.Name == n.Name {
				continue
			}
			t.group.Go(func() {
				t.every(loginEvery, "login from "+from+" to "+n.Short(), &t.logins, func() error { return t.Login(t.ctx, f, n) })
			})
		}
	}
	return t
}

// every does something at a pace until the traffic is over.
func (t *traffic) every(pace time.Duration, what string, count *int, do func() error) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-t.over:
			return
		}
		err := do()
		t.mu.Lock()
		*count++
		if err != nil {
			t.failed = append(t.failed, fmt.Sprintf("%s %s: %v", time.Now().Format("05.000"), what, err))
		}
		t.mu.Unlock()
	}
}

// caller calls a node with the certificate that a candidate holds now. As our own
// client does, it opens a connection anew when its certificate is another, and calls
// once more if that was replaced during the call.
func (t *traffic) caller(from string, to lab.Node) func() error {
	var kept *kit.Conn
	var l *kit.Loot
	var with []byte
	n, used := t.node(from), 0
	path := paths.Layout{Root: n.Root}.CandidateCert()
	call := func() error {
		now, err := os.ReadFile(path) // inodes are used again
		if err != nil {
			return fmt.Errorf("read the certificate: %w", err)
		}
		if kept != nil && (used == keptCalls || !bytes.Equal(now, with)) {
			kept.Close()
			kept = nil
		}
		if l == nil || !bytes.Equal(now, with) {
			if l, err = kit.StealWhole(t.ctx, n); err != nil {
				return fmt.Errorf("read the certificate: %w", err)
			}
			with = now
		}
		if kept == nil {
			used = 0
			if kept, err = l.Caller(l.Candidate).Open(t.ctx, t.Noded(to)); err != nil {
				return err
			}
		}
		used++
		what := "/v1/map?from=1.1000000" // what there is after it: nothing
		if used == keptCalls {
			what = "/v1/state" // of the candidates' tier
		}
		a, err := kept.Do(t.ctx, "GET", what, nil, nil)
		if err == nil && !a.OK() {
			err = fmt.Errorf("%s: %s", a, a.Message)
		}
		if err != nil {
			kept.Close()
			kept = nil
		}
		return err
	}
	return func() error {
		err := call()
		if now, readErr := os.ReadFile(path); err != nil && readErr == nil && !bytes.Equal(now, with) {
			err = call()
		}
		return err
	}
}

// more reports whether so many calls and logins were made since now.
func (t *traffic) more(calls, logins int) func(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	calls, logins = t.calls+calls, t.logins+logins
	return func(context.Context) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.calls < calls || t.logins < logins {
			return fmt.Errorf("%d of %d calls, %d of %d logins", t.calls, calls, t.logins, logins)
		}
		return nil
	}
}

// end stops the traffic, none of which may have failed.
func (t *traffic) end(what string) {
	t.t.Helper()
	close(t.over)
	t.group.Wait()
	t.t.Logf("%s: %d calls, %d logins, %d failed", what, t.calls, t.logins, len(t.failed))
	for _, f := range t.failed[:min(len(t.failed), 10)] {
		t.t.Errorf("%s: %s", what, f)
	}
}

// TestRenewalInterruptsNothing replaces keys of every kind under load: no call and
// no login fails, verify is content, and what was there before is nowhere.
func TestRenewalInterruptsNothing(t *testing.T) {
	w := rested(t)
	for _, part := range []string{"--new-ssh-keys", "--new-gossip-key", "--new-signing-keys", "--new-rapi-certificate", "--new-node-certificates", "--new-cluster-certificate"} {
		if r := w.admin2("gnt-cluster", "renew-crypto", part, "-f", "--dry-run"); strings.Contains(r.Stderr, "This release does not renew") {
			t.Logf("%s: not in this release", part)
			continue
		}
		old := w.material()
		load := w.begin()
		w.until("there is traffic", load.more(100, 12))
		began := time.Now()
		r := w.admin(0, "gnt-cluster", "renew-crypto", part, "-f")
		took := time.Since(began)
		w.until("there is traffic afterwards", load.more(100, 24)) // two by each pair, since one was under way
		load.end(part)
		t.Logf("%s took %s\n%s", part, took.Round(time.Millisecond), r.Stderr)
		w.settle()
		w.until("nothing is left of what was before "+part, func(context.Context) error { return w.leftOf(part, old) })
		w.clean()
	}
}

// admin2 runs a command on the master, however it ends.
func (w *world) admin2(args ...string) kit.Run {
	w.t.Helper()
	r, err := w.tryAdmin(args...)
	w.must(err)
	return r
}

// TestG7RenewalGoesOnUnderTheNextMaster kills the master's masterd in the middle.
func TestG7RenewalGoesOnUnderTheNextMaster(t *testing.T) {
	w := rested(t)
	old := w.material()
	before := w.master()
	r := w.admin(0, "gnt-cluster", "renew-crypto", "--new-ssh-keys", "--new-gossip-key", "--new-signing-keys", "--submit", "--json")
	var made struct{ Job int64 }
	w.must(json.Unmarshal([]byte(r.Stdout), &made))
	w.must(w.Kill(w.ctx, before, lab.Masterd))
	w.until("another master is there", func(ctx context.Context) error {
		if name, err := w.Master(ctx); err != nil || name == before {
			return fmt.Errorf("the master is %s: %w", name, err)
		}
		return nil
	})
	w.must(w.Start(w.ctx, before))
	w.until("the renewal is over", func(context.Context) error {
		r, err := w.tryAdmin("gnt-cluster", "renew-crypto", "--status", "--json")
		var j struct {
			ID     int64
			Status string
		}
		if err == nil {
			err = json.Unmarshal([]byte(r.Stdout), &j)
		}
		if err == nil && (j.ID != made.Job || j.Status != "success") {
			err = fmt.Errorf("job %d is %s", j.ID, j.Status)
		}
		return err
	})
	w.settle()
	for _, part := range []string{"--new-ssh-keys", "--new-gossip-key"} {
		w.until("nothing is left of what was before "+part, func(context.Context) error { return w.leftOf(part, old) })
	}
	w.clean()
}

// material is what renewals replace: what to look for, by part and by what it is.
func (w *world) material() map[string]map[string][]byte {
	w.t.Helper()
	found := map[string]map[string][]byte{}
	note := func(part, what string, text []byte) {
		if found[part] == nil {
			found[part] = map[string][]byte{}
		}
		if len(text) > 0 {
			found[part][what] = text
		}
	}
	for _, n := range w.nodes() {
		at := paths.Layout{Root: n.Root}
		l := w.rob(n.Name)
		note("--new-gossip-key", "the gossip key", l.Gossip)
		if l.Signing != nil {
			note("--new-signing-keys", "the signing key of "+n.Name, l.Signing.Seed())
			note("--new-ssh-keys", "the SSH key of "+n.Name, body(l.SSHKey))
		}
		for _, f := range []string{at.ServerKey(), at.IdentityKey()} {
			text, err := os.ReadFile(f)
			w.must(err)
			note("--new-node-certificates", f, body(text))
		}
	}
	found["--new-cluster-certificate"] = found["--new-node-certificates"]
	for _, n := range w.nodes() {
		if pub, err := os.ReadFile(paths.Layout{Root: n.Root}.SSHKey() + ".pub"); err == nil {
			note("--new-ssh-keys", "the line of "+n.Name, []byte(strings.Fields(string(pub))[1]))
		}
	}
	return found
}

// body is the middle of a PEM file, which is nobody else's.
func body(text []byte) []byte {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) < 3 {
		return text
	}
	return []byte(lines[len(lines)/2])
}

// leftOf looks for what was before a renewal, in all files of all nodes.
func (w *world) leftOf(part string, old map[string]map[string][]byte) error {
	for _, n := range w.nodes() {
		l, err := kit.Steal(n)
		if err != nil {
			return err
		}
		if seed := old[part]["the signing key of "+n.Name]; part == "--new-signing-keys" && l.Signing != nil && bytes.Equal(seed, l.Signing.Seed()) {
			return fmt.Errorf("%s has its old signing key", n.Name)
		}
		err = filepath.WalkDir(n.Root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || filepath.Base(filepath.Dir(path)) == "map" {
				return nil // it is gone, or one of the maps, which are history and public
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			for what, secret := range old[part] {
				if filepath.Base(path) == "sshd.log" && strings.HasPrefix(what, "the line of ") {
					continue // which public keys sshd has asked about is history, too
				}
				if bytes.Contains(text, secret) {
					return fmt.Errorf("%s holds %s", path, what)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
