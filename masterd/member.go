package masterd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/task"
	"rolekey/masterd/consensus"
	"rolekey/masterd/keyserver"
	"rolekey/pki"
	"rolekey/rpc"
)

// member is this node's life as a candidate: raft, the RPC server on the
// masterd port, the signer, and the leader's work when it is elected. It is
// started when the map names this node with a certificate that it holds, and
// ended when the map no longer does.
type member struct {
	d       *Daemon
	self    standing
	keeper  *candmap.Keeper
	node    *consensus.Node
	started atomic.Pointer[consensus.Node] // node, for those who may ask before it is set
	store   *consensus.Store
	client  *rpc.Client
	server  *rpc.Server
	signer  *signer
	seen    *seenBook
	keys    *keyserver.Server
	intro   *introducer
	log     *zap.Logger
	office  office
}

// newMember opens everything and checks that the disk is no restored copy.
// Nothing votes or signs before that.
func newMember(ctx context.Context, d *Daemon, self standing) (*member, error) {
	m := &member{d: d, self: self, keeper: self.keeper, seen: newSeenBook(), log: d.log.Named("member")}
	roots := self.roots.Load
	var err error
	m.client, err = rpc.NewClient(rpc.ClientConfig{
		Certificate: d.certificate, Roots: roots, View: m.keeper.View, Hints: d.hinted, LocalAddr: d.cfg.bindAddress(), Dial: d.cfg.Dial, Log: m.log, Now: d.cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	m.intro = newIntroducer(m.client, m.keeper, d.evicts, m.log)
	if err := m.openRaft(ctx); err != nil {
		return nil, errors.Join(err, m.client.Close())
	}
	if err := m.serve(ctx, roots); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *member) openRaft(ctx context.Context) error {
	at := m.d.cfg.Paths
	ring := m.d.vault.keyring()
	if ring == nil || m.d.vault.signer() == nil {
		return errors.New("start as a candidate: its keys are gone")
	}
	store, err := consensus.OpenStore(consensus.StoreConfig{Path: at.RaftDB(), Sealer: ring})
	if err != nil {
		return err
	}
	snaps, err := consensus.OpenSnapshots(consensus.SnapshotsConfig{Dir: at.SnapshotDir(), Keyring: ring})
	var position consensus.Position
	if err == nil {
		position, err = consensus.Probe(store, snaps)
	}
	var last signed
	if err == nil {
		last, err = readSigned(store)
	}
	if err == nil {
		err = m.checkCopy(ctx, position, last)
	}
	if err != nil {
		return errors.Join(err, store.Close())
	}
	m.store = store
	id := consensus.ServerID(m.self.node, m.self.incarnation)
	m.node, err = consensus.New(consensus.Config{
		ID: id, Logs: store, Stable: store, Snapshots: snaps, Sender: sender{m.client, m.d.evicts, m.intro.refused}, Hooks: consensus.Hooks{MayDepose: m.mayDepose, Confirmed: m.confirmed},
		Logger: m.d.logger("raft"), Fatal: m.d.fatal, Timing: m.d.cfg.Timing,
	})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	m.started.Store(m.node)
	m.signer, err = newSigner(m.node, m.self.node, m.d.vault.signers, store, m.d.cfg.Now)
	if err == nil {
		m.signer.evicts = m.d.evicts
	}
	if err != nil {
		return errors.Join(err, m.node.Close(), store.Close())
	}
	return nil
}

// checkCopy compares this disk with what others have seen from this node: the
// reachable candidates, and the maps that its own noded holds. A disk that is
// behind is a copy: two of a kind could vote or sign twice.
func (m *member) checkCopy(ctx context.Context, p consensus.Position, last signed) error {
	if at := m.newestSigned(); at.Newer(last.Version) {
		return fmt.Errorf("%w (this node's noded holds map %s with its signature, this disk signed %s)", errRestored, at, last.Version)
	}
	index := max(p.LastIndex, p.SnapshotIndex)
	for name, seen := range m.askAllSeen(ctx) {
		if seen.Term > p.Term || seen.Term == p.Term && seen.Index > index {
			return fmt.Errorf("%w (%s saw term %d index %d, this disk has term %d index %d)", errRestored, name, seen.Term, seen.Index, p.Term, index)
		}
		if seen.Version.Newer(last.Version) {
			return fmt.Errorf("%w (%s has a signature of map %s, this disk signed %s)", errRestored, name, seen.Version, last.Version)
		}
	}
	return nil
}

// newestSigned returns the newest map that this node holds and that carries a
// signature of a key of its own.
func (m *member) newestSigned() cluster.Version {
	var own []candmap.SigningKey
	for _, k := range m.d.vault.signers() {
		own = append(own, publicKey(k))
	}
	var newest cluster.Version
	for _, env := range append(m.keeper.Chain(), m.keeper.View().Map.Envelope) {
		if env.Signers(own) == 0 {
			continue
		}
		if signed, err := candmap.DecodeMap(env.Payload); err == nil && signed.At().Newer(newest) {
			newest = signed.At()
		}
	}
	return newest
}

// askAllSeen asks the other candidates, all at once; those that do not answer
// are left out.
func (m *member) askAllSeen(ctx context.Context) map[cluster.Name]rpc.Seen {
	var mu sync.Mutex
	var all sync.WaitGroup
	answers := map[cluster.Name]rpc.Seen{}
	for _, c := range m.keeper.View().Map.Candidates {
		if c.UUID == m.self.node || m.d.evicts(c.UUID) {
			continue
		}
		all.Go(func() {
			seen, err := m.askSeen(ctx, c.UUID)
			if err != nil {
				m.log.Info("candidate does not tell what it saw of this node", zap.String("node", string(c.Name)), zap.Error(err))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[c.Name] = seen.Seen
		})
	}
	all.Wait()
	return answers
}

func (m *member) askSeen(ctx context.Context, peer cluster.NodeID) (rpc.SeenReply, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var seen rpc.SeenReply
	err := m.client.Call(ctx, rpc.Target{Node: peer, Daemon: rpc.Masterd}, rpc.MethodSeen, m.self.node.String(), nil, &seen)
	m.intro.refused(peer, err)
	return seen, err
}

// answers reports whether a candidate's masterd is there.
func (m *member) answers(ctx context.Context, peer cluster.NodeID) bool {
	_, err := m.askSeen(ctx, peer)
	return err == nil
}

func (m *member) serve(ctx context.Context, roots func() *pki.Roots) error {
	var addrs []netip.AddrPort
	for _, a := range m.d.cfg.listenAddresses() {
		addrs = append(addrs, netip.AddrPortFrom(a, m.self.ports.Masterd))
	}
	listeners, err := m.d.cfg.Listen(ctx, addrs)
	if err != nil {
		return err
	}
	m.server, err = rpc.NewServer(rpc.ServerConfig{
		Listeners: listeners, Certificate: m.d.certificate, Roots: roots, View: m.keeper.View, Fresh: m.keeper.Fresh, Evicted: m.d.evicts,
		Log: m.log, Node: m.self.name, Audit: rpc.AuditTo(m.d.audit), Now: m.d.cfg.Now,
	})
	if err != nil {
		return err
	}
	m.keys = keyserver.New(m, m.d.cfg.Now)
	m.routes()
	return nil
}

// run takes part until ctx ends.
func (m *member) run(ctx context.Context) error {
	g := task.New(ctx)
	g.Go("rpc", m.server.Run)
	g.Go("introductions", m.intro.run)
	g.Go("leadership", m.watchLeadership)
	g.Go("rapi", m.serveRAPI)
	return errors.Join(g.Wait(), m.close())
}

func (m *member) close() error {
	var errs []error
	if m.server != nil {
		errs = append(errs, m.server.Close())
	}
	if m.node != nil {
		errs = append(errs, m.node.Close())
	}
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	errs = append(errs, m.client.Close())
	return errors.Join(errs...)
}

// watchLeadership runs the leader's work for as long as raft says so.
func (m *member) watchLeadership(ctx context.Context) error {
	leads := m.node.Leadership()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case is := <-leads:
			if is {
				m.leadOnce(ctx, leads)
			}
		}
	}
}

// leadOnce leads for one term and ends when raft says that it is over, or when
// the work fails; then leadership is handed on, so that another may do better.
func (m *member) leadOnce(ctx context.Context, leads <-chan bool) {
	term, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := m.newLeader()
	done := make(chan error, 1)
	go func() { done <- l.run(term) }() // waited for below
	m.office.enter(l)
	defer m.office.leave()
	m.log.Info("leading", zap.Uint64("term", m.node.Term()))
	for {
		select {
		case is := <-leads:
			if is {
				continue
			}
			cancel(errors.New("leadership is over"))
			<-done
			return
		case err := <-done:
			m.log.Warn("leading has ended", zap.Error(err))
			if ctx.Err() == nil && m.node.Leads() {
				m.handOn(ctx)
				done, l = make(chan error, 1), m.newLeader()
				m.office.enter(l)
				go func() { done <- l.run(term) }()
				continue
			}
			return
		}
	}
}

// handOn gives leadership to another voter after this node failed in office, say
// because its clock is wrong. Where there is no other, this one tries again,
// after a pause.
func (m *member) handOn(ctx context.Context) {
	giving, cancel := context.WithTimeout(ctx, handOnLimit)
	defer cancel()
	if err := m.node.Resign(giving); err != nil {
		m.log.Info("nobody takes leadership over", zap.Error(err))
	}
	_ = pause(ctx, publishPause)
}

// handOnLimit bounds the search for another leader.
const handOnLimit = 3 * time.Second

// rosterDocs returns documents of the newest roster.
func (m *member) rosterDocs(missing []cluster.Digest) [][]byte {
	return wanted(m.node.State().Roster(), missing)
}

func (m *member) newLeader() *leader {
	calls := calls{client: m.client, member: m}
	return &leader{
		node: m.node, self: m.self.node, own: memberCert{m}, keeper: m.keeper, nodes: calls, ask: calls, repairs: calls, settles: calls, scripts: calls, client: m.client, evicts: m.d.evicts, sign: m.signOrAsk, alive: m.answers, levelOf: calls.levelOf,
		push:  &pusher{call: calls, reach: newReach(), now: m.d.cfg.Now, chain: m.keeper.Since, docs: m.rosterDocs},
		clock: newClock(m.d.cfg.Now), log: m.log.Named("leader"), audit: m.d.audit, work: m.d.runJobs,
		publishing: make(chan struct{}, 1), moving: make(chan struct{}, 1), pinning: make(chan struct{}, 1), wake: make(chan struct{}, 1), admitting: make(chan struct{}, 1), ready: make(chan struct{}), ensured: map[cluster.NodeID]ensured{},
		again: map[cluster.NodeID]time.Time{},
	}
}

// signOrAsk gets signatures from this node's own signer or from a peer's.
func (m *member) signOrAsk(ctx context.Context, voter cluster.NodeID, req rpc.SignRequest) ([]candmap.Signature, error) {
	if voter == m.self.node {
		return m.signer.sign(ctx, voter, req)
	}
	if m.d.evicts(voter) {
		return nil, errEvicted
	}
	var reply rpc.SignReply
	asked := m.keeper.View().Map.Candidate(voter)
	if err := m.client.Call(ctx, rpc.Target{Node: voter, Daemon: rpc.Masterd}, rpc.MethodSign, "", req, &reply); err != nil {
		m.intro.refused(voter, err)
		return nil, err
	}
	if reply.ClockOnly {
		return nil, errClockOnly
	}
	if req.PayloadType == candmap.MapType && asked != nil {
		m.seen.note(lifeOf(asked), rpc.Seen{Version: req.Version})
	}
	return append([]candmap.Signature{reply.Signature}, reply.Also...), nil
}
