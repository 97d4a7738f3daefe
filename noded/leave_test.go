package noded

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// TestG8LeaveKeepsForeignLines: what is ours goes, what is not stays.
func TestG8LeaveKeepsForeignLines(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := joined(t, w)
	w.promote(h, false)
	id := h.member().id.Node
	w.mustPush(id)
	const mine = "# mine\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me"
	write(t, h.cfg.SSH.AuthorizedKeys, []byte(h.authorizedKeys()+mine))
	if !exists(h.cfg.Paths.SSHDropIn()) {
		t.Error("there is no drop-in for ssh")
	}
	if err := h.post(rpc.LocalLeave, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	if got := h.authorizedKeys(); got != mine {
		t.Errorf("authorized_keys:\n%s", got)
	}
	if got := h.read(h.cfg.SSH.KnownHosts); got != "" {
		t.Errorf("known_hosts:\n%s", got)
	}
	if exists(h.cfg.Paths.SSHDropIn()) || exists(h.cfg.Paths.NodeDir()) || exists(h.cfg.Paths.MapDir()) {
		t.Error("something of the cluster is left")
	}
	checkNoSecrets(t, h)
	if s := h.status(); s.State != "none" || !h.masterd.destroyed {
		t.Errorf("status %+v", s)
	}
	var last rpc.LocalViewReply
	for len(h.masterd.views) > 0 {
		last = <-h.masterd.views
	}
	if !last.Cluster.IsZero() {
		t.Error("masterd still thinks it is in a cluster")
	}
	w.demote(id)
	w.next(func(*candmap.Map) { w.nodes = w.nodes[:1] })
	if _, err := h.join(w.token(h.name)); err != nil {
		t.Errorf("joining again: %v", err)
	}
}

// checkNoSecrets looks for private keys in all that noded keeps.
func checkNoSecrets(t *testing.T, h *host) {
	t.Helper()
	err := filepath.Walk(h.cfg.Paths.StateDir(), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		if strings.Contains(h.read(path), "PRIVATE KEY") {
			t.Errorf("%s holds a private key", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestG7LeaveInterrupted: what cannot be removed at first is removed by the
// next run, and until then the node takes part as before.
func TestG7LeaveInterrupted(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := joined(t, w)
	h.masterd.setFail(failOnce(rpc.LocalKeysDestroy))
	if err := h.post(rpc.LocalLeave, struct{}{}, nil); err == nil {
		t.Fatal("leave did not fail")
	}
	if s := h.status(); s.State != "member" {
		t.Errorf("state %q", s.State)
	}
	if err := h.post(rpc.LocalLeave, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	if s := h.status(); s.State != "none" {
		t.Errorf("state %q", s.State)
	}
}

// A node that was removed while it was away hears it from the candidates.
func TestRemovedWhileAway(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := joined(t, w)
	id := h.member().id.Node
	h.stop()
	w.next(func(*candmap.Map) { w.nodes = w.nodes[:1] })
	w.mustPush(first.member().id.Node)
	h.up()
	m := h.member()
	await(t, m, "the node learns that it is removed", m.removed)
	if s := h.status(); s.State != "removed" || !strings.Contains(s.Problem, "noded leave --yes") || s.Node != id {
		t.Errorf("status %+v", s)
	}
	_, err := h.join(w.token(h.name))
	wantCode(t, "joining again without leaving", err, cluster.CodeConflict)
}
