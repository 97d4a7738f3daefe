package sshkeys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"rolekey/internal/atomicfile"
)

// nobody is the address that no connection comes from. The drop-in for sshd
// leaves it out, so that sshd, asked what it would do for a connection from
// there, tells what is configured besides the drop-in.
const nobody = "0.0.0.0"

// KeyCommand is the program that sshd is to run for the keys of an account
// (AuthorizedKeysCommand in sshd_config(5)), and the drop-in that says so.
type KeyCommand struct {
	Account string   // whose logins; it also runs the command
	Program string   // absolute path
	Args    []string // literal ones; user, type and key follow as sshd's tokens
}

// Line returns the command as sshd's configuration has it, and as sshd -T
// prints it.
func (c KeyCommand) Line() (string, error) {
	if !filepath.IsAbs(c.Program) {
		return "", fmt.Errorf("program %q: want an absolute path", c.Program)
	}
	words := []string{"/" + quoteWord(c.Program[1:])} // sshd wants a slash first
	for _, a := range c.Args {
		words = append(words, quoteWord(strings.ReplaceAll(a, "%", "%%")))
	}
	for _, w := range words {
		if strings.ContainsFunc(w, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.ContainsAny(strings.Trim(w, `/"`), `"\'#`) {
			return "", fmt.Errorf("%q: sshd's configuration cannot hold quotes, backslashes, number signs and control characters", w)
		}
	}
	return strings.Join(append(words, "%u", "%t", "%k"), " "), nil
}

func quoteWord(w string) string {
	if w != "" && !strings.Contains(w, " ") {
		return w
	}
	return `"` + w + `"`
}

// Render returns the drop-in's text.
func (c KeyCommand) Render() ([]byte, error) {
	line, err := c.Line()
	if err == nil && !userName.MatchString(c.Account) {
		err = fmt.Errorf("user name %.40q: want letters, digits, dots, hyphens and underscores", c.Account)
	}
	if err != nil {
		return nil, fmt.Errorf("make sshd configuration: %w", err)
	}
	var out bytes.Buffer
	out.WriteString("# Written by Rolekey, since the cluster says --ssh-authorize=command. Changes are\n" +
		"# lost. Nobody connects from " + nobody + ": with it Rolekey asks sshd what else is set.\n")
	fmt.Fprintf(&out, "Match User %s Address *,!%s\n", c.Account, nobody)
	fmt.Fprintf(&out, "\tAuthorizedKeysCommand %s\n\tAuthorizedKeysCommandUser %s\n", line, c.Account)
	return out.Bytes(), nil
}

// WriteDropIn makes text the content of sshd's drop-in, durably. The folder
// must be there: it is sshd's.
func WriteDropIn(path string, text []byte) error {
	if err := atomicfile.Write(path, text, atomicfile.Durable(0o644)); err != nil {
		return fmt.Errorf("write sshd configuration: %w", err)
	}
	return nil
}

// HasDropIn reports whether the drop-in holds exactly this text.
func HasDropIn(path string, text []byte) bool {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	old, err := readBounded(path)
	return err == nil && bytes.Equal(old, text)
}

// KeySource is what sshd does about an account's keys besides reading files.
type KeySource struct {
	Command string // as configured; "": none
	User    string // who runs it
	PidFile string // "": none
}

// ProbeKeySource asks sshd what holds for logins to the account, with the
// drop-in or as if it were not there. args go before ours.
func ProbeKeySource(ctx context.Context, sshd, account string, dropIn bool, args ...string) (KeySource, error) {
	addr := nobody
	if dropIn {
		addr = "127.0.0.1"
	}
	args = append(args[:len(args):len(args)], "-T", "-C", "user="+account+",host=localhost,addr="+addr)
	out, err := probe(ctx, sshd, args...)
	if err != nil {
		return KeySource{}, fmt.Errorf("probe %s -T: %w: %.300s", sshd, err, bytes.TrimSpace(out))
	}
	return parseKeySource(string(out)), nil
}

func parseKeySource(sshdT string) KeySource {
	var s KeySource
	for text := range strings.Lines(sshdT) {
		key, value, _ := strings.Cut(strings.TrimSpace(text), " ")
		if value == "none" {
			value = ""
		}
		switch strings.ToLower(key) {
		case "authorizedkeyscommand":
			s.Command = value
		case "authorizedkeyscommanduser":
			s.User = value
		case "pidfile":
			s.PidFile = value
		}
	}
	return s
}

// CheckConfig has sshd check its configuration and host keys (sshd -t). One that
// reads a bad configuration again ends.
func CheckConfig(ctx context.Context, sshd string, args ...string) error {
	if out, err := probe(ctx, sshd, append(args[:len(args):len(args)], "-t")...); err != nil {
		return fmt.Errorf("%s -t: %w: %.300s", sshd, err, bytes.TrimSpace(out))
	}
	return nil
}

// CheckProgram finds why sshd would refuse to run a program: it and all folders
// above it must be root's and nobody else's to write.
func CheckProgram(path string) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("sshd cannot run the program: %w", err)
	}
	for p := path; ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil {
			return fmt.Errorf("sshd cannot run %s: %w", path, err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			return fmt.Errorf("sshd will not run %s: %s does not belong to root", path, p)
		}
		if info.Mode()&0o022 != 0 {
			return fmt.Errorf("sshd will not run %s: others than root may write %s", path, p)
		}
		if p == path && !info.Mode().IsRegular() {
			return fmt.Errorf("sshd will not run %s: it is not a file", path)
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

// MissingDir reports whether the folder of sshd's drop-ins is not there.
func MissingDir(dropIn string) bool {
	_, err := os.Stat(filepath.Dir(dropIn))
	return errors.Is(err, fs.ErrNotExist)
}
