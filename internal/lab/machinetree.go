package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rolekey/cluster"
)

// installed is a folder of a machine, as its system or tools/install/tmpfiles.conf
// makes it.
type installed struct {
	path    string
	mode    os.FileMode
	masterd byte // 'u': masterd's own, 'g': of its group, 0: root's
}

var installedDirs = []installed{
	{"", 0o755, 0},
	{"etc/rolekey", 0o755, 0},
	{"etc/ssh/ssh_config.d", 0o755, 0},
	{"etc/ssh/sshd_config.d", 0o755, 0},
	{"root", 0o700, 0},
	{"root/.ssh", 0o700, 0},
	{"run", 0o755, 0},
	{"run/devcluster", 0o755, 0},
	{"run/sshd", 0o755, 0},
	{"run/lock", 0o777 | os.ModeSticky, 0},
	{"run/rolekey", 0o775 | os.ModeSticky, 'g'},
	{"tmp", 0o777 | os.ModeSticky, 0},
	{"var/lib/rolekey", 0o755, 0},
	{"var/lib/rolekey/node", 0o750, 'g'},
	{"var/lib/rolekey/map", 0o755, 0},
	{"var/lib/rolekey/ssh", 0o700, 0},
	{"var/lib/rolekey/masterd", 0o700, 'u'},
	{"var/log/rolekey", 0o755, 0},
	{"var/log/rolekey/masterd", 0o750, 'u'},
}

// masterdAudit is the one file that an installation makes.
const masterdAudit = "var/log/rolekey/masterd-audit.log"

// makeMachineTree writes what a node has of its own, as an installation and the
// machine's first boot would.
func (h *holder) makeMachineTree(n Node) error {
	for _, d := range installedDirs {
		path := filepath.Join(n.Root, d.path)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("create folder of %s: %w", n.Name, err)
		}
		if err := h.own(path, d.masterd, d.mode); err != nil {
			return fmt.Errorf("create folder of %s: %w", n.Name, err)
		}
	}
	audit := filepath.Join(n.Root, masterdAudit)
	if err := os.WriteFile(audit, nil, 0o640); err != nil {
		return fmt.Errorf("create audit log of %s: %w", n.Name, err)
	}
	if err := h.own(audit, 'u', 0o640); err != nil {
		return fmt.Errorf("create audit log of %s: %w", n.Name, err)
	}
	if err := newHostKey(n.HostKey(), "root@"+n.Name); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generate host key: %w", err)
	}
	if err := writeHostKey(filepath.Join(n.Root, "etc/ssh/ssh_host_ecdsa_key"), "root@"+n.Name, key, key.Public()); err != nil {
		return err
	}
	return h.writeMachineConfigs(n)
}

// own sets owner and mode past the umask, whatever it is.
func (h *holder) own(path string, masterd byte, mode os.FileMode) error {
	uid, gid := 0, 0
	switch masterd {
	case 'u':
		uid, gid = h.accounts.UID, h.accounts.GID
	case 'g':
		gid = h.accounts.GID
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// machineConfig is noded.toml and masterd.toml of a machine: what differs from
// the defaults.
type machineConfig struct {
	Addresses []string     `toml:"addresses"`
	LogLevel  string       `toml:"log_level"`
	Ports     *portsConfig `toml:"ports"`
}

func (h *holder) writeMachineConfigs(n Node) error {
	c := machineConfig{Addresses: n.Addresses, LogLevel: "debug"}
	masterd, err := encodeTOML(c)
	if err != nil {
		return err
	}
	ports := h.state.Ports
	if ports.SSH = cluster.DefaultPorts.SSH; ports != cluster.DefaultPorts { // noded asks sshd for its port
		all := portsConfig(h.state.Ports)
		c.Ports = &all
	}
	noded, err := encodeTOML(c)
	if err != nil {
		return err
	}
	for path, content := range map[string]string{
		"etc/rolekey/noded.toml":   noded,
		"etc/rolekey/masterd.toml": masterd,
		"etc/ssh/sshd_config":      machineSSHD(n.SSHPort, h.usePAM),
		"etc/ssh/ssh_config":       "Include /etc/ssh/ssh_config.d/*.conf\nHost *\n    SendEnv LANG LC_*\n",
	} {
		if err := os.WriteFile(filepath.Join(n.Root, path), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write configuration of %s: %w", n.Name, err)
		}
	}
	return nil
}

// machineSSHD is an sshd_config as distributions ship it. Where authorized_keys
// is, and on which addresses sshd answers, is sshd's own default.
func machineSSHD(port int, pam bool) string {
	lines := []string{
		"Include /etc/ssh/sshd_config.d/*.conf",
		fmt.Sprintf("Port %d", port),
		"HostKey /etc/ssh/ssh_host_ed25519_key",
		"HostKey /etc/ssh/ssh_host_ecdsa_key",
		"StrictModes yes",
		"PermitRootLogin prohibit-password",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"UsePAM " + map[bool]string{true: "yes", false: "no"}[pam],
		"UseDNS no",
		"PrintMotd no",
		"AcceptEnv LANG LC_*",
		"LogLevel VERBOSE",
		"MaxStartups 200:30:400",
		"Subsystem sftp internal-sftp",
	}
	return strings.Join(lines, "\n") + "\n"
}
