package vcluster

import (
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
	key, err := pki.OpenRecovery(n.c.recovery, []age.Identity{id})
	if err != nil {
		return plan, err
	}
	sig, err := candmap.Sign(key, candmap.MapType, plan.Payload)
	if err != nil {
		return plan, err
	}
	var done rpc.RecoverReply
	req := rpc.RecoverRequest{Payload: plan.Payload, Signatures: []candmap.Signature{sig}}
	err = n.local.Do(n.c.t.Context(), "POST", rpc.LocalRecover, req, &done)
	return done, err
}
