package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// privsepUser and privsepDir are compiled into sshd.
const (
	privsepUser = "sshd"
	privsepDir  = "/run/sshd"
)

// labUser is the user that plays root on every node: the one who started the
// cluster.
type labUser struct {
	name     string
	uid, gid int
	home     string // resolved, as sshd does
}

// currentUser finds the name that sshd will know the user by.
func currentUser() (*labUser, error) {
	u := &labUser{uid: os.Getuid(), gid: os.Getgid()}
	if b, err := os.ReadFile("/etc/passwd"); err == nil {
		if f := passwdLine(b, itoa(u.uid)); f != nil {
			u.name, u.home = f[0], resolved(f[5])
			return u, nil
		}
	}
	if cur, err := user.LookupId(itoa(u.uid)); err == nil {
		u.name, u.home = cur.Username, resolved(cur.HomeDir)
		return u, nil
	}
	u.name = "lab" // mountPrivateFiles makes it true
	return u, nil
}

// resolved follows links; a home folder that does not exist is none.
func resolved(dir string) string {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	return real
}

// passwdLine finds the line of a uid in passwd(5).
func passwdLine(b []byte, uid string) []string {
	for line := range strings.SplitSeq(string(b), "\n") {
		if f := strings.Split(line, ":"); len(f) == 7 && f[2] == uid {
			return f
		}
	}
	return nil
}

// mountPrivateFiles changes what sshd believes of the user, for the processes
// of this cluster only:
//   - the home folder is the cluster's directory. StrictModes walks from
//     authorized_keys up to the home folder and refuses a folder that others may
//     write, such as /tmp, on its way; and neither ssh nor a login shell
//     reads the user's real files;
//   - the account of sshd's privilege separation exists;
//   - the account is not locked;
//   - an ordinary user has no group tty, because a user namespace of one user
//     cannot give a terminal to it.
func (u *labUser) mountPrivateFiles(dir string) error {
	// Without this our mounts would spread to the host's namespace.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return fmt.Errorf("read passwd: %w", err)
	}
	if err := bindFile(dir, "/etc/passwd", u.editPasswd(passwd, dir)); err != nil {
		return err
	}
	if u.uid != 0 {
		return u.hideGroupTTY(dir)
	}
	return u.unlock(dir)
}

// editPasswd returns the passwd file of the cluster.
func (u *labUser) editPasswd(in []byte, home string) []byte {
	var out [][]string
	used := map[string]bool{}
	found, privsep := false, false
	for line := range strings.SplitSeq(strings.TrimSuffix(string(in), "\n"), "\n") {
		f := strings.Split(line, ":")
		if len(f) == 7 {
			used[f[2]] = true
			privsep = privsep || f[0] == privsepUser
			if f[0] == u.name && f[2] == itoa(u.uid) {
				f[5], f[6], found = home, "/bin/sh", true
			}
		}
		out = append(out, f)
	}
	if !found {
		out = append(out, []string{u.name, "x", itoa(u.uid), itoa(u.gid), "", home, "/bin/sh"})
	}
	if !privsep {
		out = append(out, []string{privsepUser, "x", freeUID(used), "65534", "", privsepDir, "/usr/sbin/nologin"})
	}
	var b bytes.Buffer
	for _, f := range out {
		b.WriteString(strings.Join(f, ":") + "\n")
	}
	return b.Bytes()
}

// freeUID returns a system uid that no line uses.
func freeUID(used map[string]bool) string {
	for uid := 999; uid > 100; uid-- {
		if !used[itoa(uid)] {
			return itoa(uid)
		}
	}
	return "65533"
}

func (u *labUser) hideGroupTTY(dir string) error {
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		return fmt.Errorf("read group: %w", err)
	}
	lines := strings.SplitAfter(string(group), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "tty:") })
	return bindFile(dir, "/etc/group", []byte(strings.Join(lines, "")))
}

// unlock lets root log in by key where the password field locks the account.
func (u *labUser) unlock(dir string) error {
	shadow, err := os.ReadFile("/etc/shadow")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read shadow: %w", err)
	}
	locked := u.name + ":!"
	lines := strings.SplitAfter(string(shadow), "\n")
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, locked) })
	if i < 0 {
		return nil
	}
	// Only this one line: the hashes of others have no business in DIR.
	f := strings.SplitN(lines[i], ":", 3)
	return bindFile(dir, "/etc/shadow", []byte(f[0]+":*:"+f[2]))
}

// preparePrivsep makes what an sshd of root needs, and says what is missing.
func (u *labUser) preparePrivsep() error {
	if u.uid != 0 {
		return nil
	}
	if err := os.MkdirAll(privsepDir, 0o755); err != nil {
		return fmt.Errorf("create sshd's privilege separation folder: %w", err)
	}
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return fmt.Errorf("read passwd: %w", err)
	}
	if !bytes.HasPrefix(b, []byte(privsepUser+":")) && !bytes.Contains(b, []byte("\n"+privsepUser+":")) {
		return errors.New("sshd run by root needs the account sshd, and no mount namespace can provide it here: install openssh-server")
	}
	return nil
}
