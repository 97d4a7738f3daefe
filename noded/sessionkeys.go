package noded

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/sshkeys"
)

// How a session was opened
//
// With ExposeAuthInfo in its configuration sshd writes, at the login, by which
// methods and keys it was, to a file of the account, and names that file to what
// it starts in the session, in SSH_USER_AUTH. Who is root in a session can change
// both. To end a session one statement is enough: it harms nobody but that
// session. To spare one that comes from a revoked address the statement must be
// believed: everything that runs in the session names one and the same file, no
// other session does, and the file is as sshd made it at that login and was not
// touched since the session's processes were started. Whatever differs, and
// whatever cannot be read, counts for nothing, and the address decides.

const (
	authVariable = "SSH_USER_AUTH="
	maxEnviron   = 4 << 20
	maxAuthInfo  = 64 << 10
	maxAuthFiles = 16 // of one session

	loginWindow = 2 * time.Minute // sshd's LoginGraceTime, unless configured
	clockSlack  = 50 * time.Millisecond
	userHZ      = 100 // ticks of a second in /proc
)

// authFile is how sshd names the file.
var authFile = regexp.MustCompile(`^/tmp/sshauth\.[0-9A-Za-z]{6,32}$`)

// statement is what sshd tells of how a session was opened.
type statement struct {
	files    []string
	keys     []cluster.SSHKey // all that are named anywhere
	believed bool             // it is sshd that tells
}

// access is who may log in now.
type access struct {
	ours    []sshkeys.Authorized // by the map
	foreign []cluster.SSHKey     // by lines in authorized_keys of others
}

// lets reports whether sshd would take the key now, from that address.
func (a access) lets(k cluster.SSHKey, from netip.Addr) bool {
	same := func(o cluster.SSHKey) bool { return bytes.Equal(o.Blob, k.Blob) }
	return slices.ContainsFunc(a.foreign, same) || slices.ContainsFunc(a.ours, func(o sshkeys.Authorized) bool {
		return slices.ContainsFunc(o.Keys, same) && slices.ContainsFunc(o.From, func(p netip.Prefix) bool { return p.Contains(from) })
	})
}

func keyText(k cluster.SSHKey) string { return base64.StdEncoding.EncodeToString(k.Blob) }

// askSSHD fills in what sshd tells of each login.
func (s *sessions) askSSHD(logins []*login, list []process, uid int) {
	named := map[string]int{}
	for _, l := range logins {
		l.tells = s.statement(l, list, uid)
		for _, f := range l.tells.files {
			named[f]++
		}
	}
	for _, l := range logins {
		if slices.ContainsFunc(l.tells.files, func(f string) bool { return named[f] > 1 }) {
			l.tells.believed = false
		}
	}
}

// statement looks at all that sshd started for a login.
func (s *sessions) statement(l *login, list []process, uid int) (out statement) {
	oldest := uint64(0)
	complete := true
	for _, p := range list {
		serves := slices.ContainsFunc(l.serves, func(o process) bool { return o.pid == p.parent })
		if !serves || sshdTitle.MatchString(p.title) {
			continue
		}
		name := s.authVariable(p.pid)
		if complete = complete && name != ""; name != "" {
			out.files = union(out.files, []string{name})
		}
		if oldest == 0 || p.ticks < oldest {
			oldest = p.ticks
		}
	}
	if len(out.files) > maxAuthFiles {
		out.files, complete = out.files[:maxAuthFiles], false
	}
	for _, name := range out.files {
		text, made, err := s.authInfo(l.serves[0].pid, name, uid)
		keys, plain := parseAuthInfo(text)
		out.keys = append(out.keys, keys...)
		complete = complete && err == nil && plain && within(made, l.serves, oldest)
	}
	out.believed = complete && len(out.files) == 1
	return out
}

// within reports whether the file was made at the login, and before what runs
// in the session.
func within(made time.Time, serves []process, oldest uint64) bool {
	first := slices.MinFunc(serves, func(a, b process) int { return int(a.ticks) - int(b.ticks) })
	start, child := startOf(first.ticks), startOf(oldest)
	return made.After(start.Add(-clockSlack)) && made.Before(start.Add(loginWindow)) && made.Before(child.Add(clockSlack))
}

// startOf turns ticks since the start of the machine into a time. After a step
// of the clock it fits no file from before.
func startOf(ticks uint64) time.Time {
	var boot unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return time.Time{}
	}
	ago := time.Duration(boot.Nano()) - time.Duration(ticks)*(time.Second/userHZ)
	return time.Now().Add(-ago)
}

// authVariable reads the name of the file from the environment that a process
// was started with; "": there is none, or none that sshd would give.
func (s *sessions) authVariable(pid int) string {
	f, err := os.Open(filepath.Join(s.proc, strconv.Itoa(pid), "environ"))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxEnviron))
	if err != nil || len(text) == maxEnviron {
		return ""
	}
	name := ""
	for v := range bytes.SplitSeq(text, []byte{0}) {
		if value, ok := bytes.CutPrefix(v, []byte(authVariable)); ok {
			if name != "" || !authFile.Match(value) {
				return ""
			}
			name = string(value)
		}
	}
	return name
}

// authInfo reads the file, as sshd sees it, and when it was touched last. The
// error tells that it is not as sshd makes it.
func (s *sessions) authInfo(pid int, name string, uid int) (text []byte, made time.Time, err error) {
	f, err := os.OpenFile(s.seenBy(pid, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, made, err
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, made, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, made, errors.New("it is no plain file")
	}
	text, err = io.ReadAll(io.LimitReader(f, maxAuthInfo))
	if err == nil && (st.Mode&0o7777 != 0o600 || int(st.Uid) != uid || st.Nlink != 1 || len(text) == maxAuthInfo) {
		err = fmt.Errorf("mode %o, owner %d, %d names", st.Mode, st.Uid, st.Nlink)
	}
	return text, time.Unix(st.Ctim.Unix()), err
}

// seenBy is a file as a process sees it.
func (s *sessions) seenBy(pid int, name string) string {
	return filepath.Join(s.proc, strconv.Itoa(pid), "root", name)
}

// parseAuthInfo reads lines like "publickey ssh-ed25519 AAAA..." and "password".
// plain: every line was understood, and there was one.
func parseAuthInfo(text []byte) (keys []cluster.SSHKey, plain bool) {
	plain = len(text) > 0
	for line := range strings.Lines(string(text)) {
		method, about, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch method {
		case "publickey":
			key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(about))
			if err != nil || len(rest) > 0 {
				plain = false
				continue
			}
			if c, ok := key.(*ssh.Certificate); ok { // sshd took it for its CA's sake
				key, plain = c.Key, false
			}
			keys = append(keys, cluster.SSHKey{Type: key.Type(), Blob: key.Marshal()})
		case "password", "keyboard-interactive", "keyboard-interactive/pam":
		default:
			plain = false
		}
	}
	return keys, plain
}

// access is who may log in by the view, and by lines of others. A key that a
// map of this run took away is nobody else's, whatever line holds it.
func (s *sshFiles) access(ctx context.Context, v *candmap.View) (a access) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, err := s.finder.get(ctx)
	if err != nil || v.Map == nil {
		return a
	}
	if s.until.IsZero() || s.now().Before(s.until) {
		a.ours = authorized(v.Map.Map)
	}
	var text strings.Builder
	ours := map[string]bool{}
	for _, k := range s.former {
		ours[keyText(k)] = true
	}
	for _, path := range set.reads() {
		one, err := readKeys(path)
		if err != nil {
			return a
		}
		for _, k := range blockKeys(string(one), s.self.Cluster) {
			ours[keyText(k)] = true
		}
		text.Write(append(one, '\n'))
	}
	for _, l := range lines(text.String()) {
		if k, ok := keyOfLine(trimLine(l)); ok && !ours[keyText(k)] {
			a.foreign = append(a.foreign, k)
		}
	}
	return a
}
