package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"rolekey/cluster"
)

// holderEnv marks a process that Up started as a holder, initEnv one that a
// holder started as the first of a node, helperEnv one that runs a function of
// the calling program.
const (
	holderEnv = "ROLEKEY_LAB_HOLDER"
	initEnv   = "ROLEKEY_LAB_INIT"
	helperEnv = "ROLEKEY_LAB_HELPER"
)

// getenv returns the last value of a name in env.
func getenv(env []string, name string) string {
	value := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// without returns env without the names of the machine that the cluster must
// not see: the user's SSH agent, another node's root, another manager's socket.
func without(env []string, names ...string) []string {
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		drop := strings.HasPrefix(name, "SSH_") || name == "NOTIFY_SOCKET" || name == "ROLEKEY_ROOT" || name == holderEnv || name == initEnv
		for _, n := range names {
			drop = drop || name == n
		}
		if !drop {
			out = append(out, e)
		}
	}
	return out
}

// execEnv makes env that of root's shell on node n.
func execEnv(n Node, bin string, env []string) []string {
	path := nodePath(n, bin, getenv(env, "PATH"))
	return append(without(env, "PATH", "HOME"), "ROLEKEY_ROOT="+n.Root, "PATH="+path, "HOME="+filepath.Join(n.Root, "root"))
}

// nodeEnv makes env that of root on node n.
func (h *holder) nodeEnv(n *node, env []string) []string {
	if n.machine != nil {
		return machineEnv(env)
	}
	return execEnv(n.Node, h.state.Bin, env)
}

// livePIDs reads which daemons run. It takes no lock: a daemon's process is
// replaced only under the node's lock, which the caller of publish may hold.
func (n *node) livePIDs() PIDs {
	var p PIDs
	for name, d := range n.daemons {
		if pid := d.livePID(); pid != 0 {
			p.set(name, pid)
		}
	}
	return p
}

// labNet is the addresses and ports of a cluster.
type labNet struct {
	prefix string // "127.77.0"
	ports  cluster.Ports
}

func (l labNet) address(i int) string { return fmt.Sprintf("%s.%d", l.prefix, i) }

// addresses returns all addresses of node i, the first of which leads.
func (l labNet) addresses(i int) []string {
	if l.prefix == machineNet {
		return []string{l.address(i), machineV6(i)}
	}
	return []string{l.address(i)}
}

// chooseNet picks the addresses. In a namespace of its own a cluster has all
// of 127.0.0.0/8; on the host's loopback it takes a random part of it, and
// other ports than the usual where somebody listens on all addresses.
func chooseNet(s spec) (labNet, error) {
	l := labNet{prefix: "127.77.0", ports: s.Ports}
	if s.Machines {
		l.prefix = machineNet
		return l, nil
	}
	if s.Namespaces {
		return l, nil
	}
	for range 20 {
		l.prefix = fmt.Sprintf("127.%d.%d", 1+rand.IntN(254), rand.IntN(256))
		ports, err := freePorts(l.address(1), s.Ports)
		if err == nil && l.unused(s.Nodes, ports) {
			l.ports = ports
			return l, nil
		}
	}
	return labNet{}, errors.New("find free loopback addresses: 20 random prefixes were in use")
}

// unused reports whether all ports of all nodes can be bound.
func (l labNet) unused(nodes int, p cluster.Ports) bool {
	for i := 1; i <= nodes; i++ {
		for _, port := range []uint16{p.Noded, p.Masterd, p.Gossip, p.RAPI, p.SSH} {
			if !bindable(l.address(i), port) {
				return false
			}
		}
	}
	return true
}

// freePorts replaces each port that is taken on address.
func freePorts(address string, p cluster.Ports) (cluster.Ports, error) {
	for _, port := range []*uint16{&p.Noded, &p.Masterd, &p.Gossip, &p.RAPI, &p.SSH} {
		for try := 0; !bindable(address, *port); try++ {
			if try == 20 {
				return p, errors.New("find free port: 20 random ports were in use")
			}
			*port = uint16(20000 + rand.IntN(10000)) // below the ephemeral ports
		}
	}
	if !p.Valid() {
		return p, errors.New("find free ports: one was chosen twice")
	}
	return p, nil
}

func bindable(address string, port uint16) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort(address, itoa(int(port))))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func ownerOf(st os.FileInfo) int { return int(st.Sys().(*syscall.Stat_t).Uid) }
