package masterd

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/seal"
)

func layout(t *testing.T) paths.Layout {
	t.Helper()
	at := paths.Layout{Root: t.TempDir()}
	if err := os.MkdirAll(at.StateDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	return at
}

// keysOf asks for the keys of node i.
func keysOf(i int, incarnation uint64) rpc.LocalKeysRequest {
	return rpc.LocalKeysRequest{Cluster: statetest.ID(0xc1), Node: statetest.ID(i), Incarnation: incarnation, Name: statetest.Name(i)}
}

func contextOf(r rpc.LocalKeysRequest) seal.Context {
	return seal.Context{Cluster: r.Cluster, Node: r.Node, Incarnation: r.Incarnation}
}

func newTestCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA(statetest.ID(0xc1), "lab.test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue makes the certificate that a node asked for.
func issue(t *testing.T, ca *pki.CA, kind pki.Kind, i int, csr []byte) []byte {
	t.Helper()
	c, err := pki.ParseCSR(csr)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Issue(pki.Request{
		Kind: kind, Node: statetest.ID(i), Name: statetest.Name(i), Addresses: []netip.Addr{statetest.Addr(i)}, PublicKey: c.PublicKey,
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func mustEnsure(t *testing.T, v *vault, r rpc.LocalKeysRequest) rpc.CandidateKeys {
	t.Helper()
	keys, err := v.ensure(r)
	if err != nil {
		t.Fatalf("ensure: %v", err)
	}
	if err := pki.CheckPossession(keys.Signing.Public(), r.Cluster, r.Node, r.Incarnation, keys.Possession); err != nil {
		t.Fatal(err)
	}
	return keys
}

// complete fills a folder with all that a candidate has.
func complete(t *testing.T, at paths.Layout) (rpc.CandidateKeys, rpc.LocalKeysRequest) {
	t.Helper()
	v, r := newVault(at), keysOf(1, 1)
	r.Certificate = issue(t, newTestCA(t), pki.KindCandidate, 1, mustEnsure(t, v, r).CSR)
	keys := mustEnsure(t, v, r)
	if err := os.WriteFile(at.RaftDB(), []byte("sealed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(at.SnapshotDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at.SnapshotDir(), "1-1-1"), []byte("sealed"), 0o600); err != nil {
		t.Fatal(err)
	}
	return keys, r
}

func sameKeys(a, b rpc.CandidateKeys) bool {
	x, err1 := pki.ParseCSR(a.CSR)
	y, err2 := pki.ParseCSR(b.CSR)
	return err1 == nil && err2 == nil && x.Pin == y.Pin && bytes.Equal(a.Signing, b.Signing)
}

func TestVaultEnsureIsIdempotent(t *testing.T) {
	at := layout(t)
	v, r := newVault(at), keysOf(1, 1)
	if v.present() || v.certificate() != nil || v.signer() != nil || v.keyring() != nil {
		t.Error("a new vault holds something")
	}
	first := mustEnsure(t, v, r)
	if !first.Installed.IsZero() {
		t.Error("a certificate is installed that nobody issued")
	}
	if !sameKeys(first, mustEnsure(t, v, r)) || !sameKeys(first, mustEnsure(t, newVault(at), r)) {
		t.Error("asked again, the keys are others")
	}
	with := r
	with.Certificate = issue(t, newTestCA(t), pki.KindCandidate, 1, first.CSR)
	for _, vault := range []*vault{v, newVault(at)} {
		got := mustEnsure(t, vault, with)
		if !sameKeys(first, got) || got.Installed != cluster.DigestOf(with.Certificate) {
			t.Error("the certificate is not installed, or the keys changed")
		}
	}
	again := newVault(at)
	if err := again.open(contextOf(r)); err != nil || again.certificate() == nil {
		t.Fatalf("after a restart: %v", err)
	}
	if got := cluster.DigestOf(again.certificate().Certificate[0]); got != cluster.DigestOf(with.Certificate) {
		t.Error("after a restart the certificate is another")
	}
	if got := mustEnsure(t, again, r).Installed; got != cluster.DigestOf(with.Certificate) {
		t.Error("asking without a certificate forgot the installed one")
	}
}

func TestVaultFilesArePrivate(t *testing.T) {
	at := layout(t)
	complete(t, at)
	for _, p := range []string{at.SigningKey(), at.CandidateKey(), at.Keyring()} {
		info, err := os.Stat(p)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", p, info.Mode(), err)
		}
	}
	info, err := os.Stat(at.MasterdDir())
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", info.Mode(), err)
	}
}

// TestG7VaultAfterACrash leaves every subset of the files, as a crash in the
// middle of making or destroying them may: asking again always works, but
// where sealed data lies without its keyring, and there destroying helps.
func TestG7VaultAfterACrash(t *testing.T) {
	const files = 6
	for mask := range 1 << files {
		at := layout(t)
		old, r := complete(t, at)
		list := []string{at.Keyring(), at.SigningKey(), at.CandidateKey(), at.CandidateCert(), at.RaftDB(), at.SnapshotDir()}
		for i, p := range list {
			if mask&(1<<i) != 0 {
				continue
			}
			if err := os.RemoveAll(p); err != nil {
				t.Fatal(err)
			}
		}
		// What an interrupted write leaves.
		leftover := filepath.Join(at.MasterdDir(), ".signing.key.rolekey-tmp")
		if err := os.WriteFile(leftover, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%06b", mask)
		r.Certificate = nil
		v := newVault(at)
		keyring, sealed := mask&1 != 0, mask&0b110110 != 0
		keys, err := v.ensure(r)
		switch {
		case !keyring && sealed:
			if !errors.Is(err, seal.ErrKeyringMissing) {
				t.Errorf("%s: without the keyring: %v", name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		default:
			if mask&0b1111 == 0b1111 && !sameKeys(old, keys) {
				t.Errorf("%s: complete keys were replaced", name)
			}
			if got := mustEnsure(t, newVault(at), r); !sameKeys(keys, got) || got.Installed != keys.Installed {
				t.Errorf("%s: after a restart the keys are others", name)
			}
			if !keys.Installed.IsZero() && v.certificate() == nil {
				t.Errorf("%s: a certificate counts as installed and is not", name)
			}
		}
		v = newVault(at) // a restart in any of these states must not fail either
		if err := v.open(contextOf(r)); err != nil && keyring {
			t.Errorf("%s: open after ensure: %v", name, err)
		}
		if reply := v.destroy(); len(reply.Problems) > 0 {
			t.Errorf("%s: %v", name, reply.Problems)
		}
		if left, err := os.ReadDir(at.MasterdDir()); err != nil || len(left) > 0 {
			t.Errorf("%s: destroying left %v, %v", name, left, err)
		}
		if sameKeys(old, mustEnsure(t, v, r)) {
			t.Errorf("%s: destroyed keys came back", name)
		}
	}
}

// TestG7OpenAfterACrash: what was never completed is no error at a start.
func TestG7OpenAfterACrash(t *testing.T) {
	for made := 1; made <= 3; made++ {
		at := layout(t)
		_, r := complete(t, at)
		order := []string{at.Keyring(), at.SigningKey(), at.CandidateKey(), at.CandidateCert(), at.RaftDB(), at.SnapshotDir()}
		for _, p := range order[made:] {
			if err := os.RemoveAll(p); err != nil {
				t.Fatal(err)
			}
		}
		v := newVault(at)
		if err := v.open(contextOf(r)); err != nil {
			t.Errorf("%d files made: %v", made, err)
		}
		if v.certificate() != nil {
			t.Errorf("%d files made: there is a certificate", made)
		}
		r.Certificate = nil
		mustEnsure(t, v, r)
	}
}

func TestVaultDestroy(t *testing.T) {
	at := layout(t)
	_, r := complete(t, at)
	v := newVault(at)
	if err := v.open(contextOf(r)); err != nil {
		t.Fatal(err)
	}
	held := v.signer()
	first := v.destroy()
	if len(first.Removed) != 6 || len(first.Problems) > 0 {
		t.Errorf("removed %v, problems %v", first.Removed, first.Problems)
	}
	if last := first.Removed[len(first.Removed)-1]; last != at.Keyring() {
		t.Errorf("%s went last; without the keyring an interrupted removal looks like damage", last)
	}
	if v.present() || v.certificate() != nil || v.signer() != nil || v.keyring() != nil {
		t.Error("something is left")
	}
	if !bytes.Equal(held, make([]byte, ed25519.PrivateKeySize)) {
		t.Error("the signing key is still in memory")
	}
	for range 2 {
		if again := v.destroy(); len(again.Removed)+len(again.Problems) > 0 {
			t.Errorf("again: %+v", again)
		}
	}
	if err := os.RemoveAll(at.MasterdDir()); err != nil {
		t.Fatal(err)
	}
	if none := v.destroy(); len(none.Problems) > 0 {
		t.Errorf("without a folder: %v", none.Problems)
	}
}

// TestG8DestroyFollowsNoLinks: what lies elsewhere is not ours.
func TestG8DestroyFollowsNoLinks(t *testing.T) {
	at := layout(t)
	complete(t, at)
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, link := range []struct{ at, to string }{
		{at.SnapshotDir(), outside},
		{at.CandidateKey(), precious},
		{at.RaftDB(), precious},
		{filepath.Join(at.MasterdDir(), ".keyring.rolekey-tmp"), precious},
	} {
		if err := os.RemoveAll(link.at); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(link.to, link.at); err != nil {
			t.Fatal(err)
		}
	}
	if reply := newVault(at).destroy(); len(reply.Problems) > 0 {
		t.Error(reply.Problems)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("a file outside is gone: %v", err)
	}
	if left, _ := os.ReadDir(at.MasterdDir()); len(left) > 0 {
		t.Errorf("links are left: %v", left)
	}
}

func TestVaultDestroyTellsProblems(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may remove anything")
	}
	at := layout(t)
	complete(t, at)
	if err := os.Chmod(at.MasterdDir(), 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(at.MasterdDir(), 0o700) })
	if reply := newVault(at).destroy(); len(reply.Problems) == 0 || len(reply.Removed) > 0 {
		t.Errorf("removed %v, problems %v", reply.Removed, reply.Problems)
	}
}

func TestVaultRefusesAnotherLife(t *testing.T) {
	at := layout(t)
	v := newVault(at)
	keys := mustEnsure(t, v, keysOf(1, 1))
	for name, r := range map[string]rpc.LocalKeysRequest{
		"later incarnation": keysOf(1, 2), "another node": keysOf(2, 1),
		"another cluster": {Cluster: statetest.ID(0xc2), Node: statetest.ID(1), Incarnation: 1},
		"no node":         {Cluster: statetest.ID(0xc1), Incarnation: 1},
	} {
		for _, v := range []*vault{v, newVault(at)} {
			if _, err := v.ensure(r); err == nil {
				t.Errorf("%s: keys were given", name)
			}
			if err := v.open(contextOf(r)); err == nil {
				t.Errorf("%s: opened", name)
			}
		}
	}
	if !sameKeys(keys, mustEnsure(t, v, keysOf(1, 1))) {
		t.Error("a refused request changed the keys")
	}
	v.destroy()
	if sameKeys(keys, mustEnsure(t, v, keysOf(1, 2))) {
		t.Error("the next life has the same keys")
	}
}

func TestVaultRefusesForeignCertificates(t *testing.T) {
	at, ca := layout(t), newTestCA(t)
	v, r := newVault(at), keysOf(1, 1)
	own := mustEnsure(t, v, r).CSR
	other := mustEnsure(t, newVault(layout(t)), keysOf(2, 1)).CSR
	for name, der := range map[string][]byte{
		"of another node":             issue(t, ca, pki.KindCandidate, 2, own),
		"for another use":             issue(t, ca, pki.KindIdentity, 1, own),
		"for a server":                issue(t, ca, pki.KindServer, 1, own),
		"for another key":             issue(t, ca, pki.KindCandidate, 1, other),
		"of the CA itself":            ca.Cert.Raw,
		"junk":                        []byte("junk"),
		"with something that follows": append(issue(t, ca, pki.KindCandidate, 1, own), 0),
	} {
		r.Certificate = der
		if _, err := v.ensure(r); err == nil {
			t.Errorf("a certificate %s was installed", name)
		}
		if _, err := os.Lstat(at.CandidateCert()); err == nil || v.certificate() != nil {
			t.Fatalf("a certificate %s left something", name)
		}
	}
}

// TestG9SealedFilesAreBound: a sealed file opens only as itself, in its own
// folder, and errors quote nothing of it.
func TestG9SealedFilesAreBound(t *testing.T) {
	read := func(p string) []byte {
		t.Helper()
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(p string, b []byte) {
		t.Helper()
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	foreign := layout(t)
	complete(t, foreign)
	for name, spoil := range map[string]func(at paths.Layout){
		"keys swapped": func(at paths.Layout) {
			a, b := read(at.SigningKey()), read(at.CandidateKey())
			write(at.SigningKey(), b)
			write(at.CandidateKey(), a)
		},
		"signing key of another node":  func(at paths.Layout) { write(at.SigningKey(), read(foreign.SigningKey())) },
		"client key of another node":   func(at paths.Layout) { write(at.CandidateKey(), read(foreign.CandidateKey())) },
		"keyring of another node":      func(at paths.Layout) { write(at.Keyring(), read(foreign.Keyring())) },
		"certificate of another node":  func(at paths.Layout) { write(at.CandidateCert(), read(foreign.CandidateCert())) },
		"signing key with a bit wrong": func(at paths.Layout) { b := read(at.SigningKey()); b[len(b)-1] ^= 1; write(at.SigningKey(), b) },
		"signing key cut off":          func(at paths.Layout) { write(at.SigningKey(), read(at.SigningKey())[:20]) },
		"signing key in the clear":     func(at paths.Layout) { write(at.SigningKey(), make([]byte, 32)) },
		"keyring with a bit wrong":     func(at paths.Layout) { b := read(at.Keyring()); b[len(b)/2] ^= 1; write(at.Keyring(), b) },
		"signing key lost":             func(at paths.Layout) { _ = os.Remove(at.SigningKey()) },
		"client key lost":              func(at paths.Layout) { _ = os.Remove(at.CandidateKey()) },
		"signing key readable by all":  func(at paths.Layout) { _ = os.Chmod(at.SigningKey(), 0o644) },
	} {
		at := layout(t)
		_, r := complete(t, at)
		secrets := [][]byte{read(at.Keyring())[len("rolekey keyring"):]}
		v := newVault(at)
		if err := v.open(contextOf(r)); err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, bytes.Clone(v.signer().Seed()))
		spoil(at)
		err := newVault(at).open(contextOf(r))
		if err == nil {
			t.Errorf("%s: opened", name)
			continue
		}
		for _, s := range secrets {
			for _, form := range []string{string(s), hex.EncodeToString(s), base64.StdEncoding.EncodeToString(s)} {
				if strings.Contains(err.Error(), form) {
					t.Errorf("%s: the error quotes a secret", name)
				}
			}
		}
		for _, line := range strings.Split(string(read(at.Keyring())), "\n") {
			if words := strings.Fields(line); len(words) == 4 && strings.Contains(err.Error(), words[3]) {
				t.Errorf("%s: the error quotes a data key", name)
			}
		}
	}
}

// TestG9NothingInTheClear looks for the keys in all files.
func TestG9NothingInTheClear(t *testing.T) {
	at := layout(t)
	_, r := complete(t, at)
	v := newVault(at)
	if err := v.open(contextOf(r)); err != nil {
		t.Fatal(err)
	}
	client, err := v.keyring().OpenFile(at.CandidateKey(), purposeClientKey)
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Split(client.Reveal(), []byte("\n"))[1] // of the PEM block
	entries, err := os.ReadDir(at.MasterdDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(at.MasterdDir(), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for what, secret := range map[string][]byte{"signing key": v.signer().Seed(), "client key": body} {
			if bytes.Contains(b, secret) || bytes.Contains(b, []byte(hex.EncodeToString(secret))) {
				t.Errorf("%s holds the %s in the clear", e.Name(), what)
			}
		}
	}
}
