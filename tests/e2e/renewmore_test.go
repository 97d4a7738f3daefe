package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// certParts are the renewals that replace certificates of nodes.
var certParts = []string{"--new-node-certificates", "--new-cluster-certificate"}

// renewing begins a renewal and returns the number of its job.
func (w *world) renewing(part string) int64 {
	w.t.Helper()
	r := w.admin(0, "gnt-cluster", "renew-crypto", part, "-f", "--submit", "--json")
	var made struct{ Job int64 }
	w.must(json.Unmarshal([]byte(r.Stdout), &made))
	return made.Job
}

// jobIs returns nil if a job has this status.
func (w *world) jobIs(id int64, statuses ...string) error {
	r, err := w.tryAdmin("gnt-job", "info", "--json", strconv.FormatInt(id, 10))
	if err == nil {
		err = r.Want(0)
	}
	var j struct{ Status, Error string }
	if err == nil {
		err = json.Unmarshal([]byte(r.Stdout), &j)
	}
	if err == nil && !slices.Contains(statuses, j.Status) {
		err = fmt.Errorf("job %d is %s %s", id, j.Status, j.Error)
	}
	return err
}

// ends waits until a renewal has succeeded everywhere and verify says so.
func (w *world) ends(id int64, part string, old map[string]map[string][]byte) {
	w.t.Helper()
	w.until("the renewal has succeeded", func(context.Context) error { return w.jobIs(id, "success") })
	w.settle()
	w.until("nothing is left of what was before "+part, func(context.Context) error { return w.leftOf(part, old) })
	w.unmarked()
	w.clean()
}

// unmarked waits until verify knows of no node that a renewal has not reached, and
// of no former authority.
func (w *world) unmarked() {
	w.t.Helper()
	w.until("no node is left to be renewed", func(context.Context) error {
		r, err := w.tryAdmin("gnt-cluster", "verify")
		if err == nil && strings.Contains(r.Stdout, "has not reached it") {
			err = fmt.Errorf("verify says:\n%s", r.Stdout)
		}
		return err
	})
}

// TestJoinDuringRenewal: a node joins while certificates, or the authority, are
// renewed. It has what the others have in the end.
func TestJoinDuringRenewal(t *testing.T) {
	for _, part := range certParts {
		t.Run(part[2:], func(t *testing.T) {
			w := rested(t)
			old := w.material()
			w.admin(0, "gnt-node", "remove", "node5")
			w.expect(0, "", "node5", "", "noded", "leave", "--yes")
			token := w.token("node5.example")
			// One that does not answer holds the renewal in its first phase for 5 s.
			w.must(w.Signal(w.ctx, "node4", lab.Noded, syscall.SIGSTOP))
			id := w.renewing(part)
			w.until("the renewal runs", func(context.Context) error { return w.jobIs(id, "running") })
			w.expect(0, "is now a node", "node5", token, "noded", "join", "-")
			if err := w.jobIs(id, "running"); err != nil { // the machine is slow
				t.Logf("when node5 had joined: %v", err)
			}
			w.must(w.Signal(w.ctx, "node4", lab.Noded, syscall.SIGCONT))
			w.ends(id, part, old)
			w.refused(kit.Caller{}, w.Noded(w.node("node5")), "/v1/state", "no_certificate")
		})
	}
}

// beginTo calls some nodes from node2, and logs in to them.
func (w *world) beginTo(nodes []lab.Node) *traffic {
	t := &traffic{world: w, over: make(chan struct{})}
	for _, n := range nodes {
		t.group.Go(func() { t.every(10*callEvery, "call to "+n.Short(), &t.calls, onceMore(t.caller("node2", n))) })
		if f := w.node("node2"); f.Name != n.Name {
			t.group.Go(func() {
				t.every(loginEvery, "login to "+n.Short(), &t.logins, func() error { return t.Login(t.ctx, f, n) })
			})
		}
	}
	return t
}

// onceMore calls again when the connection has ended, as our own client does: one
// that becomes the master has its connections closed, and opens new ones.
func onceMore(call func() error) func() error {
	return func() error {
		err := call()
		if err != nil && (strings.Contains(err.Error(), "conn not usable") || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
			err = call()
		}
		return err
	}
}

// TestG7CertificatesUnderTheNextMaster: masterd of the master, or noded of a node,
// is killed in the midst of a renewal of certificates, and of the authority. No
// call to another node fails.
func TestG7CertificatesUnderTheNextMaster(t *testing.T) {
	for _, part := range certParts {
		for _, victim := range []string{lab.Masterd, lab.Noded} {
			t.Run(part[2:]+"/"+victim, func(t *testing.T) {
				w := rested(t)
				old := w.material()
				killed := w.master()
				healthy := w.nodes() // the noded of the master serves on
				if victim == lab.Noded {
					killed, healthy = "node4", w.others("node4")
				}
				load := w.beginTo(healthy)
				w.until("there is traffic", load.more(20, 3))
				id := w.renewing(part)
				w.must(w.Kill(w.ctx, killed, victim))
				w.must(w.Start(w.ctx, killed))
				w.until("the renewal has succeeded", func(context.Context) error { return w.jobIs(id, "success") })
				load.end(part)
				w.ends(id, part, old)
			})
		}
	}
}

// TestNodeMissesRenewal: a node that was off during a renewal is named, and marked
// until the master's own job has caught it up.
func TestNodeMissesRenewal(t *testing.T) {
	for _, part := range certParts {
		t.Run(part[2:], func(t *testing.T) {
			w := rested(t)
			old := w.material()
			w.must(w.Stop(w.ctx, "node4"))
			r := w.admin(3, "gnt-cluster", "renew-crypto", part, "-f")
			if !strings.Contains(r.Stderr, "node4") {
				t.Errorf("node4 is not named:\n%s", r.Stderr)
			}
			if r := w.admin2("gnt-cluster", "verify"); !strings.Contains(r.Stdout, "has not reached it") {
				t.Errorf("verify does not tell of the mark:\n%s", r.Stdout)
			}
			w.must(w.Start(w.ctx, "node4"))
			w.settle()
			w.until("nothing is left of what was before "+part, func(context.Context) error { return w.leftOf(part, old) })
			w.unmarked()
			w.clean()
		})
	}
}

// TestG7VoterMissedRenewal: a voter was off while the authority was changed, and
// comes back when the master is dead. The third one is elected with its vote.
func TestG7VoterMissedRenewal(t *testing.T) {
	w := rested(t)
	old := w.material()
	master := w.master()
	away := "node2"
	if master == away {
		away = "node3"
	}
	w.must(w.Stop(w.ctx, away))
	w.admin(3, "gnt-cluster", "renew-crypto", "--new-cluster-certificate", "-f")
	w.must(w.Stop(w.ctx, master))
	w.must(w.Start(w.ctx, away))
	now, took, err := w.AwaitMaster(w.ctx, limit, master)
	w.must(err)
	t.Logf("%s is master %s after %s was back", now, took, away)
	w.must(w.Start(w.ctx, master))
	w.settle()
	w.until("nothing is left of what was before", func(context.Context) error { return w.leftOf("--new-cluster-certificate", old) })
	w.unmarked()
	w.clean()
}

// TestCandidateMissesRenewal: a candidate that was off while signing and SSH keys
// were replaced is named, and gets new ones from the master's own jobs.
func TestCandidateMissesRenewal(t *testing.T) {
	w := rested(t)
	old := w.material()
	away := "node2"
	if w.master() == away {
		away = "node3"
	}
	w.must(w.Stop(w.ctx, away))
	w.admin(3, "gnt-cluster", "renew-crypto", "--new-signing-keys", "--new-ssh-keys", "-f")
	if r := w.admin2("gnt-cluster", "verify"); !strings.Contains(r.Stdout, "renewal of signing keys has not reached it") {
		t.Errorf("verify does not tell of the signing key:\n%s", r.Stdout)
	}
	if r := w.admin(0, "gnt-cluster", "renew-crypto", "--status"); !strings.Contains(r.Stdout, away+".example: signing key") {
		t.Errorf("--status does not tell of the signing key:\n%s", r.Stdout)
	}
	w.must(w.Start(w.ctx, away))
	w.settle()
	for _, part := range []string{"--new-signing-keys", "--new-ssh-keys"} {
		w.until("nothing is left of what was before "+part, func(context.Context) error { return w.leftOf(part, old) })
	}
	w.unmarked()
	if r := w.admin(0, "gnt-cluster", "renew-crypto", "--status"); strings.Contains(r.Stdout, away+".example: signing key") {
		t.Errorf("--status still tells of the signing key:\n%s", r.Stdout)
	}
	w.clean()
}
