package masterd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/buildinfo"
	"rolekey/internal/task"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/seal"
)

// retryStart is how long a candidate waits that could not start.
const retryStart = time.Second

// Daemon is masterd. It idles until noded says that this node is a candidate.
type Daemon struct {
	cfg   Config
	log   *zap.Logger
	audit *audit.Log
	vault *vault

	mu      sync.Mutex
	self    *standing // nil: no cluster here, as far as is known
	member  *member   // nil: not a candidate, or not started
	problem error     // why it is not started
	changed chan struct{}
	intakes chan struct{} // held by whoever takes what noded says
	using   chan struct{} // held by a life as a candidate, from before it opens its files to the end, and by who destroys them

	evicted   atomic.Pointer[[]cluster.NodeID] // by local root; nil: noded has said nothing yet
	suspended atomic.Bool                      // no life as a candidate is to be: its state is being made anew
	pending   atomic.Pointer[recovered]        // nil, or a recovered map that noded does not hold yet

	hints    atomic.Pointer[map[cluster.NodeID][]netip.Addr] // where local root says that nodes are
	fatalErr chan error
}

// hinted is where local root says that a node is.
func (d *Daemon) hinted(id cluster.NodeID) []netip.Addr {
	if h := d.hints.Load(); h != nil {
		return (*h)[id]
	}
	return nil
}

// New makes a daemon; Run runs it once.
func New(cfg Config) *Daemon {
	cfg = cfg.withDefaults()
	d := &Daemon{
		cfg: cfg, log: cfg.Log, vault: newVault(cfg.Paths),
		changed: make(chan struct{}, 1), intakes: make(chan struct{}, 1), using: make(chan struct{}, 1), fatalErr: make(chan error, 1),
	}
	d.audit = audit.New(audit.Config{Path: cfg.Paths.MasterdAudit(), Daemon: "masterd", Now: cfg.Now, Log: d.log.Named("audit")}).
		With(d.nodeName, d.heldVersion)
	return d
}

// Run serves until ctx ends. ready is called when the socket answers.
func (d *Daemon) Run(ctx context.Context, ready func()) error {
	if err := d.resumeRecovery(); err != nil {
		return err
	}
	l, err := d.cfg.ListenLocal(d.cfg.Paths.MasterdSock(), 0o600)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer d.audit.Start(ctx, buildinfo.Version())()
	watched, err := d.newMonitor()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	g := task.New(ctx)
	g.Go("monitor", watched.Run)
	g.Go("socket", func(ctx context.Context) error {
		return rpc.ServeLocal(ctx, l, d.localRoutes())
	})
	g.Go("standing", d.followNode)
	g.Go("role", d.follow)
	g.Go("fatal", func(ctx context.Context) error {
		select {
		case err := <-d.fatalErr:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	ready()
	return g.Wait()
}

// fatal ends the daemon; the service manager starts it again.
func (d *Daemon) fatal(err error) {
	select {
	case d.fatalErr <- err:
	default:
	}
}

// follow starts and ends the life as a candidate as the map says.
func (d *Daemon) follow(ctx context.Context) error {
	for {
		if err := d.live(ctx); err != nil && ctx.Err() == nil {
			if errors.Is(err, errRestored) {
				d.setProblem(err)
				d.log.Error("not serving as a candidate", zap.Error(err))
				return err
			}
			d.log.Warn("candidate is not running; trying again", zap.Error(err))
			d.setProblem(err)
			_ = pause(ctx, retryStart)
			continue
		}
		select {
		case <-d.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// live runs the member, if the map names it, until the map no longer does or it
// fails.
func (d *Daemon) live(ctx context.Context) error {
	if err := d.use(ctx); err != nil {
		return err
	}
	defer d.unuse()
	self := d.standing()
	if self == nil || !d.mayStart() {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m, err := newMember(ctx, d, *self)
	if err != nil {
		return err
	}
	d.setMember(m)
	defer d.setMember(nil)
	done := make(chan error, 1)
	go func() { done <- m.run(ctx) }() // waited for below
	for {
		select {
		case err := <-done:
			return err
		case <-d.changed:
			if d.standing() != self || !d.mayStart() {
				cancel(errNotCandidate)
				err := <-done
				if errors.Is(err, errNotCandidate) {
					err = nil
				}
				d.log.Info("no longer a candidate")
				return err
			}
		}
	}
}

// use waits until nobody uses the candidate's files.
func (d *Daemon) use(ctx context.Context) error {
	select {
	case d.using <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *Daemon) unuse() { <-d.using }

var errNotCandidate = errors.New("this node is no longer a candidate")

// mayStart reports whether the map names this node with a certificate that
// the vault holds.
func (d *Daemon) mayStart() bool {
	self := d.standing()
	if self == nil || d.suspended.Load() {
		return false
	}
	ctx := seal.Context{Cluster: self.cluster, Node: self.node, Incarnation: self.incarnation}
	err := d.vault.open(ctx)
	d.vault.settle(d.listed())
	if err != nil {
		d.setProblem(err)
		d.log.Error("candidate keys cannot be opened", zap.Error(err))
		return false
	}
	cert := d.vault.certificate()
	m := self.keeper.View().Map
	if cert == nil || m == nil || d.awaits(m) {
		return false
	}
	c := m.ByClient(cluster.DigestOf(cert.Certificate[0]))
	if c == nil || c.UUID != self.node || c.Incarnation != self.incarnation {
		d.setProblem(nil)
		return false
	}
	if !mayServe(m, self.node, cert.Certificate[0], d.cfg.Now()) {
		d.setProblem(errCertExpired)
		return false
	}
	return true
}

func (d *Daemon) standing() *standing {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.self
}

func (d *Daemon) setMember(m *member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.member, d.problem = m, nil
}

func (d *Daemon) setProblem(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.problem = err
}

// running returns the member, or the reason why there is none.
func (d *Daemon) running() (*member, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.member != nil:
		return d.member, nil
	case d.problem != nil:
		return nil, cluster.Errorf(cluster.CodeUnavailable, "this candidate is not running: %v", d.problem)
	case d.self == nil:
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node is in no cluster").
			WithHint("found one with gnt-cluster init, or join one with noded join")
	default:
		return nil, cluster.Errorf(cluster.CodeNotMaster, "this node is no master candidate").
			WithHint("run the command on the master, which gnt-cluster getmaster names")
	}
}

// poke makes follow look again.
func (d *Daemon) poke() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// certificate is what masterd presents, as client and as server.
func (d *Daemon) certificate() (*tls.Certificate, error) {
	if c := d.vault.certificate(); c != nil {
		return c, nil
	}
	return nil, errors.New("no candidate certificate is installed")
}

// logger gives a library its own voice in the log.
func (d *Daemon) logger(name string) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.Warn, Output: zap.NewStdLog(d.log.Named(name)).Writer(), DisableTime: true})
}

// rootsOf reads the certificates of the cluster's authorities.
func rootsOf(ders ...[]byte) (*pki.Roots, error) {
	var certs []*x509.Certificate
	for _, der := range ders {
		cert, err := pki.ParseCertDER(der)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return pki.NewRoots(certs...)
}
