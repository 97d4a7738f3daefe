package vcluster

import (
	"bytes"
	"context"
	"io"
	"net"

	"filippo.io/age"

	"rolekey/candmap"
	"rolekey/pki"
	"rolekey/rpc"
)

// NewIdentity makes an administrator's age identity.
func NewIdentity() (*age.X25519Identity, error) { return age.GenerateX25519Identity() }

// PlanRecovery asks a node which map would go on with it alone.
func (n *Node) PlanRecovery(dry bool) (rpc.RecoverReply, error) {
	var r rpc.RecoverReply
	err := n.local.Do(n.c.t.Context(), "POST", rpc.LocalRecover, rpc.RecoverRequest{DryRun: dry}, &r)
	return r, err
}

// Recover does what gnt-cluster recover does on a node, with the identity that
// the recovery key is encrypted to.
func (n *Node) Recover(id age.Identity) (rpc.RecoverReply, error) {
	plan, err := n.PlanRecovery(false)
	if err != nil {
		return plan, err
	}
	return n.CommitRecovery(id, plan)
}

// CommitRecovery signs what was planned and has it committed.
func (n *Node) CommitRecovery(id age.Identity, plan rpc.RecoverReply) (rpc.RecoverReply, error) {
	sig, err := n.c.signRecovery(plan.Payload, id)
	if err != nil {
		return plan, err
	}
	var done rpc.RecoverReply
	req := rpc.RecoverRequest{Payload: plan.Payload, Signatures: []candmap.Signature{sig}}
	err = n.local.Do(n.c.t.Context(), "POST", rpc.LocalRecover, req, &done)
	return done, err
}

// ClearBackup makes a backup on a candidate and decrypts it.
func (n *Node) ClearBackup(id *age.X25519Identity) ([]byte, error) {
	masterd := rpc.NewLocalClient(func(ctx context.Context) (net.Conn, error) { return n.socks.dial(ctx, n.at.MasterdSock()) })
	defer masterd.Close()
	var sealed bytes.Buffer
	var about rpc.BackupReply
	req := rpc.BackupRequest{Recipients: []string{id.Recipient().String()}}
	if err := masterd.Stream(n.c.t.Context(), "POST", rpc.LocalBackup, req, &about, &sealed); err != nil {
		return nil, err
	}
	plain, err := pki.DecryptWith(&sealed, []age.Identity{id})
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}

// Machine adds a machine that is in no cluster, and starts it.
func (c *Cluster) Machine() *Node {
	n := c.newNode(len(c.Nodes) + 1)
	c.Nodes = append(c.Nodes, n)
	n.Start()
	return n
}

// Restore does what gnt-cluster restore does, as a new node.
func (n *Node) Restore(req rpc.RestoreRequest, id age.Identity) (rpc.RecoverReply, error) {
	var plan, done rpc.RecoverReply
	if err := n.local.Do(n.c.t.Context(), "POST", rpc.LocalRestore, req, &plan); err != nil || plan.Durable {
		return plan, err
	}
	sig, err := n.c.signRecovery(plan.Payload, id)
	if err != nil {
		return plan, err
	}
	req.Payload, req.Signatures = plan.Payload, []candmap.Signature{sig}
	err = n.local.Do(n.c.t.Context(), "POST", rpc.LocalRestore, req, &done)
	return done, err
}

func (c *Cluster) signRecovery(payload []byte, id age.Identity) (candmap.Signature, error) {
	key, err := pki.OpenRecovery(c.recovery, []age.Identity{id})
	if err != nil {
		return candmap.Signature{}, err
	}
	return candmap.Sign(key, candmap.MapType, payload)
}
