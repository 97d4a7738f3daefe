package vcluster

import (
	"errors"
	"strings"
	"testing"

	"filippo.io/age"

	"rolekey/cluster"
	"rolekey/rpc"
)

// TestG7RestoreAtEveryStep kills the new machine before each step that writes.
// The same command then completes it, and the old nodes follow.
func TestG7RestoreAtEveryStep(t *testing.T) {
	for _, at := range []string{"", "commit", "exchange snapshots", "exchange raft.db", "answer"} {
		t.Run("at "+at, func(t *testing.T) {
			id, err := NewIdentity()
			if err != nil {
				t.Fatal(err)
			}
			Run(t, 3, Options{Pool: 4, Recovery: id.Recipient().String()}, func(t *testing.T, c *Cluster) { restoreAt(t, c, id, at) })
		})
	}
}

func restoreAt(t *testing.T, c *Cluster, id *age.X25519Identity, at string) {
	clear, err := c.Master().ClearBackup(id)
	c.must(err)
	st, err := c.State()
	c.must(err)
	lost := c.Nodes
	for _, n := range lost {
		n.PowerOff()
	}
	c.Heal()
	fresh := c.Machine()
	fresh.ID = cluster.NewUUID()
	req := rpc.RestoreRequest{Cluster: st.Cluster.UUID, Node: fresh.ID, Incarnation: 1, Name: fresh.Name, SSHSetup: true, Backup: clear}
	if at != "" {
		crashInRestore(t, c, fresh, req, id, at)
	}
	req.Node = cluster.NewUUID() // another run does not know which one the first one chose
	var done rpc.RecoverReply
	c.Await(Limit, func() (err error) {
		if s, serr := fresh.Status(); serr == nil && s.State == "member" {
			return nil // the answer was lost
		}
		done, err = fresh.Restore(req, id)
		return err
	})
	if at == "" {
		fresh.ID = req.Node
		if done.Version.Epoch != 2 || !done.Durable {
			t.Errorf("reply %+v", done)
		}
	}
	c.Await(Limit, fresh.ready)
	for _, n := range lost {
		n.Start()
	}
	c.allAgain(4)
	if st, err := c.State(); err != nil || len(st.Nodes) != 4 || !st.Node(fresh.ID).Flags.MasterCandidate {
		t.Errorf("nodes: %v", err)
	}
}

// crashInRestore kills the machine before the step.
func crashInRestore(t *testing.T, c *Cluster, fresh *Node, req rpc.RestoreRequest, id age.Identity, at string) {
	reached := false
	fresh.fault = func(step string) error {
		if reached = reached || step == at; reached {
			return errors.New("crash before " + step)
		}
		return nil
	}
	var err error
	c.Await(Limit, func() error {
		_, err = fresh.Restore(req, id)
		if cluster.CodeOf(err) == cluster.CodeUnavailable {
			return err // the daemons are not up yet
		}
		return nil
	})
	if at != "answer" && (err == nil || !strings.Contains(err.Error(), "crash before")) {
		t.Fatalf("the restore ended with %v", err)
	}
	fresh.Crash()
	fresh.fault = nil
	fresh.Start()
}

// TestRestoreIsRefused where a node knows more, and without the recovery keys.
func TestRestoreIsRefused(t *testing.T) {
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	Run(t, 2, Options{Recovery: id.Recipient().String()}, func(t *testing.T, c *Cluster) {
		clear, err := c.Master().ClearBackup(id)
		c.must(err)
		c.Must(Candidate(c.Node(2), false))
		fresh := c.Machine()
		st, err := c.State()
		c.must(err)
		req := rpc.RestoreRequest{Cluster: st.Cluster.UUID, Node: cluster.NewUUID(), Incarnation: 1, Name: fresh.Name, SSHSetup: true, Backup: clear}
		c.Await(Limit, func() error {
			_, err = fresh.Restore(req, id)
			if cluster.CodeOf(err) == cluster.CodeUnavailable {
				return err
			}
			return nil
		})
		if cluster.CodeOf(err) != cluster.CodeMapOlder {
			t.Errorf("nodes hold a newer map: %v", err)
		}
		req.IgnoreNewer = true
		var plan rpc.RecoverReply
		c.must(fresh.local.Do(t.Context(), "POST", rpc.LocalRestore, req, &plan))
		req.Payload, req.NoRecovery = plan.Payload, true
		if err := fresh.local.Do(t.Context(), "POST", rpc.LocalRestore, req, nil); cluster.CodeOf(err) != cluster.CodeBadSignature {
			t.Errorf("without the recovery keys: %v", err)
		}
		c.must(fresh.local.Do(t.Context(), "POST", rpc.LocalLeave, nil, nil))
		if s, err := fresh.Status(); err != nil || s.State != "none" {
			t.Errorf("given up, and it is %s: %v", s.State, err)
		}
		c.Must(Candidate(c.Node(2), true))
	})
}
