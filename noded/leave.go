package noded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/noded/masterip"
	"rolekey/pki"
	"rolekey/rpc"
)

// serveLeave takes this machine out of its cluster, whatever the cluster
// thinks: local root decides. It destroys all keys, takes the cluster out of
// SSH's files, and the identity last, so that running it again completes it.
func (d *Daemon) serveLeave(ctx context.Context, _ *struct{}) (any, error) {
	end, err := d.begin("")
	if err != nil {
		return nil, err
	}
	defer end()
	id, err := readIdentity(d.cfg.Paths.NodeDir())
	if err != nil {
		return nil, err
	}
	if id == nil && !exists(d.initDir()) && !exists(d.joinDir()) && !exists(d.restoreDir()) {
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node is in no cluster")
	}
	if err := d.leave(context.WithoutCancel(ctx), id); err != nil {
		return nil, fmt.Errorf("leave cluster: %w", err)
	}
	d.log.Warn("this node has left its cluster by order of local root")
	return nil, nil
}

func (d *Daemon) leave(ctx context.Context, id *identity) error {
	defer d.shutDown()()
	if err := d.masterd.forget(ctx); err != nil {
		return err
	}
	reply, err := destroyAll(ctx, d.keys, d.masterd)
	if err == nil && len(reply.Problems) > 0 {
		err = fmt.Errorf("destroy keys: %q", reply.Problems)
	}
	if err != nil {
		return err
	}
	if id != nil {
		ssh := &sshFiles{at: d.cfg.Paths, self: *id, finder: d.ssh, command: d.command, held: d.keys, log: d.log, now: d.cfg.now}
		if err := ssh.remove(ctx); err != nil {
			return fmt.Errorf("take the cluster out of SSH's files: %w", err)
		}
	}
	if err := masterip.Release(d.cfg.Kernel, d.addressFile()); err != nil {
		return err
	}
	if err := newFactFiles(d.cfg.Paths).remove(); err != nil {
		return err
	}
	return d.erase()
}

// erase removes the state, secrets first and the identity last.
func (d *Daemon) erase() error {
	dir := d.cfg.Paths.NodeDir()
	for _, p := range []string{d.initDir(), d.joinDir(), d.restoreDir(), d.cfg.Paths.MapDir()} {
		if err := os.RemoveAll(p); err != nil {
			return fmt.Errorf("remove state: %w", err)
		}
	}
	var errs []error
	if exists(dir) {
		for _, name := range []string{serverPair, identityPair} {
			errs = append(errs, pki.Files{Dir: dir, Name: name}.Remove())
		}
		for _, name := range []string{gossipFile, termFile, contactFile, sweepFile, evictedFile, addressNote, placesFile, "ca.pem", identityFile} {
			errs = append(errs, atomicfile.Remove(filepath.Join(dir, name)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove state: %w", err)
	}
	return os.RemoveAll(dir)
}

// serveStatus tells where this node stands.
func (d *Daemon) serveStatus(context.Context, *struct{}) (any, error) {
	d.mu.Lock()
	m, problem, phase := d.member, d.problem, d.phase
	d.mu.Unlock()
	var s rpc.LocalStatusReply
	if problem != nil {
		s.Problem = problem.Error()
	}
	id, err := readIdentity(d.cfg.Paths.NodeDir())
	switch {
	case err != nil:
		return nil, err
	case id != nil:
		s.State, s.Cluster, s.Node, s.Name = "member", id.Cluster, id.Node, id.Name
	case phase != "":
		s.State = phase
	case exists(d.initDir()):
		s.State, s.Problem = "initializing", "gnt-cluster init was interrupted; run it again to complete it"
	case exists(d.restoreDir()):
		s.State, s.Problem = "initializing", "gnt-cluster restore was interrupted; run it again to complete it, or give it up with noded leave --yes"
	case exists(d.joinDir()):
		s.State, s.Problem = "joining", "noded join was interrupted; run it again to complete it"
	default:
		s.State = "none"
	}
	if m != nil && id != nil {
		m.status(&s)
	}
	return s, nil
}

func (m *member) status(s *rpc.LocalStatusReply) {
	v := m.keeper.View()
	s.Name, s.Version, s.Fresh, s.Role = m.name(), v.At(), m.keeper.Fresh(), cluster.RoleRegular.String()
	if err := m.keeper.Damage(); err != nil {
		s.Problem = err.Error() + "; " + howToTrust
	}
	if v.Map == nil {
		return
	}
	s.Hash = v.Map.Hash
	if c := v.Map.Candidate(v.Map.Master); c != nil {
		s.Master = c.Name
	}
	if n := m.self(); n != nil {
		s.Role = n.Flags.Role(v.Map.Master == n.UUID).String()
	}
	switch {
	case m.removed():
		s.State, s.Problem = "removed", "the cluster no longer lists this node: run noded leave --yes, and noded join with a new admission string to come back"
	case !s.Fresh && m.lapsed() != "":
		s.Problem = m.lapsed()
	case !s.Fresh && m.keeper.Lease().TrustExpired(m.cfg.clocks()()):
		s.Problem = "nothing was heard for more than 30 days; if the voters changed meanwhile, " + howToTrust
	case m.unheard() != "":
		s.Problem = m.unheard()
	case !s.Fresh:
		s.Problem = "the map is stale: no beacon of the master arrives"
	}
}

const howToTrust = "compare the hash that gnt-cluster map shows on the master, and run noded trust HASH"

// warnRemoved tells once, loudly, that the cluster dropped this node.
func (m *member) warnRemoved() {
	if m.removed() && m.told.CompareAndSwap(false, true) {
		m.log.Error("this node is no longer in its cluster; run noded leave --yes, or noded join after that to come back",
			zap.Stringer("cluster", m.id.Cluster), zap.Stringer("node", m.id.Node))
	}
}
