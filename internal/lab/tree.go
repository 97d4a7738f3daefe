package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
)

// nodedConfig is noded.toml.
type nodedConfig struct {
	Addresses []string    `toml:"addresses"`
	LogLevel  string      `toml:"log_level"`
	Ports     portsConfig `toml:"ports"`
	SSH       sshSection  `toml:"ssh"`
}

// masterdConfig is masterd.toml. masterd learns its ports from noded.
type masterdConfig struct {
	Addresses []string `toml:"addresses"`
	LogLevel  string   `toml:"log_level"`
}

type portsConfig struct {
	Noded   uint16 `toml:"noded"`
	Masterd uint16 `toml:"masterd"`
	Gossip  uint16 `toml:"gossip"`
	RAPI    uint16 `toml:"rapi"`
	SSH     uint16 `toml:"ssh"`
}

type sshSection struct {
	AuthorizedKeys string   `toml:"authorized_keys"`
	KnownHosts     string   `toml:"known_hosts"`
	User           string   `toml:"user"`
	HostKeys       []string `toml:"host_keys"`
	SSHD           string   `toml:"sshd"`
}

// treeDirs are the folders of a node's root. None may be writable by others:
// StrictModes checks all those above authorized_keys.
var treeDirs = []struct {
	path string
	mode os.FileMode
}{
	{"", 0o755},
	{"bin", 0o755},
	{"etc/rolekey", 0o755},
	{"etc/ssh/ssh_config.d", 0o755},
	{"etc/ssh/sshd_config.d", 0o755},
	{"root", 0o700},
	{"root/.ssh", 0o700},
	{"run/rolekey", 0o755},
	{"var/lib", 0o755},
	{"var/log/rolekey", 0o755},
}

// makeTree writes the root of node n.
func makeTree(n Node, st *State, tools *sshTools) error {
	for _, d := range treeDirs {
		path := filepath.Join(n.Root, d.path)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("create folder of %s: %w", n.Name, err)
		}
		// Past the umask, whatever it is.
		if err := os.Chmod(path, d.mode); err != nil {
			return fmt.Errorf("create folder of %s: %w", n.Name, err)
		}
	}
	if err := newHostKey(n.HostKey(), "root@"+n.Name); err != nil {
		return err
	}
	if err := writeConfigs(n, st); err != nil {
		return err
	}
	return writeWrappers(n, tools)
}

func writeConfigs(n Node, st *State) error {
	noded, err := encodeTOML(nodedConfig{
		Addresses: []string{n.Address}, LogLevel: "debug", Ports: portsConfig(st.Ports),
		SSH: sshSection{
			AuthorizedKeys: n.AuthorizedKeys(), KnownHosts: n.KnownHosts(), User: n.User,
			HostKeys: []string{n.HostKey() + ".pub"}, SSHD: filepath.Join(n.Root, "bin/sshd"),
		},
	})
	if err != nil {
		return err
	}
	masterd, err := encodeTOML(masterdConfig{Addresses: []string{n.Address}, LogLevel: "debug"})
	if err != nil {
		return err
	}
	for path, content := range map[string]string{
		"etc/rolekey/noded.toml":   noded,
		"etc/rolekey/masterd.toml": masterd,
		"etc/ssh/sshd_config":      sshdConfig(n, nodePath(n, st.Bin, defaultPath), st.Lax == ""),
		"etc/ssh/ssh_config":       sshConfig(n, st.Nodes),
	} {
		if err := os.WriteFile(filepath.Join(n.Root, path), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write configuration of %s: %w", n.Name, err)
		}
	}
	return nil
}

func encodeTOML(v any) (string, error) {
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(v); err != nil {
		return "", fmt.Errorf("encode configuration: %w", err)
	}
	return b.String(), nil
}

// defaultPath is the PATH of SSH sessions, after the node's and the cluster's
// own folders.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// nodePath is the PATH on a node: its wrappers first, then Rolekey's programs.
func nodePath(n Node, bin, rest string) string {
	return filepath.Join(n.Root, "bin") + ":" + bin + ":" + rest
}

// writeWrappers makes the programs that behave as on the node itself: ssh
// leaves from the node's address and reads the node's files, and sshd -T
// answers for the node's configuration.
func writeWrappers(n Node, t *sshTools) error {
	config := shellQuote(filepath.Join(n.Root, "etc/ssh/ssh_config"))
	own := shellQuote(filepath.Join(n.Root, "bin/ssh"))
	lib := ""
	if t.SSHDLib != "" {
		lib = "LD_LIBRARY_PATH=" + shellQuote(t.SSHDLib) + " "
	}
	for name, line := range map[string]string{
		"ssh":  fmt.Sprintf("exec %s -b %s -F %s \"$@\"", shellQuote(t.Client["ssh"]), n.Address, config),
		"scp":  fmt.Sprintf("exec %s -S %s \"$@\"", shellQuote(t.Client["scp"]), own),
		"sftp": fmt.Sprintf("exec %s -S %s \"$@\"", shellQuote(t.Client["sftp"]), own),
		"sshd": fmt.Sprintf("%sexec %s -f %s \"$@\"", lib, shellQuote(t.SSHD), shellQuote(filepath.Join(n.Root, "etc/ssh/sshd_config"))),
	} {
		path := filepath.Join(n.Root, "bin", name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+line+"\n"), 0o755); err != nil {
			return fmt.Errorf("write wrapper of %s: %w", n.Name, err)
		}
	}
	return nil
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// checkDir refuses names that sshd_config and ssh_config cannot quote: there is
// no escape for a quotation mark, and % and $ are expanded.
func checkDir(dir string) error {
	if i := strings.IndexAny(dir, "\"'\\%$*?[]:\n\r\t#"); i >= 0 {
		return fmt.Errorf("cluster folder %q: the character %q cannot be written in sshd's configuration", dir, dir[i])
	}
	return nil
}

// strictModesRefuse returns why StrictModes would refuse authorized_keys below
// dir, or nothing. Like sshd it walks up to the home folder or the root.
func strictModesRefuse(dir, home string, uid int) string {
	for p := dir; ; p = filepath.Dir(p) {
		st, err := os.Stat(p)
		if err != nil {
			return err.Error()
		}
		if st.Mode()&0o022 != 0 {
			return p + " may be written by others"
		}
		if owner := ownerOf(st); owner != 0 && owner != uid {
			return fmt.Sprintf("%s belongs to uid %d", p, owner)
		}
		if p == "/" || p == home {
			return ""
		}
	}
}
