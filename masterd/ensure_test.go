package masterd

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
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
