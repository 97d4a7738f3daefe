package noded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/sshkeys"
)

const defaultSSHD = "/usr/sbin/sshd"

// sshSettings are what noded knows of this machine's sshd.
type sshSettings struct {
	account sshkeys.Account
	// authorized is where the block goes; nowhere, and why, if unread is set.
	authorized sshkeys.File
	unread     error
	// others are further files that sshd reads keys from: no line of ours stays
	// there.
	others   []sshkeys.File
	refusals []string // why sshd lets nobody in, whatever is authorized
	known    sshkeys.File
	options  sshkeys.Options
	hostKeys []cluster.SSHKey
	port     uint16 // that sshd listens on; 0: unknown
	stamp    string // of sshd and its configuration when it was asked
}

// reads are the files that sshd reads keys from.
func (s *sshSettings) reads() []string {
	var list []string
	if s.unread == nil {
		list = append(list, s.authorized.Path)
	}
	for _, f := range s.others {
		list = append(list, f.Path)
	}
	return list
}

// sshFinder asks sshd once it is needed, again as long as it failed, and when
// sshd or its configuration changes.
type sshFinder struct {
	cfg *Config
	log *zap.Logger

	mu    sync.Mutex
	found *sshSettings
}

func (f *sshFinder) get(ctx context.Context) (*sshSettings, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.found != nil {
		return f.found, nil
	}
	stamp := f.stamp() // before the answer, so that a later change is seen
	s, err := f.find(ctx)
	if err != nil {
		return nil, fmt.Errorf("find out about sshd: %w", err)
	}
	s.stamp = stamp
	f.found = s
	return s, nil
}

// forget makes the next get ask again.
func (f *sshFinder) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found = nil
}

// refresh makes the next get ask again if sshd was upgraded or configured anew.
func (f *sshFinder) refresh() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.found != nil && f.found.stamp != f.stamp() {
		f.log.Info("sshd or its configuration changed")
		f.found = nil
	}
}

func (f *sshFinder) sshd() string { return cmp.Or(f.cfg.SSH.SSHD, defaultSSHD) }

// configFile is what sshd reads its configuration from.
func (f *sshFinder) configFile() string {
	return cmp.Or(f.cfg.SSH.SSHDConfig, f.cfg.Paths.SSHDConfig())
}

// configDir is the folder of drop-ins beside it, as most systems have one.
func (f *sshFinder) configDir() string { return f.configFile() + ".d" }

// stamp changes when sshd, its configuration or a drop-in of others does.
func (f *sshFinder) stamp() string {
	files := []string{f.sshd(), f.configFile()}
	entries, _ := os.ReadDir(f.configDir()) // mostly there is none
	for _, e := range entries {
		if path := filepath.Join(f.configDir(), e.Name()); path != f.cfg.Paths.SSHDDropIn() {
			files = append(files, path)
		}
	}
	var b strings.Builder
	for _, path := range files {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintf(&b, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

func (f *sshFinder) find(ctx context.Context) (*sshSettings, error) {
	account, err := f.account()
	if err != nil {
		return nil, err
	}
	s := &sshSettings{account: account}
	version, err := sshkeys.ProbeSSHD(ctx, f.sshd())
	if err != nil {
		f.log.Warn("sshd does not tell its version; writing what every version understands", zap.Error(err))
	}
	s.options = sshkeys.OptionsFor(version)
	own, err := f.probe(ctx, account.Name)
	if err != nil {
		return nil, err
	}
	if len(own.Port) > 0 {
		s.port = own.Port[0]
	}
	if err := f.places(s, own); err != nil {
		return nil, err
	}
	s.known = sshkeys.File{Path: cmp.Or(f.cfg.SSH.KnownHosts, filepath.Join(account.Home, ".ssh", "known_hosts")), Account: account}
	s.hostKeys, err = f.hostKeys(own)
	if len(s.hostKeys) > 0 && err != nil {
		f.log.Warn("some host keys are left out", zap.Error(err))
		err = nil
	}
	return s, err
}

// places finds the files that sshd reads keys from. The block goes into the
// first that is fit for it, or that noded.toml names.
func (f *sshFinder) places(s *sshSettings, own sshkeys.Config) error {
	s.refusals = own.Refusals(s.account)
	lax := len(own.AuthorizedKeysFile) > 0 && !own.StrictModes
	file := func(path string) sshkeys.File { return sshkeys.File{Path: path, Account: s.account, Lax: lax} }
	all, err := own.AllAuthorizedKeys(s.account)
	chosen := f.cfg.SSH.AuthorizedKeys
	switch {
	case errors.Is(err, sshkeys.ErrNoAuthorizedKeysFile) && (chosen == "" || len(own.AuthorizedKeysFile) > 0):
		s.unread = err
		return nil
	case chosen != "":
		// What sshd says does not quote: a path with spaces comes in pieces.
		if err == nil && !strings.Contains(strings.Join(all, " "), chosen) && !strings.Contains(chosen, " ") {
			s.refusals = append(s.refusals, fmt.Sprintf("sshd does not read %s, which noded.toml names, but %s", chosen, strings.Join(all, ", ")))
		}
	case err != nil:
		return err
	default:
		chosen = firstFit(all, file)
	}
	s.authorized = file(chosen)
	for _, path := range all {
		if path != chosen {
			s.others = append(s.others, file(path))
		}
	}
	return nil
}

// firstFit chooses the first file that is fit, or else the first: the error of
// writing it then tells why.
func firstFit(all []string, file func(string) sshkeys.File) string {
	for _, path := range all {
		if file(path).Fit() == nil {
			return path
		}
	}
	return all[0]
}

// probe asks sshd for its configuration. If noded.toml says all that is needed,
// an sshd that cannot be asked is no failure.
func (f *sshFinder) probe(ctx context.Context, account string) (sshkeys.Config, error) {
	c := &f.cfg.SSH
	var args []string
	if c.SSHDConfig != "" {
		args = []string{"-f", c.SSHDConfig}
	}
	l := sshkeys.Login{User: account, From: f.cfg.bindAddress(), To: f.cfg.bindAddress(), Port: f.cfg.Ports.SSH}
	own, err := sshkeys.ProbeConfig(ctx, f.sshd(), l, args...)
	if err != nil && c.AuthorizedKeys != "" && len(c.HostKeys) > 0 {
		f.log.Debug("sshd does not tell its configuration", zap.Error(err))
		return sshkeys.Config{}, nil
	}
	return own, err
}

// ports are the node's, with sshd's own port unless noded.toml names one.
func (s *sshSettings) ports(cfg *Config) cluster.Ports {
	p := cfg.Ports
	if s != nil && s.port != 0 && cfg.askSSHPort {
		p.SSH = s.port
	}
	return p
}

// account finds whose SSH files are kept: root's, or the daemon's own user's
// where it is not root.
func (f *sshFinder) account() (sshkeys.Account, error) {
	u, err := f.lookup()
	if err != nil {
		return sshkeys.Account{}, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2); err != nil {
		return sshkeys.Account{}, fmt.Errorf("look up user %s: %w", u.Username, err)
	}
	home := f.cfg.SSH.Home
	switch {
	case home != "":
	case f.cfg.Paths.Root != "":
		home = f.cfg.Paths.RootHome()
	default:
		home = u.HomeDir
	}
	return sshkeys.Account{Name: u.Username, UID: uid, GID: gid, Home: home}, nil
}

func (f *sshFinder) lookup() (*user.User, error) {
	name := f.cfg.SSH.User
	uid := strconv.Itoa(os.Geteuid())
	u, err := user.LookupId(uid)
	if name != "" && (err != nil || u.Username != name) {
		u, err = user.Lookup(name)
	}
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		// A name that only sshd knows, as in development clusters.
		return &user.User{Username: name, Uid: uid, Gid: strconv.Itoa(os.Getegid())}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up user: %w", err)
	}
	return u, nil
}

func (f *sshFinder) hostKeys(own sshkeys.Config) ([]cluster.SSHKey, error) {
	if len(f.cfg.SSH.HostKeys) == 0 {
		return own.HostKeys()
	}
	var keys []cluster.SSHKey
	var errs []error
	for _, path := range f.cfg.SSH.HostKeys {
		text, err := readSmall(path)
		if err == nil && text == nil {
			err = fmt.Errorf("%s: %w", path, os.ErrNotExist)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read host key: %w", err))
			continue
		}
		k, err := sshkeys.ParsePublicLine(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("read host key %s: %w", path, err))
			continue
		}
		keys = append(keys, k)
	}
	return keys, errors.Join(errs...)
}
