package jobs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
)

func renew(fields string) string { return `{"OP_ID":"OP_CLUSTER_RENEW_CRYPTO",` + fields + `}` }

// oldKeys are the SSH keys that the map lists of candidates.
func (w *world) oldKeys() (keys []cluster.SSHKey) {
	for _, n := range w.State().Candidates() {
		keys = append(keys, n.Keys.SSH...)
	}
	return keys
}

// gone reports which of some SSH keys are still somewhere.
func (w *world) gone(keys []cluster.SSHKey) error {
	for _, k := range append(w.oldKeys(), w.sharedKeys()...) {
		if roles.HasSSHKey(keys, k) {
			return errors.New("the state lists an old SSH key")
		}
	}
	for id, m := range w.machines {
		for _, k := range keys {
			if m.up && m.holds([]cluster.SSHKey{k}) {
				return fmt.Errorf("%s holds an old SSH key", w.State().Node(id).Name)
			}
		}
	}
	return nil
}

// renewCases are renewals, with the parameters before.
var renewCases = map[string]struct {
	before []string
	op     string
}{
	"SSH keys":         {nil, renew(`"new_ssh_keys":true`)},
	"shared SSH key":   {[]string{toShared}, renew(`"new_ssh_keys":true`)},
	"another kind":     {nil, renew(`"new_ssh_keys":true,"ssh_key_type":"ecdsa"`)},
	"shared, and kind": {[]string{toShared}, renew(`"new_ssh_keys":true,"ssh_key_type":"ecdsa","ssh_key_bits":384`)},
	"gossip key":       {nil, renew(`"new_gossip_key":true`)},
	"RAPI and SSH":     {nil, renew(`"new_ssh_keys":true,"new_rapi_certificate":true`)},
}

// TestG7RenewalSurvivesItsMaster kills the master before and after each of its
// calls; the next one ends what it began, and the old keys are nowhere.
func TestG7RenewalSurvivesItsMaster(t *testing.T) {
	for name, c := range renewCases {
		synctest.Test(t, func(t *testing.T) {
			calls := 1
			for i := -1; i < 2*calls; i++ {
				w := newWorld(t, 5, 3).setUp(c.before...)
				w.gossips()
				old, oldGossip := w.oldKeys(), w.gossipKeys()
				id := w.submit(c.op)
				if i >= 0 {
					w.dieAt, w.after = i/2, i%2 == 1
					if err := w.reign(id); err != nil && !errors.Is(err, errDead) {
						t.Fatalf("%s, crash %d: the master stopped: %v", name, i, err)
					}
					w.dieAt = -1
				}
				if j := w.finish(id); j.Status != state.JobSuccess {
					t.Errorf("%s, crash %d: job is %s: %s", name, i, j.Status, j.Error)
				}
				if i < 0 {
					calls = len(w.calls)
				}
				w.ensure()
				if strings.Contains(name, "gossip") {
					old = nil
					if now := w.gossipKeys(); len(now) != 1 || slices.Contains(oldGossip, now[0]) || !w.allGossip(now) {
						t.Errorf("%s, crash %d: %v", name, i, now)
					}
				}
				if err := errors.Join(w.rolled(), w.settled(), w.gone(old)); err != nil {
					t.Errorf("%s, crash %d: %v (%s)", name, i, err, strings.Join(w.calls, ", "))
				}
				if s := w.State(); strings.Contains(name, "RAPI") && s.RAPI.Since.IsZero() {
					t.Errorf("%s, crash %d: RAPI's certificates are not renewed", name, i)
				}
			}
		})
	}
}

// allGossip reports whether all machines know these gossip keys alone.
func (w *world) allGossip(keys []cluster.Digest) bool {
	for _, m := range w.machines {
		if !slices.Equal(m.gossip.ring, keys) {
			return false
		}
	}
	return true
}

// TestRenewalGoesBack: canceled at any call, a renewal either leaves all as it
// was or goes on to its end, with another master too.
func TestRenewalGoesBack(t *testing.T) {
	for name, c := range renewCases {
		synctest.Test(t, func(t *testing.T) {
			back, on := 0, 0
			for at := range 40 {
				w := newWorld(t, 5, 3).setUp(c.before...)
				w.gossips()
				oldGossip := w.gossipKeys()
				old, kind := w.oldKeys(), w.State().Params.SSH().KeySpec()
				id, calls := w.submit(c.op), 0
				w.onCall = func(string) {
					j := w.job(id)
					if calls++; calls != at+1 || j.Status.Ended() {
						return
					}
					w.do(state.KindJobUpdate, CancelingUpdate(id))
					if at%2 == 1 {
						w.dieAt, w.after = w.made(), true
					}
				}
				if err := w.reign(id); err != nil && !errors.Is(err, errDead) {
					t.Fatal(err)
				}
				w.dieAt, w.onCall = -1, nil
				j := w.finish(id)
				if calls <= at {
					break
				}
				w.ensure()
				if err := errors.Join(w.rolled(), w.settled()); err != nil {
					t.Errorf("%s, canceled at %d: %v (%s)", name, at, err, strings.Join(w.calls, ", "))
				}
				if strings.Contains(name, "gossip") {
					old = nil
					if now := w.gossipKeys(); len(now) != 1 || slices.Contains(oldGossip, now[0]) != (j.Status == state.JobCanceled) {
						t.Errorf("%s, canceled at %d: job is %s, %v", name, at, j.Status, now)
					}
				}
				switch now := w.oldKeys(); j.Status {
				case state.JobCanceled:
					back++
					same := slices.EqualFunc(now, old, roles.SameSSHKey) && w.State().Params.SSH().KeySpec() == kind
					if !same && !strings.Contains(name, "RAPI") && old != nil {
						t.Errorf("%s, canceled at %d: it is not as it was", name, at)
					}
				case state.JobSuccess:
					on++
					if err := w.gone(old); err != nil {
						t.Errorf("%s, went on after %d: %v", name, at, err)
					}
				default:
					t.Errorf("%s, canceled at %d: job is %s: %s", name, at, j.Status, j.Error)
				}
			}
			if back < 2 || on < 1 {
				t.Errorf("%s: %d went back, %d on", name, back, on)
			}
		})
	}
}

// A node that is away is not waited for, and its old key opens nothing.
func TestRenewalWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, 3)
		w.at(3).up = false
		old := w.oldKeys()
		j := w.finish(w.submit(renew(`"new_ssh_keys":true`)))
		if j.Status != state.JobSuccess || len(j.Unreachable) != 1 || !strings.Contains(logOf(j), "Node node3.lab.test has no SSH key until it answers") {
			t.Errorf("job is %s, %v: %s", j.Status, j.Unreachable, logOf(j))
		}
		if err := w.gone(old); err != nil {
			t.Error(err)
		}
	})
}

func TestRenewalOfOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, 3)
		before := map[int]cluster.SSHKey{}
		for i := 1; i <= 3; i++ {
			before[i] = w.node(i).Keys.SSH[0]
		}
		if j := w.finish(w.submit(renew(`"new_ssh_keys":true,"node_name":"node2.lab.test"`))); j.Status != state.JobSuccess {
			t.Fatal(j.Error)
		}
		for i := 1; i <= 3; i++ {
			if same := roles.SameSSHKey(before[i], w.node(i).Keys.SSH[0]); same != (i != 2) {
				t.Errorf("node %d: the same key: %v", i, same)
			}
		}
	})
}

func TestRenewalRefuses(t *testing.T) {
	for op, says := range map[string]string{
		`"new_ssh_keys":false`: "what is to be renewed",
		`"new_rapi_certificate":true,"node_name":"node2.lab.test"`:                                   "for node node2.lab.test alone",
		`"new_ssh_keys":true,"node_name":"node5.lab.test"`:                                           "is not a master candidate",
		`"new_ssh_keys":true,"node_name":"nobody"`:                                                   "nobody",
		`"new_rapi_certificate":true,"ssh_key_type":"rsa"`:                                           "go with new SSH keys only",
		`"new_ssh_keys":true,"ssh_key_type":"rsa","rapi":true`:                                       "over RAPI",
		`"new_ssh_keys":true,"ssh_key_type":"rsa","ssh_key_bits":7`:                                  "7",
		`"new_ssh_keys":true,"new_rapi_certificate":true,"node_name":"node1.lab.test"`:               "alone",
		`"new_ssh_keys":true,"ssh_key_type":"ecdsa","ssh_key_bits":384,"node_name":"node1.lab.test"`: "one kind",
	} {
		w := newWorld(t, 5, 3)
		j := w.finish(w.submit(renew(op)))
		if j.Status != state.JobError || !strings.Contains(j.Error, says) || j.Step != "" {
			t.Errorf("%s: job is %s: %q", op, j.Status, j.Error)
		}
	}
	w := newWorld(t, 3, 3)
	j := w.finish(w.submit(renew(`"new_ssh_keys":true,"new_rapi_certificate":true,"dry_run":true`)))
	if j.Status != state.JobSuccess || !strings.Contains(logOf(j), "would replace SSH keys") || !w.State().RAPI.Since.IsZero() {
		t.Errorf("dry run: %s %s %s", j.Status, j.Error, logOf(j))
	}
}
