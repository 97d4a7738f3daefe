package sshkeys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"rolekey/cluster"
)

// Version is a version of OpenSSH. The zero Version is unknown.
type Version struct{ Major, Minor int }

// AtLeast reports whether v is major.minor or later.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// String returns "9.2", or "unknown".
func (v Version) String() string {
	if v == (Version{}) {
		return "unknown"
	}
	return strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor)
}

var versionText = regexp.MustCompile(`\bOpenSSH_(?:for_Windows_)?([0-9]{1,3})\.([0-9]{1,3})`)

// ParseVersion finds the version in what sshd -V or ssh -V print. Servers before
// 9.2 do not know -V, and print the version with their complaint.
func ParseVersion(output []byte) (Version, error) {
	m := versionText.FindSubmatch(output)
	if m == nil {
		return Version{}, fmt.Errorf("parse sshd version: no OpenSSH version in %.80q", output)
	}
	major, err1 := strconv.Atoi(string(m[1]))
	minor, err2 := strconv.Atoi(string(m[2]))
	if err := errors.Join(err1, err2); err != nil {
		return Version{}, fmt.Errorf("parse sshd version: %w", err)
	}
	return Version{major, minor}, nil
}

// Limits on what the probes wait for and read.
const (
	probeTime   = 10 * time.Second
	probeOutput = 1 << 20
)

// ProbeSSHD asks the program at path, sshd or ssh, for its version.
func ProbeSSHD(ctx context.Context, path string) (Version, error) {
	// The exit status says nothing: old servers exit with 1 after a usage text.
	out, err := probe(ctx, path, "-V")
	v, perr := ParseVersion(out)
	if perr != nil {
		return Version{}, fmt.Errorf("probe %s: %w", path, errors.Join(perr, err))
	}
	return v, nil
}

// Login is the login that sshd is asked about: Match blocks of its configuration
// look at each of these.
type Login struct {
	User     string
	From, To netip.Addr // invalid: this machine itself
	Port     uint16     // 0: 22
}

func (l Login) spec() string {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if !l.From.IsValid() || !l.To.IsValid() {
		l.From, l.To = loopback, loopback
	}
	if l.Port == 0 {
		l.Port = sshPort
	}
	return fmt.Sprintf("user=%s,host=%s,addr=%s,laddr=%s,lport=%d", l.User, l.From, l.From, l.To, l.Port)
}

// ProbeConfig asks sshd what its configuration means for a login. args go before
// ours, such as -f FILE.
func ProbeConfig(ctx context.Context, path string, l Login, args ...string) (Config, error) {
	args = append(args, "-T", "-C", l.spec())
	out, err := probe(ctx, path, args...)
	if err != nil {
		return Config{}, fmt.Errorf("probe %s -T: %w: %.200s", path, err, bytes.TrimSpace(out))
	}
	return ParseConfig(string(out)), nil
}

func probe(ctx context.Context, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	var out bounded
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return out.Bytes(), err
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), probeOutput-b.Len())])
	return len(p), nil
}

// Config is the part of sshd's effective configuration that Rolekey needs.
type Config struct {
	AuthorizedKeysFile []string // as configured, with tokens
	HostKey            []string // private key files; the public halves end in .pub
	Port               []uint16
	StrictModes        bool
	PermitRootLogin    string // "yes", "no", ...; empty: sshd did not say
	PubkeyAuth         string // "yes" or "no"
}

// Refusals says why sshd lets the account in by no key, whatever is authorized.
func (c Config) Refusals(a Account) []string {
	var list []string
	if c.PubkeyAuth == "no" {
		list = append(list, "sshd accepts no keys: its configuration says PubkeyAuthentication no")
	}
	if a.UID == 0 && (c.PermitRootLogin == "no" || c.PermitRootLogin == "forced-commands-only") {
		list = append(list, "sshd lets root not in by key: its configuration says PermitRootLogin "+c.PermitRootLogin)
	}
	return list
}

// ParseConfig reads the output of sshd -T. That output does not quote, so that
// a path with a space in it cannot be told from two paths: where such a path is
// used, it must be configured for noded as well.
func ParseConfig(sshdT string) Config {
	var c Config
	for text := range strings.Lines(sshdT) {
		key, value, _ := strings.Cut(strings.TrimSpace(text), " ")
		switch strings.ToLower(key) {
		case "authorizedkeysfile":
			c.AuthorizedKeysFile = append(c.AuthorizedKeysFile, strings.Fields(value)...)
		case "hostkey":
			c.HostKey = append(c.HostKey, value)
		case "strictmodes":
			c.StrictModes = value == "yes"
		case "permitrootlogin":
			c.PermitRootLogin = value
		case "pubkeyauthentication":
			c.PubkeyAuth = value
		case "port":
			if p, err := strconv.ParseUint(value, 10, 16); err == nil && p != 0 {
				c.Port = append(c.Port, uint16(p))
			}
		}
	}
	return c
}

// ErrNoAuthorizedKeysFile says that sshd reads no authorized_keys file at all.
var ErrNoAuthorizedKeysFile = errors.New("sshd reads no authorized_keys file")

// Path returns the first authorized_keys file that sshd reads for the account,
// from the output of sshd -T: relative paths begin at its home; %h, %u, %U and
// %% are expanded.
func Path(sshdT string, a Account) (string, error) {
	return ParseConfig(sshdT).AuthorizedKeys(a)
}

// AuthorizedKeys returns the first authorized_keys file for the account.
func (c Config) AuthorizedKeys(a Account) (string, error) {
	all, err := c.AllAuthorizedKeys(a)
	if err != nil {
		return "", err
	}
	return all[0], nil
}

// AllAuthorizedKeys returns the authorized_keys files that sshd reads for the
// account, at least one.
func (c Config) AllAuthorizedKeys(a Account) ([]string, error) {
	var all []string
	for _, text := range c.AuthorizedKeysFile {
		if strings.EqualFold(text, "none") {
			continue
		}
		path, err := expandTokens(text, a)
		if err != nil {
			return nil, fmt.Errorf("find authorized_keys: %w", err)
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(a.Home, path)
		}
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("find authorized_keys: home %q of %s is not absolute", a.Home, a.Name)
		}
		if path = filepath.Clean(path); !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	if len(all) == 0 {
		return nil, ErrNoAuthorizedKeysFile
	}
	return all, nil
}

func expandTokens(text string, a Account) (string, error) {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			out.WriteByte(text[i])
			continue
		}
		if i++; i == len(text) {
			return "", fmt.Errorf("path %q ends in %%", text)
		}
		switch text[i] {
		case '%':
			out.WriteByte('%')
		case 'h':
			out.WriteString(a.Home)
		case 'u':
			out.WriteString(a.Name)
		case 'U':
			out.WriteString(strconv.Itoa(a.UID))
		default:
			return "", fmt.Errorf("path %q: unknown token %%%c", text, text[i])
		}
	}
	return out.String(), nil
}

// HostKeys reads the public host keys of this machine's sshd. Keys of a type or
// strength that Rolekey does not use, and missing files, are told in the error
// beside the good ones.
func (c Config) HostKeys() ([]cluster.SSHKey, error) {
	var keys []cluster.SSHKey
	var errs []error
	for _, private := range c.HostKey {
		text, err := readBounded(private + ".pub")
		if err != nil {
			errs = append(errs, fmt.Errorf("read host key: %w", err))
			continue
		}
		k, err := ParsePublicLine(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("read host key %s.pub: %w", private, err))
			continue
		}
		keys = append(keys, k)
	}
	return keys, errors.Join(errs...)
}
