package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rolekey/internal/atomicfile"
)

// certFor issues a server certificate for the key.
func certFor(t *testing.T, ca *CA, key crypto.Signer) *x509.Certificate {
	t.Helper()
	r := request(t, KindServer)
	r.PublicKey = key.Public()
	return issue(t, ca, r)
}

func newFiles(t *testing.T) Files { return Files{Dir: t.TempDir(), Name: "server"} }

// install runs one replacement and returns the certificate.
func install(t *testing.T, ca *CA, f Files) *x509.Certificate {
	t.Helper()
	cert := certFor(t, ca, must(f.Prepare())(t))
	if err := f.Install(cert); err != nil {
		t.Fatal(err)
	}
	return cert
}

func wantFiles(t *testing.T, f Files, want ...string) {
	t.Helper()
	entries := must(os.ReadDir(f.Dir))(t)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
}

// A crash after any step leaves the old pair or the new one, and both loading
// and starting again lead to the new one.
func TestG7PairCrashPoints(t *testing.T) {
	ca := newTestCA(t)
	for _, first := range []bool{true, false} {
		for done := range 4 {
			t.Run(fmt.Sprintf("first=%t/steps=%d", first, done), func(t *testing.T) {
				f := newFiles(t)
				var want *x509.Certificate // what Load must return after the crash
				if !first {
					want = install(t, ca, f)
				}
				if done > 0 {
					cert := certFor(t, ca, must(f.Prepare())(t))
					steps := must(f.installSteps(cert))(t)
					for _, step := range steps[:done-1] {
						if err := step(); err != nil {
							t.Fatal(err)
						}
					}
					if done > 1 {
						want = cert
					}
				}
				checkLoad(t, f, want)
				checkLoad(t, f, want) // healing changes nothing the second time
				checkLoad(t, f, install(t, ca, f))
				wantFiles(t, f, "server.key", "server.pem")
			})
		}
	}
}

func checkLoad(t *testing.T, f Files, want *x509.Certificate) {
	t.Helper()
	p, err := f.Load()
	if want == nil {
		if !errors.Is(err, ErrNoPair) {
			t.Errorf("load: %v, want %v", err, ErrNoPair)
		}
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	if !p.Cert.Equal(want) || !samePublic(p.Key(), want.PublicKey) {
		t.Error("loaded another pair")
	}
}

// A crash in the middle of writing one file leaves only a temporary file.
func TestG7PairLeftovers(t *testing.T) {
	ca, f := newTestCA(t), newFiles(t)
	want := install(t, ca, f)
	for _, p := range []string{f.cert(), f.key(), f.next()} {
		if err := os.WriteFile(atomicfile.TempName(p), []byte("half a fi"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	checkLoad(t, f, want)
	checkLoad(t, f, install(t, ca, f))
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, f)
}

// After a crash between commit and rename, Prepare must not hand out the key
// of the installed certificate again, and Discard must not destroy it.
func TestG7InterruptedInstallIsFinishedFirst(t *testing.T) {
	ca := newTestCA(t)
	for name, then := range map[string]func(f Files, used crypto.Signer) error{
		"prepare": func(f Files, used crypto.Signer) error {
			key, err := f.Prepare()
			if err == nil && samePublic(key, used.Public()) {
				return errors.New("the key in use was handed out")
			}
			return err
		},
		"discard": func(f Files, _ crypto.Signer) error { return f.Discard() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			install(t, ca, f)
			key := must(f.Prepare())(t)
			cert := certFor(t, ca, key)
			if err := must(f.installSteps(cert))(t)[0](); err != nil {
				t.Fatal(err)
			}
			if err := then(f, key); err != nil {
				t.Fatal(err)
			}
			checkLoad(t, f, cert)
		})
	}
}

func TestPrepareIsStable(t *testing.T) {
	ca, f := newTestCA(t), newFiles(t)
	key := must(f.Prepare())(t)
	if again := must(f.Prepare())(t); !samePublic(again, key.Public()) {
		t.Error("a retry got another key: its admission record would refuse it")
	}
	if err := f.Discard(); err != nil {
		t.Fatal(err)
	}
	if after := must(f.Prepare())(t); samePublic(after, key.Public()) {
		t.Error("a discarded key came back")
	}
	// A damaged key file, and a damaged pair, do not block a new start.
	for _, p := range []string{f.next(), f.cert(), f.key()} {
		if err := os.WriteFile(p, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Load(); err == nil || errors.Is(err, ErrNoPair) {
		t.Errorf("load of garbage: %v", err)
	}
	checkLoad(t, f, install(t, ca, f))
}

// A key that cannot be read may still be the right one: it is not replaced.
func TestPrepareKeepsUnreadableKey(t *testing.T) {
	f := newFiles(t)
	if err := os.Symlink(f.next(), f.next()); err != nil { // reading a loop fails, as a bad disk does
		t.Fatal(err)
	}
	if _, err := f.Prepare(); err == nil {
		t.Error("prepared another key")
	}
}

func TestInstallRefusesForeignCertificate(t *testing.T) {
	ca, f := newTestCA(t), newFiles(t)
	want := install(t, ca, f)
	if err := f.Install(certFor(t, ca, newKey(t))); err == nil {
		t.Error("installed a certificate without its key")
	}
	checkLoad(t, f, want)
}

// A certificate may be issued again for the key in use, say with a new name.
func TestInstallForKeyInUse(t *testing.T) {
	ca, f := newTestCA(t), newFiles(t)
	install(t, ca, f)
	p := must(f.Load())(t)
	next := certFor(t, ca, p.Key())
	if err := f.Install(next); err != nil {
		t.Fatal(err)
	}
	checkLoad(t, f, next)
}

func TestPairModes(t *testing.T) {
	ca, f := newTestCA(t), newFiles(t)
	install(t, ca, f)
	for path, want := range map[string]os.FileMode{f.key(): 0o600, f.cert(): 0o644} {
		if got := must(os.Stat(path))(t).Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	must(f.Prepare())(t)
	if got := must(os.Stat(f.next()))(t).Mode().Perm(); got != 0o600 {
		t.Errorf("prepared key has mode %o", got)
	}
}

func TestReadKeyBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, make([]byte, maxPEMFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(path); err == nil || errors.Is(err, errBadKey) {
		t.Errorf("read an oversized file: %v", err)
	}
	if err := (Files{Dir: filepath.Join(t.TempDir(), "none"), Name: "x"}).Remove(); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
}

// A prepared key stays for a renewal that goes on, and is replaced by one that
// begins long after.
func TestPrepareAnew(t *testing.T) {
	t.Parallel()
	f := Files{Dir: t.TempDir(), Name: "server"}
	key, now := must(f.Prepare())(t), time.Now()
	if again := must(f.PrepareAnew(now.Add(preparedLife - time.Minute)))(t); !samePublic(again, key.Public()) {
		t.Error("another key is prepared while a renewal goes on")
	}
	if anew := must(f.PrepareAnew(now.Add(preparedLife + time.Minute)))(t); samePublic(anew, key.Public()) {
		t.Error("a key that lay there for long is to be used")
	}
}
