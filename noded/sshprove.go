package noded

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/rpc"
)

// askProbes are the keys that are offered to sshd only to see whether it asks.
type askProbes struct {
	mu      sync.Mutex
	waiting map[string]chan struct{} // by blob; closed when asked
}

func (p *askProbes) expect(blob []byte) (asked <-chan struct{}, end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = map[string]chan struct{}{}
	}
	ch := make(chan struct{})
	p.waiting[string(blob)] = ch
	return ch, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waiting, string(blob))
	}
}

// heard notes that sshd asks about a key, and reports whether it is a probe.
func (p *askProbes) heard(blob []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch := p.waiting[string(blob)]
	if ch == nil {
		return false
	}
	select {
	case <-ch:
	default:
		close(ch)
	}
	return true
}

// shown is a key that tells whether it was offered.
type shown struct {
	ssh.Signer
	offered atomic.Bool
}

// PublicKey implements ssh.Signer.
func (s *shown) PublicKey() ssh.PublicKey {
	s.offered.Store(true)
	return s.Signer.PublicKey()
}

// prove offers this node's sshd a key that nobody has, until sshd asks noded
// about it. It is conclusive that sshd refused such a key without asking, more
// than once: a sshd that was told to read its configuration may take a moment.
func (c *sshCommand) prove(ctx context.Context, set *sshSettings, at netip.AddrPort) (conclusive bool, err error) {
	wait := provePause
	for range proveTries {
		var offered bool
		offered, err = c.tryProof(ctx, set, at)
		if err == nil {
			return true, nil
		}
		conclusive = offered
		if perr := pause(ctx, wait, nil); perr != nil {
			return false, perr
		}
		wait *= 3
	}
	return conclusive, err
}

func (c *sshCommand) tryProof(ctx context.Context, set *sshSettings, at netip.AddrPort) (offered bool, err error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return false, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return false, err
	}
	asked, end := c.probes.expect(signer.PublicKey().Marshal())
	defer end()
	s := &shown{Signer: signer}
	err = probe(ctx, rpc.SSHTarget{Address: at.Addr(), Port: at.Port(), Keys: set.hostKeys}, set.account.Name, []ssh.Signer{s}, c.cfg.bindAddress())
	select {
	case <-asked:
		return true, nil
	default:
	}
	if err == nil {
		return true, errors.New("sshd lets everybody in") // a key that nobody has
	}
	if s.offered.Load() && strings.Contains(err.Error(), "unable to authenticate") {
		return true, fmt.Errorf("sshd at %s refuses a key without asking noded about it; its log may say why", at)
	}
	return false, fmt.Errorf("sshd at %s: %w", at, err)
}

// reloadSSHD tells the sshd that listens to read its configuration again. If
// none runs there is nothing to do: each one that is started reads it.
func reloadSSHD(pidFile string, elsewhere bool) error {
	for _, pid := range listeners(pidFile, elsewhere) {
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// listeners are the sshd that accept connections: the one that the pid file
// names, or else, elsewhere, all of this machine.
func listeners(pidFile string, elsewhere bool) []int {
	pids := listener(pidFile)
	if len(pids) == 0 && elsewhere {
		pids = allListeners()
	}
	return pids
}

// drainTime bounds the wait for logins that are under way; drainPause is
// between two looks.
const (
	drainTime  = 3 * time.Second
	drainPause = 10 * time.Millisecond
)

// drainLogins waits for the logins that sshd had begun before it read its new
// configuration: they go by the old one, and still need authorized_keys. Who
// takes longer than others is not waited for.
func drainLogins(ctx context.Context, listeners []int, account string) {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	var waiting map[int]bool // nil: all that are there at the first look
	for {
		now := map[int]bool{}
		list, err := (&sessions{proc: "/proc"}).processes()
		if err != nil {
			return
		}
		for _, p := range list {
			if slices.Contains(listeners, p.parent) && isLogin(p.title, account) && (waiting == nil || waiting[p.pid]) {
				now[p.pid] = true
			}
		}
		if waiting = now; len(now) == 0 || pause(ctx, drainPause, nil) != nil {
			return
		}
	}
}

// isLogin reports whether a process of sshd serves a connection whose login, to
// the account as far as is known, is not decided.
func isLogin(title, account string) bool {
	rest := sshdTitle.ReplaceAllString(title, "")
	if rest == title || strings.Contains(title, "[listener]") { // it has just been started
		return strings.HasSuffix(title, " -R") || strings.Contains(title, "[listener]")
	}
	return strings.Contains(rest, "[accepted]") || rest == account+" [priv]" || rest == account
}

// listener is the process that a pid file names, if that is a sshd.
func listener(pidFile string) []int {
	if pidFile == "" {
		return nil
	}
	text, err := readSmall(pidFile)
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 || !runsSSHD(pid) {
		return nil
	}
	return []int{pid}
}

// allListeners are the sshd of this machine that accept connections.
func allListeners() (pids []int) {
	list, err := (&sessions{proc: "/proc"}).processes()
	if err != nil {
		return nil
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil
	}
	for _, p := range list {
		there, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(p.pid), "ns/pid"))
		if err == nil && there == own && strings.Contains(p.title, "[listener]") && runsSSHD(p.pid) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// runsSSHD looks at the program itself: a title can say anything. The file may
// have been replaced by an upgrade.
func runsSSHD(pid int) bool {
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	return err == nil && strings.TrimSuffix(filepath.Base(exe), " (deleted)") == "sshd"
}
