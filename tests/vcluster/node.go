package vcluster

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/ssh"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/memnet"
	"rolekey/internal/paths"
	"rolekey/masterd"
	"rolekey/noded"
	"rolekey/rpc"
)

// restartPause is how long a daemon that failed stays down, as under systemd.
const restartPause = time.Second

// Node is one machine of the cluster.
type Node struct {
	Name cluster.Name
	Addr netip.Addr
	Host *memnet.Host
	ID   cluster.NodeID // set by Init and Join

	// Skew is how far the node's wall clock is ahead. Set it while the node
	// is down.
	Skew time.Duration

	c      *Cluster
	socks  *sockets
	lives  int // roots used so far
	at     paths.Layout
	local  *rpc.LocalClient
	socket string // of noded
	files  fileTimes
	fault  func(step string) error // what masterd's recovery fails with before a step; nil: nothing
	run    *life                   // nil while the node is down
}

// life is one run of a node's daemons.
type life struct {
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu      sync.Mutex
	masterd *masterd.Daemon
	exits   []error // of daemons that ended by themselves
}

func (c *Cluster) newNode(i int) *Node {
	addr := netip.AddrFrom4([4]byte{10, 77, 0, byte(i)})
	n := &Node{
		Name: cluster.Name(fmt.Sprintf("node%d.vc.test", i)), Addr: addr, c: c, Host: c.Net.Host(addr),
		socks: newSockets(c.inner.Host(addr)),
	}
	n.local = rpc.NewLocalClient(func(ctx context.Context) (net.Conn, error) { return n.socks.dial(ctx, n.socket) })
	n.newRoot()
	n.socket = n.at.NodedSock()
	n.prepare()
	return n
}

// prepare makes what a machine has that was just set up.
func (n *Node) prepare() {
	c := n.c
	for _, dir := range []string{"/root/.ssh", "/etc/ssh", "/var/lib/rolekey/masterd"} {
		c.must(os.MkdirAll(n.at.In(dir), 0o700))
	}
	c.must(os.WriteFile(n.hostKeyFile(), hostKey(c), 0o644))
}

// KnownHosts is what root's file on this node says.
func (n *Node) KnownHosts() (string, error) {
	text, err := os.ReadFile(n.at.In("/root/.ssh/known_hosts"))
	return string(text), err
}

// newRoot moves the node to a new folder.
func (n *Node) newRoot() {
	n.lives++
	n.at = paths.Layout{Root: filepath.Join(n.c.dir, fmt.Sprintf("%s.%d", n.Short(), n.lives))}
}

// Paths tells where the node's files are now: a crash moves them.
func (n *Node) Paths() paths.Layout { return n.at }

// Short is the node's name without the domain.
func (n *Node) Short() string {
	for i, r := range n.Name {
		if r == '.' {
			return string(n.Name[:i])
		}
	}
	return string(n.Name)
}

// Up reports whether the node's daemons run.
func (n *Node) Up() bool { return n.run != nil }

// AuthorizedKeys is root's file on this node.
func (n *Node) AuthorizedKeys() string { return n.at.In("/root/.ssh/authorized_keys") }

func (n *Node) hostKeyFile() string { return n.at.In("/etc/ssh/ssh_host_ed25519_key.pub") }

func hostKey(c *Cluster) []byte {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	c.must(err)
	key, err := ssh.NewPublicKey(public)
	c.must(err)
	return ssh.MarshalAuthorizedKey(key)
}

// now is the node's own wall clock.
func (n *Node) now() time.Time { return time.Now().Add(n.Skew) }

func (n *Node) clocks() candmap.Clocks {
	return candmap.Clocks{Wall: n.now(), Boot: time.Since(n.c.start)}
}

func (n *Node) listen(_ context.Context, addrs []netip.AddrPort) ([]net.Listener, error) {
	var list []net.Listener
	for _, a := range addrs {
		l, err := n.Host.Listen("tcp", a)
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

func (n *Node) listenAway(_ context.Context, addr netip.AddrPort) (net.Listener, error) {
	return n.Host.Listen("tcp", addr)
}

func (n *Node) dial(ctx context.Context, _ netip.Addr, to netip.AddrPort) (net.Conn, error) {
	return n.Host.Dial(ctx, to)
}

func (n *Node) nodedConfig() noded.Config {
	return noded.Config{
		Paths: n.at, Addresses: []netip.Addr{n.Addr}, Log: n.c.logs.of(n.Short() + " noded"), Now: n.now, Clocks: n.clocks,
		Listen: n.listen, Dial: n.dial, ListenLocal: n.socks.listen, DialLocal: n.socks.dial, Gossip: n.Host, FileTime: n.fileTime(),
		ShowsHostKeys: func(context.Context, netip.AddrPort, []cluster.SSHKey) error { return nil },
		Unwatched:     true, // the kernel knows no virtual time
		SSH: noded.SSHConfig{
			AuthorizedKeys: n.AuthorizedKeys(), KnownHosts: n.at.In("/root/.ssh/known_hosts"), Home: n.at.RootHome(),
			HostKeys: []string{n.hostKeyFile()}, SSHD: n.c.sshd,
		},
	}
}

func (n *Node) masterdConfig() masterd.Config {
	return masterd.Config{
		Paths: n.at, Addresses: []netip.Addr{n.Addr}, Log: n.c.logs.of(n.Short() + " masterd"), Now: n.now, Clocks: n.clocks,
		Listen: n.listen, ListenAway: n.listenAway, Dial: n.dial, ListenLocal: n.socks.listen, DialLocal: n.socks.dial, Timing: n.c.opts.Timing,
		Crash: func(step string) error {
			if n.fault == nil {
				return nil
			}
			return n.fault(step)
		},
	}
}

// Start starts the daemons of a node that is down.
func (n *Node) Start() {
	n.c.t.Helper()
	if n.run != nil {
		n.c.t.Fatalf("%s runs already", n.Short())
	}
	n.Host.Start()
	n.socks.host.Start()
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{cancel: cancel}
	n.run = l
	log := n.c.logs.of(n.Short())
	l.supervise(ctx, log, "noded", func(ctx context.Context) error {
		d, err := noded.New(n.nodedConfig())
		if err != nil {
			return err
		}
		return d.Run(ctx, func() {})
	})
	l.supervise(ctx, log, "masterd", func(ctx context.Context) error {
		d := masterd.New(n.masterdConfig())
		l.mu.Lock()
		l.masterd = d
		l.mu.Unlock()
		return d.Run(ctx, func() {})
	})
}

// supervise runs a daemon, and runs it again when it fails, until ctx ends.
func (l *life) supervise(ctx context.Context, log *zap.Logger, name string, run func(context.Context) error) {
	l.ended.Go(func() {
		for {
			err := run(ctx)
			if ctx.Err() != nil {
				return
			}
			log.Warn("daemon ended", zap.String("daemon", name), zap.Error(err))
			l.mu.Lock()
			l.exits = append(l.exits, fmt.Errorf("%s: %w", name, err))
			l.mu.Unlock()
			select {
			case <-time.After(restartPause):
			case <-ctx.Done():
				return
			}
		}
	})
}

// Masterd is the node's masterd, nil while the node is down.
func (n *Node) Masterd() *masterd.Daemon {
	if n.run == nil {
		return nil
	}
	n.run.mu.Lock()
	defer n.run.mu.Unlock()
	return n.run.masterd
}

// ready returns nil if the node is master in office.
func (n *Node) ready() error {
	d := n.Masterd()
	if d == nil {
		return errors.New("masterd does not run")
	}
	return d.Ready()
}

// Exits tells why daemons of this run ended by themselves.
func (n *Node) Exits() []error {
	if n.run == nil {
		return nil
	}
	n.run.mu.Lock()
	defer n.run.mu.Unlock()
	return append([]error(nil), n.run.exits...)
}

// dialMasterd connects to masterd's socket.
func (n *Node) dialMasterd(ctx context.Context) (net.Conn, error) {
	return n.socks.dial(ctx, n.at.MasterdSock())
}

// Status asks noded.
func (n *Node) Status() (rpc.LocalStatusReply, error) {
	var s rpc.LocalStatusReply
	if n.run == nil {
		return s, errors.New("the node is down")
	}
	err := n.local.Do(n.c.t.Context(), "GET", rpc.LocalStatus, nil, &s)
	return s, err
}

// View is what noded tells masterd: the map in force, the beacon, the roster.
func (n *Node) View() (rpc.LocalViewReply, error) {
	var v rpc.LocalViewReply
	if n.run == nil {
		return v, errors.New("the node is down")
	}
	err := n.local.Do(n.c.t.Context(), "GET", rpc.LocalView, nil, &v)
	return v, err
}

// fileTimes dates files by the bubble's clock, which the file system does not
// know: by when they were first seen as they are.
type fileTimes struct {
	mu   sync.Mutex
	seen map[string]sighting // by the path below the root
}

type sighting struct {
	real time.Time
	size int64
	at   time.Time
}

// fileTime serves one run, whose folder stays where it is. Whoever asks for one
// of a candidate's files has all of them looked at.
func (n *Node) fileTime() func(path string) (time.Time, error) {
	at := n.at
	return func(path string) (time.Time, error) {
		for _, f := range candidateFiles(at) {
			_, _ = n.files.of(f, strings.TrimPrefix(f, at.Root)) // it need not be there
		}
		return n.files.of(path, strings.TrimPrefix(path, at.Root))
	}
}

func (f *fileTimes) of(path, name string) (time.Time, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return time.Time{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := sighting{info.ModTime(), info.Size(), time.Now()}
	was, ok := f.seen[name]
	if ok && was.real.Equal(now.real) && was.size == now.size {
		return was.at, nil
	}
	if f.seen == nil {
		f.seen = map[string]sighting{}
	}
	f.seen[name] = now
	return now.at, nil
}
