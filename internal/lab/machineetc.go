package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// masterdUser runs masterd, as tools/install/sysusers.conf says.
const masterdUser = "rolekey"

// accounts are the users and groups of every node: the machine's, and those that
// an installation adds.
type accounts struct {
	Passwd string `json:"passwd"`
	Group  string `json:"group"`
	UID    int    `json:"uid"` // of masterd
	GID    int    `json:"gid"`
}

// readAccounts makes the accounts from those of the machine.
func readAccounts() (*accounts, error) {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil, fmt.Errorf("read passwd: %w", err)
	}
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		return nil, fmt.Errorf("read group: %w", err)
	}
	return makeAccounts(string(passwd), string(group))
}

func makeAccounts(passwd, group string) (*accounts, error) {
	users, usedUIDs := table(passwd)
	groups, usedGIDs := table(group)
	g := row(groups, masterdUser)
	if g == nil {
		g = []string{masterdUser, "x", freeUID(usedGIDs), ""}
		groups = append(groups, g)
	}
	u := row(users, masterdUser)
	if u == nil {
		u = []string{masterdUser, "x", freeUID(usedUIDs), g[2], "Rolekey master daemon", "/var/lib/rolekey/masterd", "/usr/sbin/nologin"}
		users = append(users, u)
		usedUIDs[u[2]] = true
	}
	if row(users, privsepUser) == nil {
		users = append(users, []string{privsepUser, "x", freeUID(usedUIDs), "65534", "", privsepDir, "/usr/sbin/nologin"})
	}
	if r := row(users, "root"); len(r) == 7 {
		r[5] = "/root"
		if strings.HasSuffix(r[6], "nologin") || strings.HasSuffix(r[6], "false") {
			r[6] = "/bin/sh"
		}
	}
	a := &accounts{Passwd: lines(users), Group: lines(groups)}
	if _, err := fmt.Sscan(u[2]+" "+u[3], &a.UID, &a.GID); err != nil {
		return nil, fmt.Errorf("read account %s: %w", masterdUser, err)
	}
	return a, nil
}

// table splits passwd(5) or group(5), and tells which ids are used.
func table(text string) (rows [][]string, used map[string]bool) {
	used = map[string]bool{}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		f := strings.Split(line, ":")
		if len(f) > 2 {
			used[f[2]] = true
		}
		rows = append(rows, f)
	}
	return rows, used
}

func row(rows [][]string, name string) []string {
	for _, r := range rows {
		if r[0] == name && len(r) >= 4 {
			return r
		}
	}
	return nil
}

func lines(rows [][]string) string {
	var b strings.Builder
	for _, r := range rows {
		b.WriteString(strings.Join(r, ":") + "\n")
	}
	return b.String()
}

// writeEtc writes the files of /etc in which the node differs. They lie in
// memory: the passwords of this machine have no business in DIR.
func (s *machineSpec) writeEtc() error {
	shadow, err := os.ReadFile("/etc/shadow")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read shadow: %w", err)
	}
	files := map[string]string{
		"/etc/hostname": s.Node.Name + "\n",
		"/etc/hosts":    hostsFile(s.Nodes),
		"/etc/passwd":   s.Accounts.Passwd,
		"/etc/group":    s.Accounts.Group,
	}
	if len(shadow) > 0 {
		files["/etc/shadow"] = unlockRoot(string(shadow))
	}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return fmt.Errorf("write the node's own %s: %w", path, err)
		}
	}
	if s.PAM == "" {
		return nil
	}
	if err := os.WriteFile("/etc/pam.d/sshd", []byte(s.PAM), 0o644); err != nil {
		return fmt.Errorf("write the node's own pam.d/sshd: %w", err)
	}
	return nil
}

// unlockRoot lets root log in by key where the password field locks the account.
func unlockRoot(shadow string) string {
	rows, _ := table(shadow)
	if r := row(rows, "root"); r != nil && strings.HasPrefix(r[1], "!") {
		r[1] = "*"
	}
	return lines(rows)
}

// hostsFile names all nodes by all their addresses.
func hostsFile(nodes []Node) string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	for _, n := range nodes {
		for _, a := range n.Addresses {
			fmt.Fprintf(&b, "%s %s %s\n", a, n.Name, n.Short())
		}
	}
	return b.String()
}

// findPAM reports whether sshd can use PAM here: there is a configuration for it,
// the machine's or that of the package that sshd was unpacked from, and what
// that includes. text is what the machine lacks.
func findPAM(t *sshTools) (text string, ok bool) {
	const dir = "/etc/pam.d"
	b, err := os.ReadFile(filepath.Join(dir, "sshd"))
	if err != nil {
		for _, d := range sshdFolders(t) {
			if b, err = os.ReadFile(filepath.Join(d, dir, "sshd")); err == nil {
				text = string(b)
				break
			}
		}
	}
	if err != nil {
		return "", false
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) != 2 || f[0] != "@include" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, f[1])); err != nil {
			return "", false
		}
	}
	return text, true
}
