package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/pflag"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/internal/strictoml"
)

// server says how to reach RAPI from a workstation. It is also the form of a
// profile in ~/.config/rolekey/NAME.toml; files in it are relative to its folder.
type server struct {
	URL  string `toml:"url"`
	Cert string `toml:"cert"` // the administrator's certificate, and perhaps the CA
	Key  string `toml:"key"`
	CA   string `toml:"ca"` // by which the server is verified; empty: the further certificates in Cert, else the system's
}

// remoteFlags are those that every command has.
type remoteFlags struct {
	server
	profile string
}

func (f *remoteFlags) flags(fs *pflag.FlagSet) {
	fs.StringVar(&f.URL, "rapi", "", "work on the cluster whose remote API is here, https://NAME:5080 (needs --cert and --key)")
	fs.StringVar(&f.Cert, "cert", "", "with --rapi: your certificate, from gnt-cluster admin add")
	fs.StringVar(&f.Key, "key", "", "with --rapi: its private key")
	fs.StringVar(&f.profile, "profile", "", "take these from ~/.config/rolekey/NAME.toml (default: $ROLEKEY_PROFILE)")
}

var profileName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$`)

// chosen returns where to work; nil: on this machine.
func (f *remoteFlags) chosen() (*server, error) {
	name := f.profile
	if f.URL == "" && name == "" {
		name = os.Getenv("ROLEKEY_PROFILE")
	}
	switch {
	case f.URL != "" && f.profile != "":
		return nil, usage("--rapi and --profile exclude each other")
	case name != "":
		return readProfile(name)
	case f.URL == "" && f.Cert+f.Key != "":
		return nil, usage("--cert and --key belong to --rapi URL")
	case f.URL == "":
		return nil, nil
	case f.Cert == "" || f.Key == "":
		return nil, usage("--rapi needs --cert FILE and --key FILE")
	}
	return &f.server, nil
}

func readProfile(name string) (*server, error) {
	if !profileName.MatchString(name) {
		return nil, usage("profile %.64q: want a name of letters, digits, dots, hyphens and underlines", name)
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return nil, fmt.Errorf("find profiles: %w", err)
	}
	dir = filepath.Join(dir, "rolekey")
	path := filepath.Join(dir, name+".toml")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	var r server
	if err := strictoml.Decode(path, string(text), &r); err != nil {
		return nil, err
	}
	if r.URL == "" || r.Cert == "" || r.Key == "" {
		return nil, usage("profile %s: url, cert and key must be set", path)
	}
	for _, p := range []*string{&r.Cert, &r.Key, &r.CA} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return &r, nil
}

// newRemoteClient makes a client of RAPI over the network.
func newRemoteClient(at paths.Layout, r *server) (*client, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.User != nil {
		return nil, usage("--rapi %.256s: want https://NAME:5080", r.URL)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), fmt.Sprint(cluster.DefaultPorts.RAPI))
	}
	pair, err := tls.LoadX509KeyPair(r.Cert, r.Key)
	if err != nil {
		return nil, fmt.Errorf("read certificate and key: %w", err)
	}
	roots, err := r.roots(pair)
	if err != nil {
		return nil, err
	}
	pair.Certificate = pair.Certificate[:1] // what follows is for us
	c := &client{at: at, base: "https://" + u.Host, remote: true}
	c.http.Transport = &http.Transport{
		TLSClientConfig:    &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots},
		DialContext:        (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		DisableCompression: true, MaxIdleConnsPerHost: 1, ForceAttemptHTTP2: true,
	}
	return c, nil
}

// roots returns what verifies the server; nil: the system's.
func (r *server) roots(pair tls.Certificate) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if r.CA != "" {
		text, err := os.ReadFile(r.CA)
		if err != nil {
			return nil, fmt.Errorf("read CA certificate: %w", err)
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, usage("%s holds no certificate", r.CA)
		}
		return pool, nil
	}
	if len(pair.Certificate) == 1 {
		return nil, nil
	}
	for _, der := range pair.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read CA certificate: %w", err)
		}
		pool.AddCert(c)
	}
	return pool, nil
}

// dialLocal reaches a socket of this machine, which a remote client must not:
// the cluster there may be another one.
func (c *client) dialLocal(ctx context.Context, socket string) (net.Conn, error) {
	if c.remote {
		return nil, errNotRemote
	}
	return paths.DialUnix(ctx, socket)
}

var errNotRemote = &exitError{ExitFailed, "This command works on a node of the cluster only, and not over the remote API."}

// unreached says why the network gave no answer.
func (c *client) unreached(err error) error {
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return cluster.Errorf(cluster.CodeUnavailable, "%s shows a certificate that is not verified by the CA of --cert", c.base).
			WithHint("is it this cluster? gnt-cluster admin add prints certificate and CA; keep both in the file")
	}
	var plain *url.Error
	if errors.As(err, &plain) {
		err = plain.Err
	}
	return cluster.Errorf(cluster.CodeUnavailable, "no answer from %s: %v", cmp.Or(c.base, "the master daemon"), err)
}
