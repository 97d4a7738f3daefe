package masterd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// halfway acknowledges everything, with problems on one node.
type halfway struct {
	bad      cluster.NodeID
	problems []string
	at       cluster.Version
}

func (h halfway) PutMap(_ context.Context, node cluster.NodeID, _ rpc.MapDelivery) (rpc.MapAck, error) {
	ack := rpc.MapAck{Node: node, Version: h.at, Durable: true, Fresh: true}
	if node == h.bad {
		ack.Problems = h.problems
	}
	return ack, nil
}

func (h halfway) PutBeacon(context.Context, cluster.NodeID, candmap.Envelope) (rpc.MapAck, error) {
	return rpc.MapAck{}, nil
}

// TestG4ProblemsAreNotSuccess: a node that took the map and could not write its
// authorized_keys still lets the old key in, so it does not count.
func TestG4ProblemsAreNotSuccess(t *testing.T) {
	ids := []cluster.NodeID{statetest.ID(1), statetest.ID(2), statetest.ID(3)}
	at := cluster.Version{Epoch: 1, Version: 5}
	for name, c := range map[string]struct {
		problems []string
		missed   bool
	}{
		"none":            {nil, false},
		"authorized_keys": {[]string{"apply: authorized_keys does not follow the map: not a plain file"}, true},
		"disk full":       {[]string{"current: no space left on device"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := &pusher{call: halfway{ids[1], c.problems, at}, reach: newReach(), now: time.Now}
			o := p.toAll(t.Context(), delivery{nodes: ids, at: at}, nil)
			p.wait()
			if got := slices.Contains(o.missed, ids[1]); got != c.missed || len(o.effective)+len(o.missed) != len(ids) {
				t.Errorf("effective %d, missed %v; the node missed: %t, want %t", len(o.effective), o.missed, got, c.missed)
			}
			if p.reach.of(ids[1]).enforces() == c.missed {
				t.Error("the reconciler would not try the node again")
			}
		})
	}
}

// TestSlowNodeIsNotWaitedFor: a node that always answers late delays the first
// publications only.
func TestSlowNodeIsNotWaitedFor(t *testing.T) {
	r, id, now := newReach(), statetest.ID(2), time.Now()
	for range givenUpAsSlow {
		if r.of(id).givenUp() {
			t.Fatal("given up too early")
		}
		r.answered(id, rpc.MapAck{}, now, 2*slowAnswer)
	}
	if !r.of(id).givenUp() {
		t.Error("still waited for")
	}
	r.answered(id, rpc.MapAck{}, now, slowAnswer/2)
	if r.of(id).givenUp() {
		t.Error("a quick answer does not bring it back")
	}
}

// TestAckTimesAreBounded: a hostile node cannot name times that break reports.
func TestAckTimesAreBounded(t *testing.T) {
	r, id, now := newReach(), statetest.ID(2), time.Now()
	far := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	r.answered(id, rpc.MapAck{LeaseUntil: far, SSHUntil: far}, now, 0)
	rpcUntil, sshUntil := r.ends(id, time.Minute, time.Hour, now)
	if rpcUntil.After(now.Add(candmap.MaxLease)) || sshUntil.After(now.Add(candmap.MaxLease+candmap.MaxSSHLease)) {
		t.Errorf("ends %s and %s", rpcUntil, sshUntil)
	}
}

// TestG4BoundsWhereSSHDAsks: SSH ends with the lease, unless the node may have
// heard that authorized_keys is in use again.
func TestG4BoundsWhereSSHDAsks(t *testing.T) {
	id, now := statetest.ID(2), time.Now()
	lease := now.Add(time.Minute)
	for name, c := range map[string]struct {
		authorize cluster.SSHAuthorize
		policy    cluster.Policy
		asks      bool
		want      time.Duration // after the lease; negative: no bound
	}{
		"it asks":              {cluster.AuthorizeCommand, cluster.PolicyStrict, true, 0},
		"best effort":          {cluster.AuthorizeCommand, cluster.PolicyBestEffort, true, -1},
		"it cannot":            {cluster.AuthorizeCommand, cluster.PolicyStrict, false, time.Hour},
		"it may not have kept": {cluster.AuthorizeFile, cluster.PolicyStrict, true, time.Hour},
	} {
		r := newReach()
		r.answered(id, rpc.MapAck{LeaseUntil: lease, SSHUntil: lease, SSHCommand: c.asks}, now, 0)
		p := state.DefaultParams
		p.SSHAuthorize, p.Policy, p.LeaseSeconds, p.SSHLeaseSeconds = c.authorize, c.policy, 60, 3600
		got := r.bounds(&state.Node{UUID: id}, p, now)
		switch {
		case c.want < 0 && got.SSHUntil != nil, c.want >= 0 && got.SSHUntil == nil:
			t.Errorf("%s: %v", name, got.SSHUntil)
		case c.want >= 0 && !got.SSHUntil.Equal(candmap.Stamp(lease.Add(c.want))):
			t.Errorf("%s: %s after the lease, want %s", name, got.SSHUntil.Sub(lease), c.want)
		}
	}
}

// TestProblemOfANode: why a node did not answer is one line of bounded length,
// whatever it said, and is told only until it answers.
func TestProblemOfANode(t *testing.T) {
	id, now := statetest.ID(2), time.Now()
	for name, answers := range map[string]func(*reach){
		"back": func(r *reach) { r.back(id) }, "strange": func(r *reach) { r.strange(id) },
		"answered": func(r *reach) { r.answered(id, rpc.MapAck{}, now, 0) },
	} {
		r := newReach()
		r.failed(id, errors.New("refused\nnode3.example: all is well"+strings.Repeat("x", 1000)), now)
		if got := r.of(id).err; strings.Contains(got, "\n") || len(got) > 300 || !strings.HasPrefix(got, "refused; ") {
			t.Errorf("%q", got)
		}
		if answers(r); r.of(id).err != "" {
			t.Errorf("%s: still %q", name, r.of(id).err)
		}
	}
}
