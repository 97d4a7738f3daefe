package noded

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
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
	sources func(*candmap.Roster, cluster.NodeID) sourcePicker
	finder  *sshFinder
	command *sshCommand
	held    keyDir
	log     *zap.Logger
	audit   *audit.Log
	now     func() time.Time

	mu         sync.Mutex
	places     *keyPlaces // nil until they are needed
	until      time.Time  // expiry-time in authorized_keys; zero: none is known
	wrote      string     // the file that was written in this run
	keys       string     // what the block authorized last, without the expiry
	report     sshkeys.Report
	problem    error
	former     []cluster.SSHKey  // of candidates that lost the role in this run
	derived    map[string]string // what was written last, by file
	madeFrom   *clientFacts      // what that was made from; nil: it may not be right
	repairs    repairs
	repairsAll int
	refusals   []string // why sshd lets nobody in
	waited     bool     // for a writer of authorized_keys, who has not ended
	watched    []string // files to be told of
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

// A file that another process is writing is not replaced; mostly it has done so
// after the blink of an eye.
const (
	writerTries = 10
	writerWait  = 50 * time.Millisecond
)

// authorize makes authorized_keys say what the map says. It is called at every
// map and now and then, and writes only when something is to be changed.
func (s *sshFiles) authorize(ctx context.Context, v *candmap.View, t trust) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 3 { // sshd may be told to ask noded from now on, or not any more
		if s.problem = s.authorizePatiently(ctx, v, t); s.problem != nil || !s.command.follow(ctx, v, s.self.Node) {
			break
		}
	}
	s.tellRepairs()
	return s.problem
}

// authorizePatiently waits a moment for somebody who writes the file, but not
// again and again for one who never ends: others wait for their turn meanwhile.
func (s *sshFiles) authorizePatiently(ctx context.Context, v *candmap.View, t trust) (err error) {
	tries := writerTries
	if s.waited {
		tries = 1
	}
	for try := 1; ; try++ {
		err = s.authorizeLocked(ctx, v, t)
		s.waited = errors.Is(err, sshkeys.ErrWriting)
		if !s.waited || try == tries || pause(ctx, writerWait, nil) != nil {
			return err
		}
	}
}

func (s *sshFiles) authorizeLocked(ctx context.Context, v *candmap.View, t trust) error {
	s.finder.refresh()
	set, err := s.finder.get(ctx)
	if err != nil {
		if !wantsSSH(v) && s.keys == "" {
			return nil // nothing is to be written, and nothing was
		}
		return err
	}
	s.look(set)
	list := authorized(v.Map.Map)
	if s.command.answers(v, set) {
		list = nil
	}
	if set.unread != nil && len(list) > 0 {
		s.refusals = append(slices.Clone(s.refusals), set.unread.Error())
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
	report, err := s.put(set, block)
	s.note(report)
	path := set.authorized.Path
	if n := len(report.Damage) + len(report.Repaired); n > 0 {
		s.repaired(path, n)
	} else if report.Changed && s.wrote == path && keys == s.keys && (set.options.NoExpiry || until.Equal(s.until)) {
		s.repaired(path, 1) // it should hold what was written there last
	}
	if err == nil {
		s.wrote = path
		s.until, s.keys = until, keys
	} else if until.After(s.until) {
		s.until = until // it may stand in the file, and is what the cluster is told
	}
	if errors.Is(err, sshkeys.ErrUnsafe) {
		s.finder.forget() // another file may be fit now
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

// look notes what sshd said.
func (s *sshFiles) look(set *sshSettings) {
	s.refusals = set.refusals
	s.watched = append([]string{set.known.Path, s.at.SSHDropIn(), s.finder.configFile()}, set.reads()...)
}

func (s *sshFiles) note(r sshkeys.Report) {
	for _, d := range append(append([]string(nil), r.Damage...), r.Repaired...) {
		s.log.Warn("authorized_keys was put right", zap.String("what", d))
	}
	if len(r.Unsafe) > 0 {
		s.log.Warn("sshd may refuse authorized_keys", zap.Strings("why", r.Unsafe))
	}
	if r.Disabled+r.InPlace > 0 {
		s.log.Error("lines were changed in place because the file cannot be replaced", zap.Int("revoked", r.Disabled), zap.Int("written", r.InPlace))
	}
	s.report = r
}

// derive writes what helps ssh to reach the other nodes: their host keys, and
// the drop-in. Both are rebuilt at start. With check the files are looked at;
// without it only what they are made of, which role changes leave as it is.
func (s *sshFiles) derive(ctx context.Context, v *candmap.View, check bool) error {
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
	from, fromErr := s.clientFacts(set, v)
	if !check && fromErr == nil && reflect.DeepEqual(s.madeFrom, &from) {
		return nil
	}
	block, blockErr := sshkeys.KnownHostsBlock(v.Map.Cluster, from.hosts)
	report, err := set.known.Apply(block)
	s.wroteDerived(set.known.Path, string(block.Bytes()), report.Changed, err)
	err = errors.Join(fromErr, blockErr, err, s.dropIn(from))
	if s.madeFrom = nil; err == nil {
		s.madeFrom = &from
	}
	return err
}

// clientFacts are what ssh's client files are made of.
type clientFacts struct {
	hosts  []sshkeys.Host
	config sshkeys.ClientConfig // but Bind, since functions do not compare
	own    []netip.Addr         // to leave from
}

func (s *sshFiles) clientFacts(set *sshSettings, v *candmap.View) (clientFacts, error) {
	c := sshkeys.ClientConfig{LocalUser: set.account.Name, User: set.account.Name, KnownHosts: set.known.Path}
	var entry []cluster.SSHKey
	if own := v.Map.Candidate(s.self.Node); own != nil {
		entry = own.SSH
	}
	var err error
	c.Identities, c.Agent, err = s.held.identities(s.self.Node, entry)
	return clientFacts{hostsOf(v.Roster), c, s.sources(v.Roster, s.self.Node).own}, err
}

// wroteDerived notes what a derived file holds now. If that is what it should
// have held before, somebody else had changed it.
func (s *sshFiles) wroteDerived(path, text string, changed bool, err error) {
	if changed && s.derived[path] == text {
		s.repaired(path, 1)
	}
	if err != nil {
		return
	}
	if s.derived == nil {
		s.derived = map[string]string{}
	}
	s.derived[path] = text
}

func hostsOf(r *candmap.Roster) []sshkeys.Host {
	var hosts []sshkeys.Host
	for _, n := range r.Nodes() {
		hosts = append(hosts, sshkeys.Host{Node: n.UUID, Name: n.Name, Addresses: n.Addresses, Port: n.Ports.SSH, Keys: n.HostKeys})
	}
	return hosts
}

// dropIn renders ssh's configuration.
func (f clientFacts) dropIn() ([]byte, error) {
	c := f.config
	c.Bind = sourcePicker{own: f.own, route: routeFrom}.to
	return c.Render(f.hosts)
}

func (s *sshFiles) dropIn(from clientFacts) error {
	text, renderErr := from.dropIn()
	if text == nil {
		return renderErr
	}
	changed, err := sshkeys.WriteClientConfig(s.at.SSHDropIn(), text)
	s.wroteDerived(s.at.SSHDropIn(), string(text), changed, err)
	return errors.Join(renderErr, err)
}

func (s *sshFiles) underiveLocked(set *sshSettings, id cluster.UUID) error {
	s.derived, s.madeFrom = nil, nil
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
		_, err = s.put(set, empty)
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
