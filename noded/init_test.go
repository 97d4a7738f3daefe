package noded

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/rpc"
)

const ageKey = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

func TestInit(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.masterd.start()
	h.up()
	if s := h.status(); s.State != "none" {
		t.Errorf("state %q before init", s.State)
	}
	r := initRequest(h)
	r.NoRecoveryKey, r.RecoveryRecipient = false, []string{ageKey}
	reply, err := h.init(r)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Completed || reply.Version != (cluster.Version{Epoch: 1, Version: 1}) {
		t.Errorf("reply %+v", reply)
	}
	info, err := os.Stat(reply.RecoveryFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("recovery file: %v, %v", info, err)
	}
	if !strings.HasPrefix(h.read(reply.RecoveryFile), "-----BEGIN AGE ENCRYPTED FILE-----") {
		t.Error("the recovery file is not what age writes")
	}
	m := mustVerify(t, h.masterd.world.boot.Map)
	if m.Recovery.Threshold != 1 || len(m.Recovery.Keys) != 1 || m.LeaseSeconds != 120 || m.Policy != cluster.PolicyStrict {
		t.Errorf("first map: %+v", m.Map)
	}
	s := h.status()
	if s.State != "member" || s.Role != "master" || s.Node != reply.Node || !s.Fresh || s.Problem != "" {
		t.Errorf("status %+v", s)
	}
	if keys := h.authorizedKeys(); strings.Count(keys, "rolekey:"+reply.Node.String()) != 1 {
		t.Errorf("authorized_keys:\n%s", keys)
	}
	_, err = h.init(r)
	wantCode(t, "second init", err, cluster.CodeConflict)
	h.up()
	if s := h.status(); s.State != "member" || s.Fresh {
		t.Errorf("after a restart: %+v", s)
	}
}

func TestInitRefuses(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.masterd.start()
	h.up()
	for name, change := range map[string]func(*rpc.InitRequest){
		"no recovery decision": func(r *rpc.InitRequest) { r.NoRecoveryKey = false },
		"both":                 func(r *rpc.InitRequest) { r.RecoveryRecipient = []string{ageKey} },
		"private key pasted":   func(r *rpc.InitRequest) { r.NoRecoveryKey, r.RecoveryRecipient = false, []string{"AGE-SECRET-KEY-1"} },
		"lease too short":      func(r *rpc.InitRequest) { r.SSHLeaseSeconds = 1 },
		"lease too long":       func(r *rpc.InitRequest) { r.LeaseSeconds = 1 << 30 },
		"negative pool":        func(r *rpc.InitRequest) { r.CandidatePoolSize = -1 },
		"its own address for the cluster": func(r *rpc.InitRequest) {
			r.Addresses = []netip.Addr{h.addr()}
			r.MasterAddress = &cluster.MasterAddress{Address: netip.PrefixFrom(h.addr(), 32), Netdev: "lo"}
		},
		"device with a path": func(r *rpc.InitRequest) {
			r.MasterAddress = &cluster.MasterAddress{Address: netip.MustParsePrefix("192.0.2.9/24"), Netdev: "../lo"}
		},
		"multicast address": func(r *rpc.InitRequest) { r.Addresses = []netip.Addr{netip.IPv6LinkLocalAllNodes().WithZone("")} },
	} {
		r := initRequest(h)
		change(&r)
		_, err := h.init(r)
		wantCode(t, name, err, cluster.CodeBadFormat)
	}
	if h.masterd.boots != 0 || exists(h.d.initDir()) {
		t.Error("a refused init left traces")
	}
}

func TestInitWithoutMasterd(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.up()
	_, err := h.init(initRequest(h))
	wantCode(t, "init", err, cluster.CodeUnavailable)
	if !strings.Contains(cluster.HintOf(err), "systemctl start rolekey-masterd") {
		t.Errorf("hint %q", cluster.HintOf(err))
	}
	if exists(h.d.initDir()) {
		t.Error("something is left behind")
	}
}

func TestInitWithoutAddress(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.masterd.start()
	h.cfg.Addresses = nil
	h.up()
	_, err := h.init(initRequest(h))
	if wantCode(t, "init", err, cluster.CodeBadFormat); !strings.Contains(cluster.HintOf(err), "--address") {
		t.Errorf("hint %q", cluster.HintOf(err))
	}
}

var errCrash = errors.New("crash")

// TestG7InitCrash crashes before every step; running init again completes it,
// with the same cluster and node once they were chosen.
func TestG7InitCrash(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"request", "keys", "recovery", "bootstrap", "write", "map", "commit"} {
		t.Run(step, func(t *testing.T) {
			h := newHost(t)
			h.masterd.start()
			h.upWith(func(s string) error {
				if s == step {
					return errCrash
				}
				return nil
			})
			r := initRequest(h)
			r.NoRecoveryKey, r.RecoveryRecipient = false, []string{ageKey}
			if _, err := h.init(r); err == nil {
				t.Fatal("init did not crash")
			}
			h.up()
			if s := h.status(); s.State != "initializing" {
				t.Errorf("state %q", s.State)
			}
			checkOtherInit(t, h, step)
			reply, err := h.init(r)
			if err != nil {
				t.Fatal(err)
			}
			if reply.Completed != (step != "request") {
				t.Errorf("completed: %v", reply.Completed)
			}
			if s := h.status(); s.State != "member" || s.Cluster != h.masterd.world.id || s.Node != reply.Node {
				t.Errorf("status %+v", s)
			}
			if exists(h.d.initDir()) {
				t.Error("the temporary folder is still there")
			}
			if !exists(reply.RecoveryFile) {
				t.Error("no recovery file")
			}
		})
	}
}

// checkOtherInit makes sure that an interrupted init is not forgotten.
func checkOtherInit(t *testing.T, h *host, step string) {
	t.Helper()
	if step == "request" {
		return
	}
	other := initRequest(h)
	other.Cluster = "other.example"
	_, err := h.init(other)
	if wantCode(t, "init of another cluster", err, cluster.CodeConflict); !strings.Contains(cluster.HintOf(err), "gnt-cluster init dev.example") {
		t.Errorf("hint %q", cluster.HintOf(err))
	}
}

func TestG7InitReplyLost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.masterd.start()
	h.masterd.setFail(failOnce(rpc.LocalBootstrap))
	h.up()
	if _, err := h.init(initRequest(h)); err == nil {
		t.Fatal("the reply was not lost")
	}
	reply, err := h.init(initRequest(h))
	if err != nil {
		t.Fatal(err)
	}
	if !reply.Completed || h.masterd.boots != 2 || h.masterd.world.id != reply.Cluster {
		t.Errorf("reply %+v after %d bootstraps", reply, h.masterd.boots)
	}
}

func TestLeaveGivesUpInit(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.masterd.start()
	h.upWith(func(s string) error {
		if s == "write" {
			return errCrash
		}
		return nil
	})
	if _, err := h.init(initRequest(h)); err == nil {
		t.Fatal("init did not crash")
	}
	if err := h.post(rpc.LocalLeave, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	if s := h.status(); s.State != "none" {
		t.Errorf("state %q", s.State)
	}
	if !h.masterd.destroyed {
		t.Error("masterd keeps its keys")
	}
	err := h.post(rpc.LocalLeave, struct{}{}, nil)
	wantCode(t, "leave", err, cluster.CodeNoMap)
}

func TestOneChangeAtATime(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.masterd.start()
	inside, release := make(chan struct{}), make(chan struct{})
	h.upWith(func(s string) error {
		if s == "keys" {
			close(inside)
			<-release
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { _, err := h.init(initRequest(h)); done <- err }()
	<-inside
	if s := h.status(); s.State != "initializing" {
		t.Errorf("state %q", s.State)
	}
	_, err := h.init(initRequest(h))
	wantCode(t, "second init", err, cluster.CodeBusy)
	close(release)
	if err := <-done; err != nil {
		t.Fatal(fmt.Errorf("first init: %w", err))
	}
}
