package vcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"rolekey/cluster"
	"rolekey/masterd"
	"rolekey/masterd/jobs"
	"rolekey/masterd/rapi"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// Init founds the cluster with this node.
func (c *Cluster) Init(n *Node) {
	c.t.Helper()
	req := rpc.InitRequest{
		Cluster: "vc.test", Node: n.Name, NoRecoveryKey: true, CandidatePoolSize: c.opts.Pool,
		LeaseSeconds: uint32(c.opts.Lease / time.Second), SSHLeaseSeconds: uint32(c.opts.SSHDays) * 86400,
		Policy: c.opts.Policy, SSHReach: c.opts.Reach, SSHSetup: true,
	}
	if c.opts.Recovery != "" {
		req.NoRecoveryKey, req.RecoveryRecipient = false, []string{c.opts.Recovery}
	}
	var reply rpc.InitReply
	c.Await(Limit, func() error { return n.local.Do(c.t.Context(), "POST", rpc.LocalInit, req, &reply) })
	n.ID = reply.Node
	if reply.RecoveryFile != "" {
		var err error
		c.recovery, err = os.ReadFile(reply.RecoveryFile)
		c.must(err)
	}
}

// Token makes an admission string on the master.
func (c *Cluster) Token(name cluster.Name) (string, error) {
	m, err := c.one()
	if err != nil {
		return "", err
	}
	made, err := m.Masterd().Admit(c.t.Context(), rapi.AdmitSpec{Name: name, TTL: time.Hour, Actor: "test", Request: "token"})
	if err != nil {
		return "", err
	}
	return made.Token.Encode(), nil
}

// Join admits a node and waits until the job that follows has ended.
func (c *Cluster) Join(n *Node) {
	c.t.Helper()
	var token string
	c.Await(Limit, func() (err error) {
		token, err = c.Token(n.Name)
		return err
	})
	var reply rpc.JoinReply
	c.Await(Limit, func() error {
		return n.local.Do(c.t.Context(), "POST", rpc.LocalJoin, rpc.JoinRequest{Token: token}, &reply)
	})
	n.ID = reply.Node
	c.Await(Limit, func() error {
		st, err := c.State()
		if err != nil {
			return err
		}
		if m := st.Node(n.ID); m == nil || !m.Joined {
			return fmt.Errorf("%s has not been in touch yet", n.Short())
		}
		return idle(st)
	})
}

// State is the intent as the master knows it.
func (c *Cluster) State() (*state.State, error) {
	m, err := c.one()
	if err != nil {
		return nil, err
	}
	return m.Masterd().State()
}

func idle(st *state.State) error {
	for id, j := range st.Jobs {
		if !j.Status.Ended() {
			return fmt.Errorf("job %d %v is %s", id, j.Summary, j.Status)
		}
	}
	return nil
}

// Change is what gnt-node modify asks for, or gnt-cluster modify.
type Change struct {
	ID              string `json:"OP_ID"`
	Node            string `json:"node_name"`
	MasterCandidate *bool  `json:"master_candidate,omitempty"`
	Drained         *bool  `json:"drained,omitempty"`
	Offline         *bool  `json:"offline,omitempty"`
	AutoPromote     bool   `json:"auto_promote,omitempty"`
	Force           bool   `json:"force,omitempty"`
	NewName         string `json:"new_name,omitempty"`

	Addresses []netip.Addr `json:"addresses,omitempty"`
	Pool      int          `json:"candidate_pool_size,omitempty"`

	Digest string `json:"digest,omitempty"` // of host keys

	KeyMode  cluster.SSHKeyMode `json:"ssh_key_mode,omitempty"`
	KeyType  string             `json:"ssh_key_type,omitempty"`
	SSHSetup *bool              `json:"modify_ssh_setup,omitempty"`

	NewGossip  bool `json:"new_gossip_key,omitempty"` // of a renewal
	NewSigning bool `json:"new_signing_keys,omitempty"`
	NewCerts   bool `json:"new_node_certificates,omitempty"`
	NewCA      bool `json:"new_cluster_certificate,omitempty"`
	NewSSH     bool `json:"new_ssh_keys,omitempty"`
}

// Candidate is the change that promotes or demotes a node; others are promoted
// if the pool is too small without it.
func Candidate(n *Node, on bool) Change {
	return Change{ID: jobs.OpNodeSetParams, Node: string(n.Name), MasterCandidate: &on, AutoPromote: !on}
}

// Offline is the change that sets a node offline or online; others are promoted
// if the pool is too small without it.
func Offline(n *Node, on bool) Change {
	return Change{ID: jobs.OpNodeSetParams, Node: string(n.Name), Offline: &on, AutoPromote: on}
}

// Remove is the change that removes a node.
func Remove(n *Node) Change { return Change{ID: jobs.OpNodeRemove, Node: string(n.Name)} }

// SubmitTo gives a change to the node's masterd and returns the job's number.
func (c *Cluster) SubmitTo(n *Node, ch Change) (int64, error) {
	if !n.Up() {
		return 0, errors.New("the node is down")
	}
	return c.submit(n.Masterd(), ch)
}

func (c *Cluster) submit(d *masterd.Daemon, ch Change) (int64, error) {
	op, err := json.Marshal(ch)
	if err != nil {
		return 0, err
	}
	return d.Submit(c.t.Context(), []json.RawMessage{op}, []string{ch.ID + "(" + ch.Node + ")"}, "test", "change")
}

// Do submits a change to the master, waits for the job's end and returns it.
func (c *Cluster) Do(ch Change) *state.Job {
	c.t.Helper()
	var id int64
	c.Await(Limit, func() error {
		m, err := c.one()
		if err != nil {
			return err
		}
		id, err = c.SubmitTo(m, ch)
		return err
	})
	return c.Job(id)
}

// Must does a change that must succeed.
func (c *Cluster) Must(ch Change) *state.Job {
	c.t.Helper()
	j := c.Do(ch)
	if j.Status != state.JobSuccess {
		c.t.Fatalf("%+v: %s: %s", ch, j.Status, j.Error)
	}
	return j
}

// Job waits for the end of a job.
func (c *Cluster) Job(id int64) *state.Job {
	c.t.Helper()
	var j *state.Job
	c.Await(Limit, func() error {
		st, err := c.State()
		if err != nil {
			return err
		}
		if j = st.Jobs[id]; j == nil {
			return fmt.Errorf("job %d is not known", id)
		}
		if !j.Status.Ended() {
			return fmt.Errorf("job %d is %s", id, j.Status)
		}
		return nil
	})
	return j
}
