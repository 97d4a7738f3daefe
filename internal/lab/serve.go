package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// serve answers one connection.
func (h *holder) serve(conn *net.UnixConn) {
	defer conn.Close()
	// The connection is the client's life: when either end goes, so does
	// the request.
	stop := context.AfterFunc(h.ctx, func() { conn.CloseRead() })
	defer stop()
	req, files, err := readRequest(conn)
	defer closeAll(files)
	if err != nil {
		answer(conn, reply{Error: toWire(err)})
		return
	}
	if req.Op == opExec {
		h.serveExec(conn, req, files)
		return
	}
	if err := h.do(req); err != nil {
		answer(conn, reply{Error: toWire(err)})
		return
	}
	h.mu.Lock()
	st := h.snapshot()
	h.mu.Unlock()
	answer(conn, reply{State: st})
	if req.Op == opDown {
		h.cancel()
	}
}

func answer(conn *net.UnixConn, r reply) {
	_ = json.NewEncoder(conn).Encode(r) // a client that left wants no answer
}

func (h *holder) do(req request) error {
	switch req.Op {
	case opStatus, opDown:
		return nil
	case opStart:
		return h.eachNode(req.Nodes, h.startNode)
	case opStop:
		return h.eachNode(req.Nodes, h.stopNode)
	case opKill:
		return h.eachNode(req.Nodes, func(n *node) error { return h.killNode(n, req.Daemon, syscall.Signal(req.Signal)) })
	case opPartition:
		return h.partition(req.Nodes)
	case opBlock:
		return h.block(req.Nodes, req.Port)
	case opHeal:
		return h.heal()
	case opIdentify:
		return h.identify(req.UUIDs)
	case opDetach:
		h.mu.Lock()
		h.detached = true
		h.mu.Unlock()
		return nil
	}
	return fmt.Errorf("unknown request %q", req.Op)
}

// find finds a node by its name, with or without the domain.
func (h *holder) find(name string) (*node, error) {
	i := slices.IndexFunc(h.nodes, func(n *node) bool { return n.Name == name || n.Short() == name })
	if i < 0 {
		return nil, kindf(kindUnknownNode, "no node %q in this cluster", name)
	}
	return h.nodes[i], nil
}

func (h *holder) eachNode(names []string, do func(*node) error) error {
	var nodes []*node
	for _, name := range names {
		n, err := h.find(name)
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if err := locked(n, do); err != nil {
			return err
		}
	}
	return nil
}

func locked(n *node, do func(*node) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return do(n)
}

// startNode starts the daemons that do not run.
func (h *holder) startNode(n *node) error {
	for _, name := range daemonNames {
		if d := n.daemons[name]; !d.running() {
			if err := h.startDaemon(h.ctx, n, d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *holder) stopNode(n *node) error {
	err := h.stopDaemons(n)
	h.publish()
	return err
}

func (h *holder) killNode(n *node, daemon string, sig syscall.Signal) error {
	if sig == 0 {
		sig = syscall.SIGKILL
	}
	var err error
	switch d := n.daemons[daemon]; {
	case daemon == All:
		err = h.signalAll(n, sig)
	case d == nil:
		return fmt.Errorf("no daemon %q: want noded, masterd, sshd or all", daemon)
	default:
		err = h.signalDaemon(d, sig)
	}
	h.publish()
	return err
}

func (h *holder) identify(uuids map[string]string) error {
	h.mu.Lock()
	for i, n := range h.state.Nodes {
		if u := uuids[n.Name]; u != "" {
			h.state.Nodes[i].UUID = u
		}
	}
	h.mu.Unlock()
	h.publish()
	return nil
}

// partition cuts the named nodes off from all others. Cuts add up until heal.
func (h *holder) partition(names []string) error {
	if h.cut == nil {
		return kindf(kindNoNamespaces, "partitions need a network namespace, and this cluster has none: %s", h.spec.Reason)
	}
	h.cutMu.Lock()
	defer h.cutMu.Unlock()
	off := map[string]bool{}
	for _, name := range names {
		n, err := h.find(name)
		if err != nil {
			return err
		}
		off[n.Name] = true
	}
	h.mu.Lock()
	old := slices.Clone(h.state.Cuts)
	h.mu.Unlock()
	var pairs [][2]string
	var cuts [][2]*node
	for i, a := range h.nodes {
		for _, b := range h.nodes[i+1:] {
			pair := [2]string{a.Name, b.Name}
			if off[a.Name] != off[b.Name] && !slices.Contains(old, pair) {
				pairs = append(pairs, pair)
				cuts = append(cuts, [2]*node{a, b})
			}
		}
	}
	if err := h.cut.apply(h.spawn, "add", cuts); err != nil {
		return err
	}
	h.setCuts(append(old, pairs...))
	return nil
}

// heal removes all cuts and blocks.
func (h *holder) heal() error {
	h.cutMu.Lock()
	defer h.cutMu.Unlock()
	if err := h.unblock(); err != nil {
		return err
	}
	h.mu.Lock()
	cuts := slices.Clone(h.state.Cuts)
	h.mu.Unlock()
	if len(cuts) == 0 {
		return nil
	}
	var pairs [][2]*node
	for _, c := range cuts {
		a, err := h.find(c[0])
		if err != nil {
			return err
		}
		b, err := h.find(c[1])
		if err != nil {
			return err
		}
		pairs = append(pairs, [2]*node{a, b})
	}
	if err := h.cut.apply(h.spawn, "del", pairs); err != nil {
		return err
	}
	h.setCuts([][2]string{})
	return nil
}

func (h *holder) setCuts(cuts [][2]string) {
	h.mu.Lock()
	h.state.Cuts = cuts
	h.mu.Unlock()
	h.publish()
}

// serveExec runs a command on a node, or with no node just inside the
// namespaces, on the three files of the client. The end of the connection
// kills it, and a 4-byte message signals it.
func (h *holder) serveExec(conn *net.UnixConn, req request, files []*os.File) {
	p, err := h.startExec(req, files)
	closeAll(files)
	if err != nil {
		answer(conn, reply{Error: toWire(err)})
		return
	}
	answer(conn, reply{PID: p.pid})
	h.group.Go(func() { h.followClient(conn, p) })
	<-p.done
	code := p.code()
	answer(conn, reply{Exit: &code})
}

// followClient passes signals from the client on, and kills the command when
// the client is gone.
func (h *holder) followClient(conn *net.UnixConn, p *process) {
	buf := make([]byte, 1)
	for {
		if _, err := conn.Read(buf); err != nil {
			_ = h.spawn.signal(p, syscall.SIGKILL, true) // it may have ended
			return
		}
		_ = h.spawn.signal(p, syscall.Signal(buf[0]), true)
	}
}

func (h *holder) startExec(req request, files []*os.File) (*process, error) {
	if len(req.Argv) == 0 || len(files) != 3 {
		return nil, errors.New("exec wants a command and three files")
	}
	c := command{argv: req.Argv, env: req.Env, dir: req.Dir, files: files, prepare: lookUp}
	if len(req.Nodes) > 0 {
		n, err := h.find(req.Nodes[0])
		if err != nil {
			return nil, err
		}
		c.env, c.in = h.nodeEnv(n, c.env), n.machine
	}
	return h.spawn.start(c)
}

// lookPath finds a program by the PATH of env, not by that of the holder.
func lookPath(name, dir string, env []string) (string, error) {
	candidates := []string{name}
	switch {
	case filepath.IsAbs(name):
	case strings.Contains(name, "/"):
		candidates = []string{filepath.Join(dir, name)}
	default:
		candidates = nil
		for _, d := range filepath.SplitList(getenv(env, "PATH")) {
			if filepath.IsAbs(d) {
				candidates = append(candidates, filepath.Join(d, name))
			}
		}
	}
	for _, c := range candidates {
		if p, err := exec.LookPath(c); err == nil {
			return p, nil
		}
	}
	return "", kindf(kindNotFound, "%s: command not found", name)
}
