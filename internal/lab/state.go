package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rolekey/cluster"
)

// Isolations: nodes that share the machine and its user, and nodes that are
// machines of their own, which only root can make.
const (
	IsolationLoopback = "loopback"
	IsolationNetns    = "netns"
)

// Daemons of a node, in the order in which they start.
const (
	SSHD    = "sshd"
	Noded   = "noded"
	Masterd = "masterd"
	// All stands for every process of a node, SSH sessions included.
	All = "all"
)

var daemonNames = []string{SSHD, Noded, Masterd}

// Domain is the domain of all nodes, ClusterName the name of the cluster.
const (
	Domain      = "example"
	ClusterName = "dev." + Domain
)

// State is the content of DIR/cluster.json.
type State struct {
	Isolation  string        `json:"isolation"`
	Namespaces bool          `json:"namespaces"` // false: no partitions
	Reason     string        `json:"reason,omitempty"`
	Lax        string        `json:"strict_modes_off,omitempty"` // why sshd's StrictModes is off
	Dir        string        `json:"dir"`
	Bin        string        `json:"bin"`
	Holder     int           `json:"holder"` // pid
	Ports      cluster.Ports `json:"ports"`
	Cuts       [][2]string   `json:"cuts"` // pairs of nodes that cannot reach each other
	Nodes      []Node        `json:"nodes"`
}

// Node is one node of State.
type Node struct {
	Name      string   `json:"name"`
	UUID      string   `json:"uuid"` // empty until the node has joined
	Address   string   `json:"address"`
	Addresses []string `json:"addresses"` // all of them, Address first
	SSHPort   int      `json:"ssh_port"`
	// Root is the --root of the node's daemons; with isolation netns, where
	// they have none, it is where the node's own files are seen from outside.
	Root string `json:"root"`
	User string `json:"user"`
	// Init is the first process in the node's namespaces, with isolation netns.
	Init int  `json:"init,omitempty"`
	PIDs PIDs `json:"pids"`
}

// PIDs are the running daemons of a node; 0 means not running.
type PIDs struct {
	Noded   int `json:"noded"`
	Masterd int `json:"masterd"`
	SSHD    int `json:"sshd"`
}

// Get returns the pid of a daemon by name.
func (p PIDs) Get(daemon string) int {
	switch daemon {
	case Noded:
		return p.Noded
	case Masterd:
		return p.Masterd
	case SSHD:
		return p.SSHD
	}
	return 0
}

func (p *PIDs) set(daemon string, pid int) {
	switch daemon {
	case Noded:
		p.Noded = pid
	case Masterd:
		p.Masterd = pid
	case SSHD:
		p.SSHD = pid
	}
}

// Node finds a node by its name, with or without the domain.
func (s *State) Node(name string) (Node, error) {
	for _, n := range s.Nodes {
		if n.Name == name || n.Name == name+"."+Domain {
			return n, nil
		}
	}
	return Node{}, kindf(kindUnknownNode, "no node %q in this cluster", name)
}

// Log returns the path of a daemon's log.
func (n Node) Log(daemon string) string {
	return filepath.Join(n.Root, "var/log/rolekey", daemon+".log")
}

// AuthorizedKeys returns the path of root's authorized_keys on the node.
func (n Node) AuthorizedKeys() string { return filepath.Join(n.Root, "root/.ssh/authorized_keys") }

// KnownHosts returns the path of root's known_hosts on the node.
func (n Node) KnownHosts() string { return filepath.Join(n.Root, "root/.ssh/known_hosts") }

// HostKey returns the path of the node's private SSH host key.
func (n Node) HostKey() string { return filepath.Join(n.Root, "etc/ssh/ssh_host_ed25519_key") }

// File returns where a file of the node lies as seen from outside.
func (n Node) File(path string) string { return filepath.Join(n.Root, path) }

// Short returns the name without the domain; it names the node's folder.
func (n Node) Short() string { return strings.TrimSuffix(n.Name, "."+Domain) }

// joinedAs reads which node of its cluster noded is, which changes when a node is
// removed and added again.
func joinedAs(n Node) string {
	var id struct {
		Node string `json:"node"`
	}
	b, err := os.ReadFile(n.File("/var/lib/rolekey/node/identity.json"))
	if err != nil || json.Unmarshal(b, &id) != nil {
		return "" // it is in none
	}
	return id.Node
}

// Paths inside a cluster's directory.
func socketPath(dir string) string    { return filepath.Join(dir, "holder.sock") }
func statePath(dir string) string     { return filepath.Join(dir, "cluster.json") }
func privateDir(dir string) string    { return filepath.Join(dir, ".devcluster") }
func holderLogPath(dir string) string { return filepath.Join(privateDir(dir), "holder.log") }

// ReadState reads DIR/cluster.json.
func ReadState(dir string) (*State, error) {
	b, err := os.ReadFile(statePath(dir))
	if err != nil {
		return nil, fmt.Errorf("read cluster state: %w", err)
	}
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read cluster state: %w", err)
	}
	return s, nil
}

// write replaces DIR/cluster.json, so that a reader sees the old or the new.
func (s *State) write() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode cluster state: %w", err)
	}
	tmp := statePath(s.Dir) + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("write cluster state: %w", err)
	}
	if err := os.Rename(tmp, statePath(s.Dir)); err != nil {
		return fmt.Errorf("write cluster state: %w", err)
	}
	return nil
}
