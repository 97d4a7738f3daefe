package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"rolekey/internal/paths"
)

// How a fault is put right.
const (
	byRepair = "``--repair``"
	byRemedy = "the printed remedy"
	byItself = "the cluster by itself"
)

// fault is one thing that can be wrong with a running cluster.
type fault struct {
	name   string
	node   string // short name; empty: the cluster
	code   string
	text   string // part of what verify says
	host   string // where it is, if that is not node
	other  string // the findings name this node in their text, whomever they are about
	also   string // a second code that it yields on the node
	hides  bool   // noded cannot tell of anything else on the node, or puts it right while it is injected
	cure   string
	inject func(w *world) error
	remedy func(w *world, f finding) error // does what the printed remedy says
}

func (w *world) layout(name string) paths.Layout { return paths.Layout{Root: w.node(name).Root} }

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	return err
}

func (w *world) started(node string) error { return w.Start(w.ctx, node) }

// place is the node that the fault is on.
func (f fault) place() string {
	if f.host != "" {
		return f.host
	}
	return f.node
}

// configure puts a line before all others of a node's sshd_config, or takes it
// away, and has sshd read it.
func (w *world) configure(node, line string) error {
	n := w.node(node)
	path := filepath.Join(n.Root, "etc/ssh/sshd_config")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const refusal = "PubkeyAuthentication no\n"
	text = []byte(line + strings.TrimPrefix(string(text), refusal))
	return errors.Join(os.WriteFile(path, text, 0o644), syscall.Kill(n.PIDs.SSHD, syscall.SIGHUP))
}

// catalogue is what is put into real daemons. The faults on one node do not
// touch one another's files.
var catalogue = []fault{
	{
		name: "a line of others authorizes a candidate's key", node: "node4", code: "ENODESSH", text: "A line that Rolekey did not write", cure: byRemedy,
		inject: func(w *world) error {
			key, err := os.ReadFile(w.layout("node2").SSHKey() + ".pub")
			if err != nil {
				return err
			}
			return appendTo(w.node("node4").AuthorizedKeys(), "\n"+strings.Join(strings.Fields(string(key))[:2], " ")+" mine\n")
		},
		remedy: func(w *world, f finding) error {
			path := w.node("node4").AuthorizedKeys()
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			var kept []string
			for line := range strings.SplitAfterSeq(string(b), "\n") {
				if !strings.HasSuffix(line, " mine\n") {
					kept = append(kept, line)
				}
			}
			return os.WriteFile(path, []byte(strings.Join(kept, "")), 0o600)
		},
	},
	{
		name: "others may read the key of a server", node: "node5", code: "ENODEFILECHECK", text: "has mode 0644", cure: byRepair,
		inject: func(w *world) error { return os.Chmod(w.layout("node5").ServerKey(), 0o644) },
	},
	{
		name: "an ssconf file was changed", host: "node4", code: "ECLUSTERFILECHECK", text: "ssconf_cluster_name found with 2 different checksums", cure: byRepair,
		inject: func(w *world) error {
			path := w.layout("node4").SSConf("cluster_name") // which nobody but root may write to
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("mine\n"), 0o444))
		},
	},
	{
		name: "an ssconf file was removed", host: "node3", code: "ECLUSTERFILECHECK", text: "ssconf_master_node is missing from node(s)", cure: byRepair,
		inject: func(w *world) error { return os.Remove(w.layout("node3").SSConf("master_node")) },
	},
	{
		name: "a copy of a candidate's SSH key on a normal node", node: "node5", code: "ENODEKEY", text: "A copy of the private SSH key of node2", cure: byRemedy,
		inject: func(w *world) error {
			return copyFile(w.layout("node2").SSHKey(), filepath.Join(w.layout("node5").RootHome(), "backup.key"))
		},
		remedy: func(w *world, f finding) error {
			_, rest, ok := strings.Cut(f.Remedy, "shred -u '")
			path, _, ok2 := strings.Cut(rest, "'")
			if !ok || !ok2 {
				return fmt.Errorf("remedy %q", f.Remedy)
			}
			return os.Remove(path)
		},
	},
	{
		name: "a signing key was left on a normal node", node: "node4", code: "ENODEKEY", text: "is not a master candidate", cure: byRepair,
		inject: func(w *world) error {
			to := w.layout("node4").SigningKey()
			return errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), copyFile(w.layout("node2").SigningKey(), to))
		},
	},
	{
		name: "noded does not run", hides: true, node: "node5", code: "ENODERPC", text: "while contacting node", cure: byRemedy,
		inject: func(w *world) error { return w.Kill(w.ctx, "node5", "noded") },
		remedy: func(w *world, _ finding) error { return w.started("node5") },
	},
	{
		name: "masterd of a candidate does not run", node: "node3", code: "ECLUSTERCFG", text: "its master daemon has not answered", also: "ECLUSTERCLIENTCERT", cure: byRemedy,
		inject: func(w *world) error { return w.Kill(w.ctx, "node3", "masterd") },
		remedy: func(w *world, _ finding) error { return w.started("node3") },
	},
	{
		name: "sshd does not run", host: "node4", other: "node4", code: "ENODESSH", text: "ssh communication with node", cure: byRemedy,
		inject: func(w *world) error { return w.Kill(w.ctx, "node4", "sshd") },
		remedy: func(w *world, _ finding) error { return w.started("node4") },
	},
	{
		name: "sshd takes no keys", node: "node5", other: "node5", code: "ENODESSH", text: "ssh communication with node", also: "ENODESSH", cure: byRemedy,
		inject: func(w *world) error { return w.configure("node5", "PubkeyAuthentication no\n") },
		remedy: func(w *world, _ finding) error { return w.configure("node5", "") },
	},
	{
		name: "a node is cut off", node: "node5", code: "ENODERPC", text: "while contacting node", cure: byItself, hides: true,
		inject: func(w *world) error { return w.Partition(w.ctx, "node5") },
		remedy: func(w *world, _ finding) error { return w.Heal(w.ctx) },
	},
	{
		name: "evidence of a fork", hides: true, node: "node4", code: "ENODEMAP", text: "holds evidence of 1 signed map", cure: byRemedy,
		inject: func(w *world) error {
			path := filepath.Join(filepath.Dir(w.layout("node4").CurrentMap()), "evidence", "a-b.json")
			return errors.Join(w.Kill(w.ctx, "node4", "noded"), os.WriteFile(path, []byte("{}"), 0o600), w.started("node4"))
		},
		remedy: func(w *world, _ finding) error {
			path := filepath.Join(filepath.Dir(w.layout("node4").CurrentMap()), "evidence", "a-b.json")
			return errors.Join(w.Kill(w.ctx, "node4", "noded"), os.Remove(path), w.started("node4"))
		},
	},
}
