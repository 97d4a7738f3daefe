package noded

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/rpc"
)

// restoring is what a restore was asked for; the keys beside it are bound to it.
type restoring struct {
	Cluster     cluster.UUID   `json:"cluster"`
	Node        cluster.NodeID `json:"node"`
	Incarnation uint64         `json:"incarnation"`
	Name        cluster.Name   `json:"name"`
}

// serveRestore makes this machine the first node of the cluster in a backup. As
// with init, what decides is masterd's commit, and on this side the rename of the
// node folder; after a crash the same command goes on.
func (d *Daemon) serveRestore(ctx context.Context, r *rpc.RestoreRequest) (any, error) {
	end, err := d.begin("initializing")
	if err != nil {
		return nil, err
	}
	defer end()
	if err := d.vacant(); err != nil {
		return nil, err
	}
	if len(r.Addresses) == 0 {
		r.Addresses = d.cfg.Addresses
	}
	if err := checkAddresses(r.Addresses); err != nil {
		return nil, err
	}
	if err := d.masterd.running(ctx); err != nil {
		return nil, err
	}
	as, err := d.beginRestore(r)
	if err != nil {
		return nil, err
	}
	reply, err := d.restore(ctx, as, r)
	if len(r.Payload) > 0 {
		d.audit.Write(audit.Event{Act: audit.Restore, Caller: audit.CallerOf(ctx), Target: string(as.Name)}.Of(err))
	}
	if err != nil {
		return nil, fmt.Errorf("restore cluster %s: %w", as.Cluster, err)
	}
	return reply, nil
}

// beginRestore makes the temporary folder, or takes up the one of an interrupted
// run: its keys were made for that node.
func (d *Daemon) beginRestore(r *rpc.RestoreRequest) (restoring, error) {
	if err := d.underWay(d.restoreDir()); err != nil {
		return restoring{}, err
	}
	want := restoring{r.Cluster, r.Node, r.Incarnation, r.Name}
	path := filepath.Join(d.restoreDir(), requestFile)
	var have restoring
	ok, err := readStrict(path, &have)
	switch {
	case err != nil:
		return have, err
	case ok && (have.Cluster != want.Cluster || have.Name != want.Name):
		return have, cluster.Errorf(cluster.CodeConflict, "an interrupted restore of cluster %s, as node %s, is under way on this machine", have.Cluster, have.Name).
			WithHint("run it again to complete it, or give it up with noded leave --yes")
	case ok:
		return have, nil
	}
	if err := os.MkdirAll(d.restoreDir(), 0o700); err != nil {
		return want, fmt.Errorf("make folder: %w", err)
	}
	return want, writeJSON(path, want)
}

func (d *Daemon) restore(ctx context.Context, as restoring, r *rpc.RestoreRequest) (reply rpc.RecoverReply, err error) {
	req := rpc.RefoundRequest{RestoreRequest: *r, Now: d.cfg.now().UTC()}
	req.Node, req.Incarnation = as.Node, as.Incarnation
	if err := d.prepareRestore(ctx, &req); err != nil {
		return reply, err
	}
	made, err := d.masterd.refound(ctx, req)
	if err != nil {
		return reply, err
	}
	next, err := candmap.DecodeMap(made.Payload)
	if err != nil {
		return reply, err
	}
	reply = rpc.RecoverReply{
		Cluster: as.Cluster, Node: as.Name, From: made.From, FromHash: made.FromHash, Version: next.At(), Hash: cluster.DigestOf(made.Payload),
		Payload: made.Payload, Recovery: made.Recovery, Nodes: made.Nodes, Revived: made.Revived, Problems: []string{},
	}
	if made.Committed == nil {
		return reply, nil
	}
	first := made.Committed.Maps[0]
	err = d.install(context.WithoutCancel(ctx), d.restoreDir(), installation{
		id:  identity{Cluster: as.Cluster, Node: as.Node, Incarnation: as.Incarnation, Name: as.Name, Addresses: req.Addresses, Ports: req.Ports},
		cas: [][]byte{made.CA}, server: made.Server, identity: made.Identity, gossip: made.Gossip,
		first: first, older: made.Chain, docs: made.Committed.Docs,
	})
	if err != nil {
		return reply, err
	}
	reply.Durable = true
	if _, err := d.startUp(ctx, firstNews{env: first}); err != nil {
		return reply, fmt.Errorf("the cluster is restored, but this node does not serve it yet: %w", err)
	}
	return reply, nil
}

// prepareRestore adds this machine's own keys.
func (d *Daemon) prepareRestore(ctx context.Context, req *rpc.RefoundRequest) error {
	server, identity, err := prepare(d.restoreDir())
	if err != nil {
		return err
	}
	req.ServerCSR, req.NodeCSR = server.der, identity.der
	set, err := d.ssh.get(ctx)
	req.Ports = set.ports(&d.cfg)
	if err == nil {
		req.HostKeys = slices.Clone(set.hostKeys)
	}
	if !req.SSHSetup {
		return nil
	}
	if err == nil && len(set.hostKeys) == 0 {
		err = fmt.Errorf("sshd has no host keys that can be used")
	}
	if err != nil {
		return cluster.Errorf(cluster.CodeUnavailable, "SSH cannot be set up on this node: %v", err).
			WithHint("install and configure sshd, or write [ssh] into noded.toml")
	}
	key, err := d.keys.ensure(req.Node)
	req.SSH = []cluster.SSHKey{key}
	return err
}
