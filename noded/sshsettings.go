package noded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/sshkeys"
)

const defaultSSHD = "/usr/sbin/sshd"

// sshSettings are what noded knows of this machine's sshd.
type sshSettings struct {
	account    sshkeys.Account
	authorized sshkeys.File
	known      sshkeys.File
	options    sshkeys.Options
	hostKeys   []cluster.SSHKey
	port       uint16 // that sshd listens on; 0: unknown
}

// sshFinder asks sshd once it is needed, and again as long as it failed.
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
	s, err := f.find(ctx)
	if err != nil {
		return nil, fmt.Errorf("find out about sshd: %w", err)
	}
	f.found = s
	return s, nil
}

// forget makes the next get ask again.
func (f *sshFinder) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found = nil
}

func (f *sshFinder) find(ctx context.Context) (*sshSettings, error) {
	account, err := f.account()
	if err != nil {
		return nil, err
	}
	s := &sshSettings{account: account}
	sshd := f.cfg.SSH.SSHD
	if sshd == "" {
		sshd = defaultSSHD
	}
	version, err := sshkeys.ProbeSSHD(ctx, sshd)
	if err != nil {
		f.log.Warn("sshd does not tell its version; writing what every version understands", zap.Error(err))
	}
	s.options = sshkeys.OptionsFor(version)
	own, err := f.probe(ctx, sshd, account.Name)
	if err != nil {
		return nil, err
	}
	if len(own.Port) > 0 {
		s.port = own.Port[0]
	}
	authorized := f.cfg.SSH.AuthorizedKeys
	if authorized == "" {
		if authorized, err = own.AuthorizedKeys(account); err != nil {
			return nil, err
		}
	}
	known := f.cfg.SSH.KnownHosts
	if known == "" {
		known = filepath.Join(account.Home, ".ssh", "known_hosts")
	}
	s.authorized = sshkeys.File{Path: authorized, Account: account}
	s.known = sshkeys.File{Path: known, Account: account}
	s.hostKeys, err = f.hostKeys(own)
	if len(s.hostKeys) > 0 && err != nil {
		f.log.Warn("some host keys are left out", zap.Error(err))
		err = nil
	}
	return s, err
}

// probe asks sshd for what the configuration does not say.
func (f *sshFinder) probe(ctx context.Context, sshd, account string) (sshkeys.Config, error) {
	c := &f.cfg.SSH
	if c.AuthorizedKeys != "" && len(c.HostKeys) > 0 {
		return sshkeys.Config{}, nil
	}
	var args []string
	if c.SSHDConfig != "" {
		args = []string{"-f", c.SSHDConfig}
	}
	return sshkeys.ProbeConfig(ctx, sshd, account, args...)
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
