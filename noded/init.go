package noded

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/pki"
	"rolekey/rpc"
)

// Defaults of a new cluster, for what the request leaves out.
const (
	defaultPool     = 5
	defaultLease    = 120
	defaultSSHLease = 24 * 60 * 60
)

// founding is what an init was asked for. It is written first, so that a
// second run goes on with the same cluster.
type founding struct {
	Cluster cluster.UUID    `json:"cluster"`
	Node    cluster.NodeID  `json:"node"`
	Init    rpc.InitRequest `json:"init"`
}

// serveInit founds a cluster with this node alone. What decides is masterd's
// first snapshot, and on this side the rename of the node folder; before them
// everything is only prepared, and after a crash the same command goes on.
func (d *Daemon) serveInit(ctx context.Context, r *rpc.InitRequest) (any, error) {
	end, err := d.begin("initializing")
	if err != nil {
		return nil, err
	}
	defer end()
	if err := d.vacant(); err != nil {
		return nil, err
	}
	if err := d.completeInit(r); err != nil {
		return nil, err
	}
	if err := d.masterd.running(ctx); err != nil {
		return nil, err
	}
	f, completed, err := d.beginInit(*r)
	if err != nil {
		return nil, err
	}
	reply, first, err := d.found(ctx, f, r)
	if err != nil {
		return nil, fmt.Errorf("found cluster %s: %w", f.Init.Cluster, err)
	}
	reply.Completed = completed
	if _, err := d.startUp(ctx, firstNews{env: first}); err != nil {
		return nil, fmt.Errorf("the cluster is founded, but this node does not serve it yet: %w", err)
	}
	return reply, nil
}

// completeInit fills in defaults and refuses what cannot be.
func (d *Daemon) completeInit(r *rpc.InitRequest) error {
	if len(r.Addresses) == 0 {
		r.Addresses = d.cfg.Addresses
	}
	if r.CandidatePoolSize == 0 {
		r.CandidatePoolSize = defaultPool
	}
	if r.LeaseSeconds == 0 {
		r.LeaseSeconds = defaultLease
	}
	if r.SSHLeaseSeconds == 0 {
		r.SSHLeaseSeconds = defaultSSHLease
	}
	if r.Policy == "" {
		r.Policy = cluster.PolicyStrict
	}
	if r.SSHReach == "" {
		r.SSHReach = cluster.ReachCandidates
	}
	for _, n := range []cluster.Name{r.Cluster, r.Node} {
		if _, err := cluster.ParseName(string(n)); err != nil {
			return badRequest("%v", err)
		}
	}
	if err := checkAddresses(r.Addresses); err != nil {
		return err
	}
	if a := r.MasterAddress; a != nil {
		if err := a.Check(); err != nil {
			return badRequest("%v", err)
		}
		if slices.Contains(r.Addresses, a.Address.Addr()) {
			return badRequest("the cluster address %s is this node's own; it moves with the master role, so it must be one that no node has", a.Address.Addr())
		}
	}
	if err := r.SSHSettings().Check(); err != nil {
		return badRequest("%v", err)
	}
	lease, sshLease := time.Duration(r.LeaseSeconds)*time.Second, time.Duration(r.SSHLeaseSeconds)*time.Second
	switch {
	case r.CandidatePoolSize < 1:
		return badRequest("candidate pool size %d: want at least 1", r.CandidatePoolSize)
	case lease < candmap.MinLease || lease > candmap.MaxLease:
		return badRequest("map lease %s: want %s to %s", lease, candmap.MinLease, candmap.MaxLease)
	case sshLease < candmap.MinSSHLease || sshLease > candmap.MaxSSHLease:
		return badRequest("ssh lease %s: want %s to %s", sshLease, candmap.MinSSHLease, candmap.MaxSSHLease)
	}
	return checkRecovery(r)
}

func badRequest(format string, args ...any) error {
	return cluster.Errorf(cluster.CodeBadFormat, format, args...)
}

func checkAddresses(list []netip.Addr) error {
	if len(list) == 0 {
		return cluster.Errorf(cluster.CodeBadFormat, "this node's address is not known").
			WithHint("give it with --address, or write addresses = [\"ADDRESS\"] into noded.toml")
	}
	if len(list) > candmap.MaxAddresses {
		return badRequest("%d addresses, the limit is %d", len(list), candmap.MaxAddresses)
	}
	for _, a := range list {
		if err := cluster.CheckAddr(a); err != nil {
			return badRequest("%v", err)
		}
	}
	return nil
}

// checkRecovery wants a decision: a cluster that lost its majority is lost
// without a recovery key.
func checkRecovery(r *rpc.InitRequest) error {
	switch {
	case r.NoRecoveryKey && len(r.RecoveryRecipient) > 0:
		return badRequest("--recovery-recipient and --no-recovery-key exclude one another")
	case r.NoRecoveryKey:
		return nil
	case len(r.RecoveryRecipient) == 0:
		return cluster.Errorf(cluster.CodeBadFormat, "who shall be able to recover the cluster is not said").
			WithHint("give --recovery-recipient with an age or ssh public key, or --no-recovery-key")
	}
	if err := pki.CheckRecipients(r.RecoveryRecipient); err != nil {
		return badRequest("%v", err)
	}
	return nil
}

// beginInit makes the temporary folder, or takes up the one of an interrupted
// run. Then that run's parameters count.
func (d *Daemon) beginInit(r rpc.InitRequest) (f founding, completed bool, err error) {
	if err := d.underWay(d.initDir()); err != nil {
		return f, false, err
	}
	path := filepath.Join(d.initDir(), requestFile)
	if ok, err := readStrict(path, &f); err != nil || ok {
		if err == nil && (f.Init.Cluster != r.Cluster || f.Init.Node != r.Node) {
			err = cluster.Errorf(cluster.CodeConflict, "an interrupted init of cluster %s with node %s is under way on this node", f.Init.Cluster, f.Init.Node).
				WithHint("run it again to complete it: gnt-cluster init %s --node-name %s; or give it up with noded leave --yes", f.Init.Cluster, f.Init.Node)
		}
		return f, ok, err
	}
	f = founding{Cluster: cluster.NewUUID(), Node: cluster.NewUUID(), Init: r}
	if err := os.MkdirAll(d.initDir(), 0o700); err != nil {
		return f, false, fmt.Errorf("make folder: %w", err)
	}
	if err := d.step("request"); err != nil {
		return f, false, err
	}
	return f, false, writeJSON(path, f)
}

// found has masterd found the cluster, and installs what it answers.
func (d *Daemon) found(ctx context.Context, f founding, r *rpc.InitRequest) (reply rpc.InitReply, first candmap.Envelope, err error) {
	reply = rpc.InitReply{Cluster: f.Cluster, Node: f.Node}
	if err := d.step("keys"); err != nil {
		return reply, first, err
	}
	boot, err := d.bootstrapRequest(ctx, f)
	if err != nil {
		return reply, first, err
	}
	if err := d.step("recovery"); err != nil {
		return reply, first, err
	}
	if boot.Recovery, reply.RecoveryFile, err = d.recovery(f, r.RecoveryRecipient); err != nil {
		return reply, first, err
	}
	if err := d.step("bootstrap"); err != nil {
		return reply, first, err
	}
	made, err := d.masterd.bootstrap(ctx, boot)
	if err != nil {
		return reply, first, err
	}
	verified, err := candmap.Genesis(made.Map, made.Map.Hash())
	if err != nil {
		return reply, first, err
	}
	reply.Version, reply.Hash = verified.At(), verified.Hash
	return reply, made.Map, d.install(ctx, d.initDir(), installation{
		id:  identity{Cluster: f.Cluster, Node: f.Node, Incarnation: 1, Name: f.Init.Node, Addresses: f.Init.Addresses, Ports: boot.Ports},
		cas: [][]byte{made.CA}, server: made.Server, identity: made.Identity, gossip: made.Gossip, first: made.Map, docs: made.Docs,
	})
}

func (d *Daemon) bootstrapRequest(ctx context.Context, f founding) (rpc.BootstrapRequest, error) {
	boot := rpc.BootstrapRequest{Cluster: f.Cluster, Node: f.Node, Init: f.Init, Now: d.cfg.now().UTC()}
	server, identity, err := prepare(d.initDir())
	if err != nil {
		return boot, err
	}
	boot.Server, boot.Identity = server.der, identity.der
	set, err := d.ssh.get(ctx)
	boot.Ports = set.ports(&d.cfg)
	if !f.Init.SSHSetup {
		if err == nil {
			boot.HostKeys = set.hostKeys
		}
		return boot, nil
	}
	if err == nil && len(set.hostKeys) == 0 {
		err = fmt.Errorf("sshd has no host keys that can be used")
	}
	if err != nil {
		return boot, cluster.Errorf(cluster.CodeUnavailable, "SSH cannot be set up on this node: %v", err).
			WithHint("install and configure sshd, write [ssh] into noded.toml, or give --no-ssh-setup")
	}
	boot.HostKeys = set.hostKeys
	key, err := d.keys.found(ctx, f.Node, f.Init)
	boot.SSH = []cluster.SSHKey{key}
	return boot, err
}

// recoveryFile is where the encrypted recovery key of a cluster is stored.
func (d *Daemon) recoveryFile(id cluster.UUID) string {
	return filepath.Join(d.cfg.Paths.StateDir(), "recovery-"+id.String()+".age")
}

// recovery makes the recovery key and confirms that its private half is stored
// before anything depends on it. A second run finds what the first stored.
func (d *Daemon) recovery(f founding, recipients []string) (candmap.Recovery, string, error) {
	if f.Init.NoRecoveryKey {
		return candmap.Recovery{Keys: []candmap.SigningKey{}}, "", nil
	}
	path, note := d.recoveryFile(f.Cluster), filepath.Join(d.initDir(), recoveryNote)
	var kept candmap.Recovery
	if ok, err := readStrict(note, &kept); err != nil || ok {
		return kept, path, err
	}
	if len(recipients) == 0 {
		recipients = f.Init.RecoveryRecipient
	}
	made, err := pki.NewRecovery(f.Cluster, recipients)
	if err != nil {
		return kept, "", badRequest("%v", err)
	}
	if err := atomicfile.Write(path, made.Ciphertext, atomicfile.Durable(0o600)); err != nil {
		return kept, "", fmt.Errorf("store recovery key: %w", err)
	}
	stored, err := readSmall(path)
	if err != nil || !bytes.Equal(stored, made.Ciphertext) {
		return kept, "", fmt.Errorf("store recovery key: it does not read back as written: %w", err)
	}
	kept = candmap.Recovery{Threshold: 1, Keys: []candmap.SigningKey{candmap.SigningKey(made.Public)}}
	return kept, path, writeJSON(note, kept)
}
