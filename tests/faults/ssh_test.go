package faults

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// configure puts a line before all others of a node's sshd_config, or takes it
// away, and has sshd read it.
func (w *world) configure(node, line string) error {
	path := filepath.Join(w.node(node).Root, "etc/ssh/sshd_config")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const mark = "# of the tests\n"
	if first, rest, ok := strings.Cut(string(text), mark); ok && !strings.Contains(first, "\nInclude") {
		text = []byte(rest)
	}
	if line != "" {
		text = []byte(line + "\n" + mark + string(text))
	}
	return errors.Join(os.WriteFile(path, text, 0o644), w.Signal(w.ctx, node, "sshd", syscall.SIGHUP))
}

// misconfigured is a fault in sshd_config.
func misconfigured(name, node, line, says string, more ...say) fault {
	return fault{
		name: name, node: node, cure: byRemedy,
		says:   append([]say{{code: "ENODESSH", node: node, text: says}}, more...),
		inject: func(w *world) error { return w.configure(node, line) },
		remedy: func(w *world, _ finding) error { return w.configure(node, "") },
	}
}

// onlyRoot marks what is nothing to sshd where root's files are another user's.
func onlyRoot(f fault) fault {
	f.asRoot = true
	return f
}

// noLogin is what candidates say of a node that they cannot log in to.
func noLogin(node, why string) say {
	return say{code: "ENODESSH", node: anyNode, text: "ssh communication with node '" + full(node) + "': " + why}
}

// newHostKey gives a node's sshd another host key.
func (w *world) newHostKey(node string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "new")
	if err != nil {
		return err
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return err
	}
	path := w.node(node).HostKey()
	return errors.Join(os.WriteFile(path, pem.EncodeToMemory(block), 0o600), os.WriteFile(path+".pub", ssh.MarshalAuthorizedKey(key), 0o644),
		w.Signal(w.ctx, node, "sshd", syscall.SIGHUP))
}

var ofSSH = []fault{
	{
		name: "a line of others authorizes a candidate's key", node: "node4", cure: byRemedy,
		says: []say{{code: "ENODESSH", node: "node4", text: "A line that Rolekey did not write"}},
		inject: func(w *world) error {
			key, err := os.ReadFile(w.layout("node2").SSHKey() + ".pub")
			if err != nil {
				return err
			}
			return appendTo(w.node("node4").AuthorizedKeys(), "\n"+strings.Join(strings.Fields(string(key))[:2], " ")+" mine\n")
		},
		remedy: func(w *world, _ finding) error {
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
		name: "a line of the cluster was removed from ``authorized_keys``, by an editor that still has it open", node: "node4", cure: byItself,
		says: []say{
			{code: "ENODESSH", node: "node4", text: "is not in the 'authorized_keys' file"},
			noLogin("node4", ""),
			{code: "ENODESSH", node: "node4", text: "another process is writing", may: true},
		},
		inject: func(w *world) error { return w.editor(w.node("node4").AuthorizedKeys(), withoutOne) },
		remedy: func(w *world, _ finding) error { return w.quit(w.node("node4").AuthorizedKeys()) },
	},
	{
		name: "a line of a stranger in the cluster's block, by an editor that still has it open", node: "node5", cure: byItself,
		says: []say{
			{code: "ENODESSH", node: "node5", text: "of a normal node is in the 'authorized_keys' file"},
			{code: "ENODESSH", node: "node5", text: "another process is writing", may: true},
		},
		inject: func(w *world) error {
			key, err := os.ReadFile(w.node("node5").HostKey() + ".pub") // any key will do
			if err != nil {
				return err
			}
			return w.editor(w.node("node5").AuthorizedKeys(), func(text string) string {
				return strings.Replace(text, "# END ROLEKEY", strings.Join(strings.Fields(string(key))[:2], " ")+"\n# END ROLEKEY", 1)
			})
		},
		remedy: func(w *world, _ finding) error { return w.quit(w.node("node5").AuthorizedKeys()) },
	},
	{
		name: "a line of the cluster was removed from ``known_hosts``, by an editor that still has it open", node: "node3", cure: byItself,
		says:   []say{{code: "ENODESSH", node: "node3", text: "The lines of the cluster in"}},
		inject: func(w *world) error { return w.editor(w.node("node3").KnownHosts(), withoutOne) },
		remedy: func(w *world, _ finding) error { return w.quit(w.node("node3").KnownHosts()) },
	},
	{
		name: "root's home may be written to by others: sshd would ignore the keys", node: "node5", cure: byRemedy, strict: true,
		says:   []say{{code: "ENODESSH", node: "node5", text: "/root: mode 0777"}, noLogin("node5", "")},
		inject: func(w *world) error { return os.Chmod(w.layout("node5").RootHome(), 0o777) },
		remedy: func(w *world, _ finding) error { return os.Chmod(w.layout("node5").RootHome(), 0o700) },
	},
	{
		name: "sshd does not run", node: "node4", cure: byRemedy,
		says:   []say{noLogin("node4", "")},
		inject: func(w *world) error { return w.Kill(w.ctx, "node4", "sshd") },
		remedy: func(w *world, f finding) error { return w.started("node4", "ssh", f) },
	},
	{
		name: "sshd hangs", node: "node5", cure: byRemedy,
		says:   []say{noLogin("node5", "")},
		inject: func(w *world) error { return w.Signal(w.ctx, "node5", "sshd", syscall.SIGSTOP) },
		remedy: func(w *world, f finding) error {
			return errors.Join(w.Kill(w.ctx, "node5", "sshd"), w.started("node5", "ssh", f))
		},
	},
	misconfigured("sshd takes no keys", "node5", "PubkeyAuthentication no", "sshd accepts no keys", noLogin("node5", "")),
	misconfigured("sshd reads no file with keys", "node4", "AuthorizedKeysFile none", "sshd reads no authorized_keys file", noLogin("node4", "")),
	onlyRoot(misconfigured("sshd does not let root in", "node5", "PermitRootLogin no", "sshd lets root not in by key", noLogin("node5", ""))),
	{
		name: "the host key of a candidate changed", node: "node3", cure: byRemedy,
		says:   []say{{code: "ENODESSH", node: "node3", text: "waits for a decision on the host keys"}, noLogin("node3", "")},
		inject: func(w *world) error { return w.newHostKey("node3") },
		remedy: func(w *world, f finding) error { return w.asSaid(f, "gnt-node accept-host-keys") },
	},
	{
		name: "two nodes have one host key", node: "node5", cure: byRemedy,
		says: []say{{code: "ENODESSH", node: "node5", text: "of node " + full("node4") + ": either could pass for the other"}, noLogin("node5", "")},
		inject: func(w *world) error {
			from, to := w.node("node4").HostKey(), w.node("node5").HostKey()
			return errors.Join(copyFile(from, to), copyFile(from+".pub", to+".pub"), w.Signal(w.ctx, "node5", "sshd", syscall.SIGHUP))
		},
		remedy: func(w *world, f finding) error {
			if !strings.Contains(f.Remedy, "ssh-keygen -A") {
				return fmt.Errorf("remedy %q", f.Remedy)
			}
			return w.newHostKey("node5")
		},
	},
	{
		name: "sshd lets anybody in", node: "node4", cure: byRemedy, asRoot: true, allPairs: true, restarts: "node5", // sshd runs only what is root's
		says: []say{{code: "ENODESSH", node: "node4", text: "let in by its sshd as root"}},
		inject: func(w *world) error { // the other normal node attempts no second login within 15 s, unless it forgets the first
			return errors.Join(w.configure("node4", "AuthorizedKeysCommand /bin/echo %t %k\nAuthorizedKeysCommandUser root"), w.restarted("node5", "noded"))
		},
		remedy: func(w *world, f finding) error {
			if !strings.Contains(f.Remedy, "AuthorizedKeysCommand") {
				return fmt.Errorf("remedy %q", f.Remedy)
			}
			return w.configure("node4", "")
		},
	},
}
