package sshkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

// ClientConfig says what the drop-in for ssh(1) holds besides the hosts.
type ClientConfig struct {
	// LocalUser is the account for which the drop-in takes effect; "" means
	// root. Other users' ssh is left as it is: they cannot read the key.
	LocalUser string
	// User is the account to log in to; "" means root.
	User string
	// Identities are the key files, the newest first: private ones, or public
	// ones of keys that the agent holds. On a node without a key there are none,
	// and ssh then goes on with whatever keys its user has.
	Identities []string
	// Agent is the socket of the agent that holds them; "" means that the files
	// do.
	Agent string
	// KnownHosts is the file with our block.
	KnownHosts string
	// Bind tells the local address to reach another from, which should be one
	// of those that others let this node in from. Zero, and nil, leave it to the
	// kernel.
	Bind func(to netip.Addr) netip.Addr
}

// Render returns the drop-in's text. Per host there is
//
//	Match localuser root host <name>,<first label>
//		HostName <first address>
//	Match localuser root host <name>,<first label>,<addresses>
//		Port …, User …, HostKeyAlias <name>, …
//
// "Match host" sees the host name after a HostName of the user's own
// configuration, so that the user's aliases of a node work as well. It also
// sees our HostName, which is why the second stanza lists the addresses: they
// make "ssh <any address>" work without leading it to the first.
//
// Hosts that do not check out are left out and told in the error beside good
// text. A path that ssh's syntax cannot express yields no text.
func (c ClientConfig) Render(hosts []Host) ([]byte, error) {
	common, err := c.common()
	if err != nil {
		return nil, fmt.Errorf("make ssh configuration: %w", err)
	}
	hosts = slices.Clone(hosts)
	slices.SortFunc(hosts, func(a, b Host) int { return strings.Compare(string(a.Name), string(b.Name)) })
	var out bytes.Buffer
	out.WriteString("# Written by Rolekey from the cluster's roster. Changes are lost: use ~/.ssh/config,\n# which ssh reads first.\n")
	var errs []error
	short := shortNames(hosts)
	for _, h := range hosts {
		if err := h.check(); err != nil {
			errs = append(errs, fmt.Errorf("make ssh configuration: node %.64q: %w", string(h.Name), err))
			continue
		}
		names := []string{string(h.Name)}
		if label, ok := short[h.Name]; ok {
			names = append(names, label)
		}
		c.stanza(&out, h, names, common)
	}
	return out.Bytes(), errors.Join(errs...)
}

// shortNames gives each host its first label, unless that is another host's
// too or reads as a name or number of its own.
func shortNames(hosts []Host) map[cluster.Name]string {
	owners := map[string][]cluster.Name{}
	for _, h := range hosts {
		label, _, _ := strings.Cut(string(h.Name), ".")
		owners[label] = append(owners[label], h.Name)
	}
	short := map[cluster.Name]string{}
	for label, names := range owners {
		if _, err := cluster.ParseName(label); err == nil && len(names) == 1 && label != string(names[0]) {
			short[names[0]] = label
		}
	}
	return short
}

func (c ClientConfig) stanza(out *bytes.Buffer, h Host, names []string, common string) {
	local := orRoot(c.LocalUser)
	fmt.Fprintf(out, "\nMatch localuser %s host %s\n\tHostName %s\n", local, strings.Join(names, ","), h.Addresses[0])
	bound := map[netip.Addr][]string{} // the names and addresses by where ssh comes from
	var order []netip.Addr
	for i, a := range h.Addresses {
		by := []string{a.String()}
		if i == 0 {
			by = append(slices.Clone(names), by...)
		}
		from := c.bind(a)
		if bound[from] == nil {
			order = append(order, from)
		}
		bound[from] = append(bound[from], by...)
	}
	for _, a := range h.Addresses {
		names = append(names, a.String())
	}
	fmt.Fprintf(out, "Match localuser %s host %s\n", local, strings.Join(names, ","))
	fmt.Fprintf(out, "\tPort %d\n\tHostKeyAlias %s\n%s", h.Port, h.Name, common)
	for _, from := range order {
		if !from.IsValid() {
			continue
		}
		if len(order) > 1 {
			fmt.Fprintf(out, "Match localuser %s host %s\n", local, strings.Join(bound[from], ","))
		}
		fmt.Fprintf(out, "\tBindAddress %s\n", from)
	}
}

func (c ClientConfig) bind(to netip.Addr) netip.Addr {
	if c.Bind == nil {
		return netip.Addr{}
	}
	return c.Bind(to)
}

// common renders what is the same for every host.
func (c ClientConfig) common() (string, error) {
	for _, name := range []string{orRoot(c.LocalUser), orRoot(c.User)} {
		if !userName.MatchString(name) {
			return "", fmt.Errorf("user name %.40q: want letters, digits, dots, hyphens and underscores", name)
		}
	}
	known, err := quotePath(c.KnownHosts)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	// UpdateHostKeys would let ssh write host keys into the file by itself:
	// which ones are right is for the roster to say.
	fmt.Fprintf(&out, "\tUser %s\n\tUserKnownHostsFile %s\n\tStrictHostKeyChecking yes\n\tUpdateHostKeys no\n", orRoot(c.User), known)
	for _, file := range c.Identities {
		id, err := quotePath(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "\tIdentityFile %s\n", id)
	}
	if c.Agent != "" {
		sock, err := quotePath(c.Agent)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "\tIdentityAgent %s\n", sock)
	}
	if len(c.Identities) > 0 {
		out.WriteString("\tIdentitiesOnly yes\n")
	}
	return out.String(), nil
}

var userName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}$`)

func orRoot(name string) string {
	if name == "" {
		return "root"
	}
	return name
}

// quotePath renders a path as one word of ssh_config: quoted, because of
// spaces, and with its percent signs doubled, because ssh expands tokens. ssh
// also expands ${NAME}, for which there is no escape, and its rules for
// backslashes and quotes inside quotes changed over time, so those are refused.
func quotePath(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("path %q: want an absolute path", path)
	}
	bad := func(r rune) bool { return r < ' ' || r == 0x7f || r == '"' || r == '\\' }
	if strings.ContainsFunc(path, bad) || strings.Contains(path, "${") {
		return "", fmt.Errorf("path %q: ssh's configuration cannot hold double quotes, backslashes, control characters or ${", path)
	}
	return `"` + strings.ReplaceAll(path, "%", "%%") + `"`, nil
}

// WriteClientConfig replaces the drop-in at path, unless it is right already.
// It is derived and not synced. Anybody may read it: ssh reads it as its user.
func WriteClientConfig(path string, text []byte) (changed bool, err error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm() == 0o644 {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
			return false, nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("write ssh configuration: %w", err)
	}
	if err := atomicfile.Write(path, text, atomicfile.Derived(0o644)); err != nil {
		return false, fmt.Errorf("write ssh configuration: %w", err)
	}
	return true, nil
}

// RemoveClientConfig removes the drop-in.
func RemoveClientConfig(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove ssh configuration: %w", err)
	}
	return nil
}
