package noded

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/filewatch"
	"rolekey/internal/task"
	"rolekey/noded/masterip"
	"rolekey/pki"
	"rolekey/rpc"
)

// member is this machine's life as a node of a cluster: all that runs while it
// has an identity.
type member struct {
	cfg     *Config
	log     *zap.Logger
	audit   *audit.Log
	id      identity
	roots   rootsFile
	keeper  *candmap.Keeper
	store   candmap.Store // the keeper's
	server  *rpc.Server
	client  *rpc.Client
	ssh     *sshFiles
	facts   *factFiles
	address *masterip.Holder
	logins  *sessions
	gossip  *gossip.Gossip
	keys    keyDir
	masterd *localMasterd
	certs   map[string]*liveCert
	terms   *terms
	evicted *evictions
	hooks   *hooks
	step    func(name string) error // where tests make a crash
	hints   *hints
	hosts   *hostWatch
	strange strangeLogins
	watch   *filewatch.Watcher // of SSH's files; nil: not watched

	news        bell // view, beacon or freshness changed
	pullNow     chan struct{}
	sweepNow    chan struct{} // keys may have to be destroyed
	hostsNow    chan struct{} // sshd may have other host keys
	keyTurn     chan struct{} // held by whoever makes or destroys keys
	settleTurn  chan struct{} // held by whoever waits for logins
	rekeyNow    chan struct{} // a node is gone, and knows the gossip key: before feature level 3
	contacted   chan struct{} // closed once the keyserver knows that this node has joined
	ringTurn    sync.Mutex    // held by whoever changes the gossip keys
	ring        atomic.Pointer[[]cluster.Secret]
	demoted     atomic.Bool             // a newer map took the candidate role in this run
	refused     atomic.Bool             // candidates say that this node is not in the roster
	told        atomic.Bool             // that the node is removed has been logged
	undone      atomic.Bool             // calls of a revoked peer still ran at the last look
	heard       atomic.Bool             // the map has been fresh in this run
	awaited     atomic.Pointer[awaited] // nil: local root vouches for none at present
	serial      atomic.Uint64
	authorizing sync.Mutex
	followed    atomic.Pointer[followed] // nil: it is not known
	lookNow     atomic.Bool              // at all of SSH's files
	began       time.Time
}

// liveCert is a certificate in use, which renewal replaces.
type liveCert struct {
	files pki.Files
	turn  sync.Mutex // for whoever uses files
	pair  atomic.Pointer[pki.Pair]
}

func openCert(dir, name string) (*liveCert, error) {
	c := &liveCert{files: pki.Files{Dir: dir, Name: name}}
	return c, c.reload()
}

func (c *liveCert) reload() error {
	p, err := c.files.Load()
	if err != nil {
		return err
	}
	c.pair.Store(&p)
	return nil
}

// prepareAnew returns the key to use next in a renewal that the master leads.
func (c *liveCert) prepareAnew(now time.Time) (crypto.Signer, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	return c.files.PrepareAnew(now)
}

// prepare returns the key to use next.
func (c *liveCert) prepare() (crypto.Signer, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	return c.files.Prepare()
}

// install uses a certificate from now on.
func (c *liveCert) install(cert *x509.Certificate) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	if err := c.files.Install(cert); err != nil {
		return err
	}
	return c.reload()
}

func (c *liveCert) tls() (*tls.Certificate, error) {
	t := c.pair.Load().TLS()
	return &t, nil
}

func (c *liveCert) identity() (pki.Identity, error) { return pki.Identify(c.pair.Load().Cert) }

// newMember opens what the node folder holds and listens. Close, or run, ends
// it.
func (d *Daemon) newMember(ctx context.Context, id identity) (*member, error) {
	m := &member{
		began: d.cfg.now(), cfg: &d.cfg, log: d.log, id: id, masterd: d.masterd, step: d.step, keys: d.keys, certs: map[string]*liveCert{}, hooks: newHooks(d.cfg.Paths),
		pullNow: make(chan struct{}, 1), sweepNow: make(chan struct{}, 1), hostsNow: make(chan struct{}, 1), keyTurn: make(chan struct{}, 1), settleTurn: make(chan struct{}, 1), rekeyNow: make(chan struct{}, 1),
		contacted: make(chan struct{}),
	}
	if !exists(filepath.Join(d.cfg.Paths.NodeDir(), contactFile)) {
		close(m.contacted)
	}
	m.audit = d.audit.With(func() string { return string(m.name()) }, func() cluster.Version { return m.keeper.View().At() })
	m.ssh = &sshFiles{at: d.cfg.Paths, self: id, sources: m.cfg.sources, finder: d.ssh, command: d.command, held: d.keys, log: d.log, audit: m.audit, now: d.cfg.now}
	if !d.cfg.Unwatched {
		m.watch = filewatch.New(d.log)
	}
	m.facts = newFactFiles(d.cfg.Paths)
	if err := d.keys.recover(id.Node); err != nil {
		d.log.Warn("the files of this node's SSH keys are not in order", zap.Error(err))
	}
	if err := m.openAddress(); err != nil {
		return nil, err
	}
	m.logins = &sessions{
		proc: "/proc", log: d.log, audit: m.audit, sshd: m.watched, step: d.step, wake: make(chan struct{}, 1),
		file:   filepath.Join(d.cfg.Paths.NodeDir(), sweepFile),
		admits: func(ctx context.Context) access { return m.ssh.access(ctx, m.keeper.View()) },
	}
	m.logins.load()
	if d.cfg.Paths.Root != "" {
		m.logins.local = d.cfg.Addresses // other nodes share this machine
	}
	dir := d.cfg.Paths.NodeDir()
	if err := m.roots.open(d.cfg.Paths.CACert()); err != nil {
		return nil, err
	}
	var err error
	for _, name := range []string{serverPair, identityPair} {
		if m.certs[name], err = openCert(dir, name); err != nil {
			return nil, err
		}
	}
	if m.evicted, err = openEvictions(dir, id.Cluster); err != nil {
		return nil, err
	}
	if err := m.openKeeper(); err != nil {
		return nil, err
	}
	if err := m.followRoots(m.keeper.View()); err != nil {
		m.log.Warn("the authorities of the roster are not kept on disk", zap.Error(err))
	}
	return m, m.open(ctx, dir)
}

func (m *member) openKeeper() error {
	store, err := candmap.NewFileStore(m.cfg.Paths.MapDir())
	if err != nil {
		return err
	}
	m.store = store
	m.keeper, err = candmap.NewKeeper(candmap.KeeperConfig{
		Cluster: m.id.Cluster, Store: store, Clocks: m.cfg.clocks(), Effects: m, Log: m.log.Named("map"),
		Provides: m.candidate, OnChange: func(*candmap.View) { m.changed() },
		OnStale: func(stale bool) { m.auditStale(stale); m.changed() },
		OnFork: func(f *candmap.ForkError) {
			m.auditFork(f)
			m.log.Error("attack: two signed maps of one version", zap.Error(f))
		},
	})
	return err
}

// open makes client and server. What it opened before an error is closed.
func (m *member) open(ctx context.Context, dir string) error {
	var err error
	if m.terms, err = openTerms(dir); err != nil {
		return err
	}
	m.hints = openHints(dir, m.log)
	m.openHosts(dir)
	if err := m.openGossip(dir); err != nil {
		return err
	}
	m.client, err = rpc.NewClient(rpc.ClientConfig{
		Certificate: m.certs[identityPair].tls, Roots: m.caRoots, View: m.keeper.View, Hints: m.hints.of,
		LocalAddr: m.cfg.bindAddress(), Dial: m.cfg.Dial, Log: m.log, Now: m.cfg.now,
	})
	if err != nil {
		return err
	}
	listeners, err := m.cfg.listen(ctx, m.id.Ports.Noded)
	if err != nil {
		return errors.Join(err, m.client.Close())
	}
	m.server, err = rpc.NewServer(rpc.ServerConfig{
		Listeners: listeners, Certificate: m.certs[serverPair].tls, Roots: m.caRoots, View: m.keeper.View, Fresh: m.keeper.Fresh, Evicted: m.evicted.has,
		Terms: m.terms, Log: m.log, Node: m.name, Audit: rpc.AuditTo(m.audit), Served: m.auditServed, Now: m.cfg.now,
	})
	if err != nil {
		return errors.Join(err, m.client.Close())
	}
	m.routes()
	return nil
}

func (m *member) caRoots() *pki.Roots { return m.roots.get() }

// listen opens the RPC port on the given addresses, or on all.
func (c *Config) listen(ctx context.Context, port uint16) ([]net.Listener, error) {
	addrs := c.Addresses
	if len(addrs) == 0 {
		list, err := c.Listen(ctx, []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), port)})
		if err == nil {
			return list, nil
		}
		addrs = []netip.Addr{netip.IPv4Unspecified()} // a machine without IPv6
	}
	var at []netip.AddrPort
	for _, a := range addrs {
		at = append(at, netip.AddrPortFrom(a, port))
	}
	return c.Listen(ctx, at)
}

// run serves until ctx ends.
func (m *member) run(ctx context.Context) error {
	g := task.New(ctx)
	g.Go("rpc", m.server.Run)
	g.Go("map", m.keeper.Run)
	g.Go("gossip", m.gossip.Run)
	g.Go("gossip key", m.followGossipKey)
	g.Go("ssh", m.maintainSSH)
	g.Go("ssconf", m.followFacts)
	if m.watch != nil {
		g.Go("file watch", m.watch.Run)
	}
	g.Go("sessions", m.logins.run)
	g.Go("masterd", m.followMasterd)
	g.Go("pull", m.pull)
	g.Go("keys", m.sweepKeys)
	g.Go("renewal", m.renew)
	g.Go("cluster address", m.address.Run)
	g.Go("own entry", m.followSelf)
	g.Go("host keys", m.followHostKeys)
	return errors.Join(g.Wait(), m.close())
}

func (m *member) close() error {
	err := errors.Join(m.server.Close(), m.client.Close())
	m.hooks.wait()
	return err
}

// self is this node in the roster in force, or nil.
func (m *member) self() *candmap.RosterNode {
	if r := m.keeper.View().Roster; r != nil {
		return r.Node(m.id.Node)
	}
	return nil
}

// name is what this node is called now.
func (m *member) name() cluster.Name {
	if n := m.self(); n != nil {
		return n.Name
	}
	return m.id.Name
}

// candidate reports whether the map names this node.
func (m *member) candidate(v *candmap.View) bool {
	return v.Map != nil && v.Map.Candidate(m.id.Node) != nil
}

// removed reports whether this node is no longer in the cluster, as far as it
// can tell. Candidates that do not know a node may just be behind, but then the
// node hears from the master.
func (m *member) removed() bool {
	v := m.keeper.View()
	return v.Complete() && v.Roster.Node(m.id.Node) == nil || m.refused.Load() && !m.keeper.Fresh()
}

// changed tells all who wait for news.
func (m *member) changed() {
	m.serial.Add(1)
	m.news.ring()
	m.address.Poke()
	poke(m.pullNow)
	poke(m.sweepNow)
}

// poke wakes a loop that may be busy.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pause waits, unless c wakes it or ctx ends, which is an error.
func pause(ctx context.Context, d time.Duration, c <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// bell wakes any number of waiters at once.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that closes at the next ring.
func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
