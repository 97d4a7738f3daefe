package lab

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// sshTools are the OpenSSH programs of a cluster.
type sshTools struct {
	SSHD    string            `json:"sshd"` // absolute: sshd executes itself again
	SSHDLib string            `json:"lib"`  // LD_LIBRARY_PATH of an sshd unpacked from its package
	Client  map[string]string `json:"client"`
}

// findSSH finds sshd ($ROLEKEY_SSHD, the system's, the repository's cache) and
// the client programs.
func findSSH(bin string) (*sshTools, error) {
	t := &sshTools{Client: map[string]string{}}
	cache := filepath.Join(filepath.Dir(bin), ".cache/openssh/usr/sbin/sshd")
	for _, p := range []string{os.Getenv("ROLEKEY_SSHD"), "/usr/sbin/sshd", cache, filepath.Join(repoRoot(), ".cache/openssh/usr/sbin/sshd")} {
		if st, err := os.Stat(p); p != "" && filepath.IsAbs(p) && err == nil && st.Mode()&0o111 != 0 {
			t.SSHD = p
			break
		}
	}
	if t.SSHD == "" {
		return nil, errors.New("find sshd: none in $ROLEKEY_SSHD (an absolute path), /usr/sbin or .cache/openssh: install openssh-server, or run make there")
	}
	t.SSHDLib = libraryPath(t.SSHD)
	for _, name := range []string{"ssh", "scp", "sftp"} {
		p, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w: install openssh-client", name, err)
		}
		if p, err = filepath.Abs(p); err != nil {
			return nil, fmt.Errorf("find %s: %w", name, err)
		}
		t.Client[name] = p
	}
	return t, nil
}

// libraryPath returns the library folders next to an unpacked sshd, whose
// dependencies the system may lack.
func libraryPath(sshd string) string {
	prefix := filepath.Dir(filepath.Dir(filepath.Dir(sshd)))
	if prefix == "/" {
		return ""
	}
	var dirs []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu*", "lib/*-linux-gnu*", "usr/lib64"} {
		found, _ := filepath.Glob(filepath.Join(prefix, pattern)) // the pattern is valid
		dirs = append(dirs, found...)
	}
	return strings.Join(dirs, ":")
}

// repoRoot finds the root of this module above the working directory; tests
// run in their package's folder.
func repoRoot() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for ; ; dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module rolekey\n") {
			return dir
		}
		if dir == "/" {
			return ""
		}
	}
}

// newHostKey writes an Ed25519 host key and its public half.
func newHostKey(path, comment string) error {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("generate host key: %w", err)
	}
	return writeHostKey(path, comment, priv, pub)
}

func writeHostKey(path, comment string, priv crypto.PrivateKey, pub crypto.PublicKey) error {
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return fmt.Errorf("encode host key: %w", err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return fmt.Errorf("encode host key: %w", err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return fmt.Errorf("write host key: %w", err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPub))) + " " + comment + "\n"
	if err := os.WriteFile(path+".pub", []byte(line), 0o644); err != nil {
		return fmt.Errorf("write host key: %w", err)
	}
	return nil
}

// sshdConfig is the sshd_config of a node. What sshd does here it also does on
// a real node: only the user, the paths and the port differ, and StrictModes
// where State.Lax says so.
func sshdConfig(n Node, path string, strict bool) string {
	q := func(s string) string { return `"` + s + `"` }
	lines := []string{
		"Include " + q(filepath.Join(n.Root, "etc/ssh/sshd_config.d")+"/*.conf"),
		"AddressFamily inet",
		fmt.Sprintf("ListenAddress %s:%d", n.Address, n.SSHPort),
		"HostKey " + q(n.HostKey()),
		"PidFile " + q(filepath.Join(n.Root, "run/sshd.pid")),
		"AuthorizedKeysFile " + q(n.AuthorizedKeys()),
		"StrictModes " + map[bool]string{true: "yes", false: "no"}[strict],
		"PermitRootLogin prohibit-password",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"UsePAM no",
		"UseDNS no",
		"PrintMotd no",
		"PrintLastLog no",
		"LogLevel VERBOSE",
		"MaxStartups 200:30:400",
		"Subsystem sftp internal-sftp",
		"SetEnv " + q("ROLEKEY_ROOT="+n.Root) + " " + q("HOME="+filepath.Join(n.Root, "root")) + " " + q("PATH="+path),
	}
	return strings.Join(lines, "\n") + "\n"
}

// sshConfig is what takes the place of /etc/ssh/ssh_config and ~/.ssh/config
// for root of a node. The Host lines stand in for DNS; port, identity and the
// rest come from Rolekey's own drop-in.
func sshConfig(n Node, nodes []Node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Include \"%s/etc/ssh/ssh_config.d/*.conf\"\n", n.Root)
	for _, m := range nodes {
		fmt.Fprintf(&b, "Host %s %s\n    HostName %s\n", m.Name, m.Short(), m.Address)
	}
	fmt.Fprintf(&b, "Host *\n")
	fmt.Fprintf(&b, "    UserKnownHostsFile \"%s\"\n", n.KnownHosts())
	fmt.Fprintf(&b, "    GlobalKnownHostsFile \"%s/etc/ssh/ssh_known_hosts\"\n", n.Root)
	fmt.Fprintf(&b, "    IdentityFile \"%s/root/.ssh/id_ed25519\"\n", n.Root)
	fmt.Fprintf(&b, "    IdentityAgent none\n")
	return b.String()
}
