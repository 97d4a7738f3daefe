package masterd

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// sshLab has candidates 1 and 2 and a normal node 3.
func sshLab(t *testing.T) *statetest.Lab {
	lab := labOf(t, 2, 120)
	lab.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
	lab.Promote(2)
	return lab
}

// queued counts the jobs that replace SSH keys and have not ended.
func (r *reign) queued() (n int) {
	for j := range r.l.node.State().ActiveJobs() {
		if slices.Equal(j.Summary, []string{"CLUSTER_SSH_KEYS"}) {
			n++
		}
	}
	return n
}

func (k *keyTwin) as(reply func(cluster.NodeID, rpc.KeyCreateRequest) rpc.CandidateKeys) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reply = reply
}

// TestLostSSHKeyIsReplaced: a node that was restarted answers with a key that
// the map does not list. There is one job for it, and none without need.
func TestLostSSHKeyIsReplaced(t *testing.T) {
	for _, lost := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			lab := sshLab(t)
			r := newReign(t, lab)
			r.world.up(members(1, 3)...)
			r.keys.as(func(id cluster.NodeID, q rpc.KeyCreateRequest) rpc.CandidateKeys {
				if q.SSHKey == nil || q.SSHKey.Shared != nil || q.SSHKey.SSHKeySpec != cluster.DefaultSSHKey || q.SSHKey.Storage != cluster.StorageFile {
					t.Errorf("order %+v", q.SSHKey)
				}
				if lost && id == statetest.ID(2) {
					return rpc.CandidateKeys{SSH: []cluster.SSHKey{statetest.SSHKey(9, "new")}}
				}
				return rpc.CandidateKeys{SSH: lab.S.Node(id).Keys.SSH}
			})
			r.lead()
			time.Sleep(5 * time.Minute)
			if n := r.queued(); n > 1 || n == 1 != lost {
				t.Errorf("lost %v: %d jobs", lost, n)
			}
		})
	}
}

// TestRollWaitsForWhoIsAway: a candidate whose key is not as wanted, and that
// does not answer, makes no jobs.
func TestRollWaitsForWhoIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := sshLab(t)
		lab.Do(state.KindSSHKeys, state.SSHKeysChange{Lists: []state.NodeSSHKeys{{Node: statetest.ID(2), SSH: []cluster.SSHKey{}}}})
		r := newReign(t, lab)
		r.world.up(statetest.ID(1), statetest.ID(3))
		r.lead()
		time.Sleep(5 * time.Minute)
		if n := r.queued(); n != 0 {
			t.Errorf("%d jobs", n)
		}
		r.world.up(statetest.ID(2))
		time.Sleep(time.Minute)
		if n := r.queued(); n != 1 {
			t.Errorf("it is back, and there are %d jobs", n)
		}
	})
}

// TestSharedKeyIsDeliveredAgain to a candidate that says that it lacks it, long
// before it would be asked anyway, and without a job.
func TestSharedKeyIsDeliveredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := sshLab(t)
		shared, err := jobs.NewSharedKey(cluster.DefaultSSHKey)
		if err != nil {
			t.Fatal(err)
		}
		lab.Do(state.KindSharedKeys, state.SharedKeysChange{Keys: []state.SharedKey{shared}})
		lab.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{SSHKeyMode: new(cluster.KeyShared)}})
		var c state.SSHKeysChange
		for _, i := range []int{1, 2} {
			c.Lists = append(c.Lists, state.NodeSSHKeys{Node: statetest.ID(i), SSH: []cluster.SSHKey{shared.Public}, Lost: true})
		}
		lab.Do(state.KindSSHKeys, c)
		r := newReign(t, lab)
		r.world.up(members(1, 3)...)
		has, sealed := true, 0
		r.keys.as(func(id cluster.NodeID, q rpc.KeyCreateRequest) rpc.CandidateKeys {
			switch {
			case q.SSHKey == nil || q.SSHKey.Shared == nil:
				t.Errorf("order %+v", q.SSHKey)
			case id == statetest.ID(2) && !has && q.SSHKey.Sealed == nil:
				return rpc.CandidateKeys{Recipient: recipient(t)}
			case q.SSHKey.Sealed != nil:
				has, sealed = true, sealed+1
			}
			return rpc.CandidateKeys{SSH: []cluster.SSHKey{shared.Public}}
		})
		r.lead()
		time.Sleep(10 * time.Second)
		r.keys.mu.Lock()
		has = false // its noded was restarted
		r.keys.mu.Unlock()
		r.world.mu.Lock()
		r.world.nodes[statetest.ID(2)].missing = true
		r.world.mu.Unlock()
		time.Sleep(50 * time.Second)
		r.keys.mu.Lock()
		defer r.keys.mu.Unlock()
		if sealed != 1 || r.queued() != 0 {
			t.Errorf("delivered %d times, %d jobs", sealed, r.queued())
		}
	})
}

// recipient is what a node that lacks the shared key answers.
func recipient(t *testing.T) []byte {
	t.Helper()
	r, err := sshkeys.NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	return r.Public()
}
