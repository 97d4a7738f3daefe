package masterd

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/pki"
	"rolekey/rpc"
)

// TestVaultReplacesTheClientKey: the next key is one and the same until a
// certificate for it is installed; then the old one is gone.
func TestVaultReplacesTheClientKey(t *testing.T) {
	at := layout(t)
	was, r := complete(t, at)
	old := readSealed(t, at.CandidateKey())
	v := newVault(at)
	r.Certificate, r.Next = nil, true
	first, again := mustEnsure(t, v, r), mustEnsure(t, newVault(at), r)
	one, err := pki.ParseCSR(first.CSR)
	if err != nil {
		t.Fatal(err)
	}
	two, err := pki.ParseCSR(again.CSR)
	if err != nil || one.Pin != two.Pin || first.Installed != was.Installed {
		t.Errorf("asked twice: %s and %s, %v, installed %s", one.Pin.Short(), two.Pin.Short(), err, first.Installed.Short())
	}
	if before, err := pki.ParseCSR(was.CSR); err != nil || before.Pin == one.Pin {
		t.Errorf("the key in use was offered anew, %v", err)
	}
	r.Next, r.Certificate = false, issue(t, newTestCA(t), pki.KindCandidate, 1, first.CSR)
	if keys := mustEnsure(t, v, r); keys.Installed != cluster.DigestOf(r.Certificate) || cluster.DigestOf(v.certificate().Certificate[0]) != keys.Installed {
		t.Error("another certificate is in use")
	}
	if _, err := os.Lstat(at.NextCandidateKey()); err == nil || bytes.Equal(readSealed(t, at.CandidateKey()), old) {
		t.Error("the old key is still there")
	}
	r.Next, r.Certificate = true, nil
	if c, err := pki.ParseCSR(mustEnsure(t, v, r).CSR); err != nil || c.Pin == one.Pin {
		t.Errorf("the key in use is to be used next, %v", err)
	}
}

// TestG7VaultReplacementInterrupted: whoever opens the vault finishes what a
// crash interrupted after the certificate was written.
func TestG7VaultReplacementInterrupted(t *testing.T) {
	at := layout(t)
	_, r := complete(t, at)
	r.Certificate, r.Next = nil, true
	csr := mustEnsure(t, newVault(at), r).CSR
	cert := issue(t, newTestCA(t), pki.KindCandidate, 1, csr)
	if err := os.WriteFile(at.CandidateCert(), pki.EncodeCert(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, use := range []func(v *vault) error{
		func(v *vault) error { return v.open(contextOf(r)) },
		func(v *vault) error { return v.open(contextOf(r)) },
		func(v *vault) error { r.Next, r.Certificate = false, cert; _, err := v.ensure(r); return err },
	} {
		v := newVault(at)
		if err := use(v); err != nil || v.certificate() == nil || !bytes.Equal(v.certificate().Certificate[0], cert) {
			t.Fatalf("after a crash: %v", err)
		}
		if _, err := os.Lstat(at.NextCandidateKey()); err == nil {
			t.Error("the next key is in use and still called so")
		}
	}
}

// TestVaultInstallForNoKey: a certificate for a key that is neither in use nor
// prepared changes nothing.
func TestVaultInstallForNoKey(t *testing.T) {
	at := layout(t)
	was, r := complete(t, at)
	r.Certificate, r.Next = nil, true
	v := newVault(at)
	mustEnsure(t, v, r)
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	r.Next, r.Certificate = false, issue(t, newTestCA(t), pki.KindCandidate, 1, csr)
	if _, err := v.ensure(r); cluster.CodeOf(err) != cluster.CodeKeysLost {
		t.Errorf("installed: %v", err)
	}
	if cluster.DigestOf(v.certificate().Certificate[0]) != was.Installed {
		t.Error("another certificate is in use")
	}
	if reply := v.destroy(); len(reply.Problems) > 0 || anything(at) {
		t.Errorf("after a loss of role: %v", reply)
	}
}

func anything(at paths.Layout) bool { return newVault(at).present() }

func readSealed(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPreparedKeysAge: a client key and a signing key that were prepared for a
// renewal which was given up long ago are not used by the next one.
func TestPreparedKeysAge(t *testing.T) {
	at := layout(t)
	_, r := complete(t, at)
	r.Certificate = nil
	ask := func() (cluster.Digest, cluster.Digest) {
		v, r := newVault(at), r
		r.Signing = &rpc.SigningOrder{Avoid: []candmap.SigningKey{publicKey(mustSigner(t, at, r))}}
		keys, err := v.ensureListed(r, r.Signing.Avoid[0])
		if err != nil {
			t.Fatal(err)
		}
		r.Signing, r.Next = nil, true
		csr, err := pki.ParseCSR(mustEnsure(t, v, r).CSR)
		if err != nil {
			t.Fatal(err)
		}
		return csr.Pin, cluster.DigestOf(keys.Signing)
	}
	client, signing := ask()
	if c, s := ask(); c != client || s != signing {
		t.Error("asked again, it prepares other keys")
	}
	for _, f := range []string{at.NextCandidateKey(), at.NextSigningKey()} {
		if err := os.Chtimes(f, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	c, s := ask()
	if c == client || s == signing {
		t.Errorf("keys that lay there for long are to be used: client %t, signing %t", c == client, s == signing)
	}
	if again, same := ask(); again != c || same != s {
		t.Error("asked again, it prepares other keys")
	}
}

// mustSigner is the signing key in use.
func mustSigner(t *testing.T, at paths.Layout, r rpc.LocalKeysRequest) ed25519.PrivateKey {
	t.Helper()
	v := newVault(at)
	if err := v.open(contextOf(r)); err != nil {
		t.Fatal(err)
	}
	return v.signer()
}
