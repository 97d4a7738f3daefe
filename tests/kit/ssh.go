package kit

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"rolekey/internal/lab"
)

// Login logs in from one node to another by plain ssh(1), as root there would
// do, and returns an error unless a command ran on the other node.
func (c *Cluster) Login(ctx context.Context, from, to lab.Node) error {
	return c.login(ctx, from, to, to.Name)
}

// LoginAt is Login by one of the other node's addresses.
func (c *Cluster) LoginAt(ctx context.Context, from, to lab.Node, address string) error {
	return c.login(ctx, from, to, address)
}

// LoginWith logs in with a private key file of the attacker's, without asking
// who the server is.
func (c *Cluster) LoginWith(ctx context.Context, key string, from, to lab.Node) error {
	key, err := within(from, key)
	if err != nil {
		return err
	}
	return c.login(ctx, from, to, to.Name, "-i", key, "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-p", fmt.Sprint(to.SSHPort), "-l", to.User)
}

// within makes a key file readable on a node that has files of its own, and
// returns its path there.
func within(n lab.Node, key string) (string, error) {
	if n.Init == 0 {
		return key, nil
	}
	b, err := os.ReadFile(key)
	if err != nil {
		return "", fmt.Errorf("read key: %w", err)
	}
	path := fmt.Sprintf("/tmp/key-%x", sha256.Sum256(b))
	if err := os.WriteFile(n.File(path), b, 0o600); err != nil {
		return "", fmt.Errorf("bring key to %s: %w", n.Name, err)
	}
	return path, nil
}

func (c *Cluster) login(ctx context.Context, from, to lab.Node, dest string, options ...string) error {
	args := append([]string{"ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"}, options...)
	args = append(args, dest, `printf "on %s" "${ROLEKEY_ROOT:-$(hostname)}"`)
	place := to.Root
	if to.Init != 0 {
		place = to.Name
	}
	r, err := c.Sh(ctx, from.Name, args...)
	if err != nil {
		return err
	}
	if r.Code != 0 {
		return fmt.Errorf("ssh %s from %s: exit code %d: %s", dest, from.Short(), r.Code, lastLine(r.Stderr))
	}
	if !strings.Contains(r.Stdout, "on "+place) {
		return fmt.Errorf("ssh %s from %s: reached another place: %q", dest, from.Short(), r.Stdout)
	}
	return nil
}

// Denied returns nil if err says that sshd refused the key, and not that
// something else went wrong.
func Denied(err error) error {
	switch {
	case err == nil:
		return fmt.Errorf("the login worked")
	case strings.Contains(err.Error(), "Permission denied"):
		return nil
	}
	return err
}

// ShutOut is Denied of a node that has just lost its access: for a second or two
// noded ends logins that are not decided yet.
func ShutOut(err error) error {
	if err != nil && (strings.Contains(err.Error(), "Connection closed") || strings.Contains(err.Error(), "Connection reset")) {
		return nil
	}
	return Denied(err)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// NewSSHKey writes a private key that nobody has authorized.
func NewSSHKey(path string) error {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("generate ssh key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "attacker")
	if err != nil {
		return fmt.Errorf("encode ssh key: %w", err)
	}
	return os.WriteFile(path, pem.EncodeToMemory(block), 0o600)
}
