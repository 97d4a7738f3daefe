package noded

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/paths"
	"rolekey/sshkeys"
)

// sshFiles keeps the SSH files of this machine in step with the map. It is
// their one writer.
type sshFiles struct {
	at      paths.Layout
	self    identity
	bind    netip.Addr
	finder  *sshFinder
	command *sshCommand
	log     *zap.Logger
	audit   *audit.Log
	now     func() time.Time

	mu      sync.Mutex
	until   time.Time // expiry-time in authorized_keys; zero: none is known
	wrote   bool      // in this run
	keys    string    // what the block authorized last, without the expiry
	report  sshkeys.Report
	problem error
	former  []cluster.SSHKey // of candidates that lost the role in this run
}

// trust is what the expiry of authorized keys depends on.
type trust struct {
	fresh bool
	last  time.Time // newest time heard
}

// wanted reports whether the cluster manages SSH: then the master at least has
// a key in the map.
func wantsSSH(v *candmap.View) bool {
	if v.Map == nil {
		return false
	}
	for _, c := range v.Map.Candidates {
		if len(c.SSH) > 0 {
			return true
		}
	}
	return false
}

// authorized lists whose keys open this node, from the map alone.
func authorized(m *candmap.Map) []sshkeys.Authorized {
	var list []sshkeys.Authorized
	for _, c := range m.Candidates {
		if len(c.SSH) == 0 || m.SSHReach == cluster.ReachMaster && c.UUID != m.Master {
			continue
		}
		list = append(list, sshkeys.Authorized{Node: c.UUID, Keys: c.SSH, From: c.From})
	}
	return list
}

// authorize makes authorized_keys say what the map says. It is called at every
// map and now and then, and writes only when something is to be changed.
func (s *sshFiles) authorize(ctx context.Context, v *candmap.View, t trust) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 3 { // sshd may be told to ask noded from now on, or not any more
		if s.problem = s.authorizeLocked(ctx, v, t); s.problem != nil || !s.command.follow(ctx, v, s.self.Node) {
			break
		}
	}
	return s.problem
}

func (s *sshFiles) authorizeLocked(ctx context.Context, v *candmap.View, t trust) error {
	set, err := s.finder.get(ctx)
	if err != nil {
		if !wantsSSH(v) && s.keys == "" {
			return nil // nothing is to be written, and nothing was
		}
		return err
	}
	list := authorized(v.Map.Map)
	if s.command.answers(v, set) {
		list = nil
	}
	keys := fmt.Sprintf("%v", list)
	until := s.expiry(v.Map.Map, t, keys != s.keys)
	if len(list) == 0 {
		until = time.Time{}
	}
	block, blockErr := sshkeys.AuthorizedBlock(v.Map.Cluster, list, until, set.options)
	if block.Cluster().IsZero() {
		return blockErr
	}
	block.Former = s.former
	report, err := set.authorized.Apply(block)
	s.note(report)
	s.auditRepair(set.authorized.Path, report, s.wrote && keys == s.keys && (set.options.NoExpiry || until.Equal(s.until)))
	if err == nil {
		s.wrote = true
		s.until, s.keys = until, keys
	}
	if set.options.NoExpiry {
		s.until = time.Time{}
	}
	return errors.Join(blockErr, err)
}

// expiry is until when sshd shall honour the keys. While the map is fresh it is
// set anew when the lines change anyway, at half-life, and when the lease was
// shortened. A stale node never prolongs: without a known expiry, as after a
// restart, it counts from the newest time that the cluster vouched for.
func (s *sshFiles) expiry(m *candmap.Map, t trust, changed bool) time.Time {
	lease, now := m.SSHLease(), s.now()
	if t.fresh {
		if left := s.until.Sub(now); !changed && left >= lease/2 && left <= lease {
			return s.until
		}
		return now.Add(lease).Truncate(time.Second)
	}
	bound := t.last.Add(lease).Truncate(time.Second)
	if s.until.IsZero() || s.until.After(bound) {
		return bound
	}
	return s.until
}

func (s *sshFiles) note(r sshkeys.Report) {
	for _, d := range append(append([]string(nil), r.Damage...), r.Repaired...) {
		s.log.Warn("authorized_keys was put right", zap.String("what", d))
	}
	if len(r.Unsafe) > 0 {
		s.log.Warn("sshd may refuse authorized_keys", zap.Strings("why", r.Unsafe))
	}
	if r.Disabled > 0 {
		s.log.Error("revoked keys were disabled in place because the file cannot be replaced", zap.Int("lines", r.Disabled))
	}
	s.report = r
}

// auditRepair writes down that somebody else changed the file, and that it was
// put right. Same says that it should hold what was written there last.
func (s *sshFiles) auditRepair(path string, r sshkeys.Report, same bool) {
	n := len(r.Damage) + len(r.Repaired)
	if n == 0 && !(same && r.Changed) {
		return
	}
	s.audit.Write(audit.Event{Act: audit.KeysRepaired, Target: path, Count: int64(max(1, n))})
}

// derive writes what helps ssh to reach the other nodes: their host keys, and
// the drop-in. Both are rebuilt at start.
func (s *sshFiles) derive(ctx context.Context, v *candmap.View) error {
	if v.Roster == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set, err := s.finder.get(ctx)
	if err != nil {
		if !wantsSSH(v) {
			return nil
		}
		return err
	}
	if !wantsSSH(v) {
		return s.underiveLocked(set, v.Map.Cluster)
	}
	hosts := hostsOf(v.Roster)
	block, blockErr := sshkeys.KnownHostsBlock(v.Map.Cluster, hosts)
	_, err = set.known.Apply(block)
	return errors.Join(blockErr, err, s.dropIn(set, hosts))
}

func hostsOf(r *candmap.Roster) []sshkeys.Host {
	var hosts []sshkeys.Host
	for _, n := range r.Nodes() {
		hosts = append(hosts, sshkeys.Host{Node: n.UUID, Name: n.Name, Addresses: n.Addresses, Port: n.Ports.SSH, Keys: n.HostKeys})
	}
	return hosts
}

func (s *sshFiles) dropIn(set *sshSettings, hosts []sshkeys.Host) error {
	c := sshkeys.ClientConfig{LocalUser: set.account.Name, User: set.account.Name, KnownHosts: set.known.Path, Bind: s.bind}
	dir := sshkeys.KeyDir{Path: s.at.SSHDir()}
	if _, err := dir.Load(); err == nil {
		c.Identity = dir.PrivateFile()
	}
	text, renderErr := c.Render(hosts)
	if text == nil {
		return renderErr
	}
	_, err := sshkeys.WriteClientConfig(s.at.SSHDropIn(), text)
	return errors.Join(renderErr, err)
}

func (s *sshFiles) underiveLocked(set *sshSettings, id cluster.UUID) error {
	empty, err := sshkeys.KnownHostsBlock(id, nil)
	if err == nil {
		_, err = set.known.Apply(empty)
	}
	return errors.Join(err, sshkeys.RemoveClientConfig(s.at.SSHDropIn()))
}

// remove takes everything of the cluster out of the SSH files.
func (s *sshFiles) remove(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, err := s.finder.get(ctx)
	if err != nil {
		return err
	}
	if err := s.command.withdraw(ctx); err != nil {
		return err
	}
	empty, err := sshkeys.AuthorizedBlock(s.self.Cluster, nil, time.Time{}, set.options)
	if err == nil {
		_, err = set.authorized.Apply(empty)
	}
	return errors.Join(err, s.underiveLocked(set, s.self.Cluster))
}

// revoked remembers the keys that next no longer authorizes, so that copies of
// them in lines of others are reported.
func (s *sshFiles) revoked(old, next *candmap.View) {
	if old.Map == nil {
		return
	}
	current := map[string]bool{}
	for _, c := range next.Map.Candidates {
		for _, k := range c.SSH {
			current[string(k.Blob)] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range old.Map.Candidates {
		for _, k := range c.SSH {
			if !current[string(k.Blob)] && len(s.former) < maxFormer {
				s.former = append(s.former, k)
			}
		}
	}
}

// maxFormer bounds the keys of former candidates that are looked for.
const maxFormer = 256

// expires returns the expiry in authorized_keys; zero: no key is there, or
// without one.
func (s *sshFiles) expires() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until
}
