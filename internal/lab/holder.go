package lab

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"rolekey/cluster"
)

// spec is what Up tells a new holder, on its standard input. That input then
// stays open: its end means that the process that called Up is gone.
type spec struct {
	Dir        string        `json:"dir"`
	Nodes      int           `json:"nodes"`
	Bin        string        `json:"bin"`
	Ports      cluster.Ports `json:"ports"`
	Machines   bool          `json:"machines"` // isolation netns
	Namespaces bool          `json:"namespaces"`
	Reason     string        `json:"reason"` // why there are none
	Purge      bool          `json:"purge"`  // remove DIR when the caller is gone
	ReadyMS    int64         `json:"ready_ms"`
	Tools      *sshTools     `json:"tools"`
}

func (s spec) isolation() string {
	if s.Machines {
		return IsolationNetns
	}
	return IsolationLoopback
}

func (s spec) readyLimit() time.Duration { return time.Duration(s.ReadyMS) * time.Millisecond }

// holder owns one cluster.
type holder struct {
	spec  spec
	user  *labUser
	tools *sshTools
	spawn *spawner
	cut   cutter // nil without namespaces
	lax   string // why StrictModes must be off; empty: it is on
	lock  *os.File

	// Of isolation netns alone.
	ip       string
	accounts *accounts
	usePAM   bool
	pam      string // what the machine lacks

	listener *net.UnixListener
	group    sync.WaitGroup // every goroutine that ends before the holder does
	ctx      context.Context
	cancel   context.CancelFunc

	mu       sync.Mutex // covers state, detached and purge
	state    *State
	detached bool
	purge    bool

	cutMu   sync.Mutex // orders changes of the routing rules
	blocked []string   // rules of blocked ports; cutMu covers them
	nodes   []*node
}

// node is one node; mu orders what changes its daemons.
type node struct {
	Node
	machine *machine // nil with isolation loopback
	mu      sync.Mutex
	daemons map[string]*daemon
}

// Which namespaces a process is in is, for all others, a question to its first
// thread, so no goroutine may take that one into a node's: it is main's own.
func init() {
	if os.Getenv(holderEnv) != "" {
		runtime.LockOSThread()
	}
}

// holderMain is the holder's whole life. It returns the exit code.
func holderMain() int {
	syscall.CloseOnExec(3)
	report := os.NewFile(3, "report")
	var s spec
	dec := json.NewDecoder(os.Stdin)
	if err := dec.Decode(&s); err != nil {
		fmt.Fprintln(os.Stderr, "read spec:", err)
		return 1
	}
	h, err := newHolder(s)
	if err != nil {
		killDescendants()                                             // nothing of a failed start outlives it
		_ = json.NewEncoder(report).Encode(reply{Error: toWire(err)}) // nobody to tell
		return 1
	}
	go h.followCaller()
	if err := json.NewEncoder(report).Encode(reply{State: h.state}); err != nil {
		h.cancel()
	}
	report.Close()
	return h.run()
}

// newHolder makes the namespaces, the trees and the socket.
func newHolder(s spec) (*holder, error) {
	u, err := currentUser()
	if err != nil {
		return nil, err
	}
	h := &holder{spec: s, user: u, tools: s.Tools}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	if h.lock, err = lockDir(s.Dir); err != nil {
		return nil, err
	}
	if err := h.settle(); err != nil {
		return nil, err
	}
	if h.spawn, err = newSpawner(); err != nil {
		return nil, err
	}
	if err := h.makeNodes(); err != nil {
		return nil, err
	}
	if h.listener, err = listenUnix(socketPath(s.Dir)); err != nil {
		return nil, err
	}
	return h, h.state.write()
}

// settle enters the namespaces or looks what the host will allow.
func (h *holder) settle() (err error) {
	if h.spec.Machines {
		return h.settleMachines()
	}
	if h.spec.Namespaces {
		if h.cut, err = enterNamespaces(h.spec.Dir, h.user); err != nil {
			return err
		}
	} else {
		h.lax = strictModesRefuse(h.spec.Dir, h.user.home, h.user.uid)
	}
	return h.user.preparePrivsep()
}

// settleMachines makes the network of nodes that are machines, and looks what
// they get of this one.
func (h *holder) settleMachines() (err error) {
	if h.ip, err = enterBridge(); err != nil {
		return err
	}
	h.cut = routeCutter{h.ip}
	h.pam, h.usePAM = findPAM(h.tools)
	if err := os.MkdirAll(filepath.Join(privateDir(h.spec.Dir), "over"), 0o755); err != nil {
		return fmt.Errorf("create folder for mounts: %w", err)
	}
	h.accounts, err = readAccounts()
	return err
}

// lockDir makes sure that one holder owns the directory.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(privateDir(dir), "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock cluster folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("a cluster runs in %s already", dir)
	}
	return f, nil
}

// makeNodes chooses addresses and writes the trees.
func (h *holder) makeNodes() error {
	net, err := chooseNet(h.spec)
	if err != nil {
		return err
	}
	h.state = &State{
		Isolation: h.spec.isolation(), Namespaces: h.cut != nil, Reason: h.spec.Reason, Dir: h.spec.Dir, Bin: h.spec.Bin,
		Holder: os.Getpid(), Ports: net.ports, Lax: h.lax, Cuts: [][2]string{}, Nodes: []Node{},
	}
	for i := 1; i <= h.spec.Nodes; i++ {
		short := fmt.Sprintf("node%d", i)
		h.state.Nodes = append(h.state.Nodes, Node{
			Name: short + "." + Domain, Address: net.address(i), Addresses: net.addresses(i), SSHPort: int(net.ports.SSH),
			Root: filepath.Join(h.spec.Dir, short), User: h.user.name,
		})
	}
	for _, n := range h.state.Nodes {
		if err := h.makeTree(n); err != nil {
			return err
		}
		daemons := map[string]*daemon{}
		for _, name := range daemonNames {
			daemons[name] = &daemon{name: name}
		}
		h.nodes = append(h.nodes, &node{Node: n, daemons: daemons})
	}
	if h.spec.Machines {
		return h.bootMachines()
	}
	return nil
}

func (h *holder) makeTree(n Node) error {
	if h.spec.Machines {
		return h.makeMachineTree(n)
	}
	return makeTree(n, h.state, h.tools)
}

// run serves until the cluster ends, and then ends all its processes.
func (h *holder) run() int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	h.group.Go(func() { h.watchDir() })
	h.group.Go(func() { h.accept() })
	select {
	case <-stop:
	case <-h.ctx.Done():
	}
	h.cancel()
	h.listener.Close()
	killDescendants()
	h.group.Wait()
	h.cleanFiles()
	return 0
}

func (h *holder) accept() {
	for {
		conn, err := h.listener.AcceptUnix()
		if err != nil {
			if h.ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "accept:", err)
				h.cancel()
			}
			return
		}
		h.group.Go(func() { h.serve(conn) })
	}
}

// followCaller ends the cluster with the process that called Up. It blocks on
// standard input, so nobody waits for it.
func (h *holder) followCaller() {
	_, _ = io.Copy(io.Discard, os.Stdin) // any end is the end
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.detached {
		h.purge = h.spec.Purge
		h.cancel()
	}
}

// watchDir ends the cluster when somebody removes its directory or socket.
func (h *holder) watchDir() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-tick.C:
			if _, err := os.Lstat(socketPath(h.spec.Dir)); errors.Is(err, os.ErrNotExist) {
				h.cancel()
			}
		}
	}
}

// killDescendants ends all descendants: the daemons, SSH sessions, commands of
// exec, and what they left behind. Daemons get no SIGTERM here: a cluster that
// is taken down has nothing to save, and must survive kill -9 anyway.
func killDescendants() {
	limit := time.Now().Add(10 * time.Second)
	for time.Now().Before(limit) {
		left := descendants(os.Getpid())
		if len(left) == 0 {
			return
		}
		killTree(left, syscall.SIGKILL)
		time.Sleep(5 * time.Millisecond) // why-sleep: the kernel tells of no end of a process that is not our child
	}
}

// publish writes the pids to cluster.json.
func (h *holder) publish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = h.snapshot()
	if h.ctx.Err() != nil {
		return // the file is going away
	}
	if err := h.state.write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// snapshot copies the state with the pids and UUIDs of now.
func (h *holder) snapshot() *State {
	s := *h.state
	s.Nodes = slices.Clone(s.Nodes)
	s.Cuts = slices.Clone(s.Cuts)
	for i, n := range h.nodes {
		s.Nodes[i].PIDs = n.livePIDs()
		if uuid := joinedAs(n.Node); uuid != "" {
			s.Nodes[i].UUID = uuid
		}
	}
	return &s
}

func randomText() string { return strings.ToLower(rand.Text()) }
