package masterd

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/pki"
)

// TestVaultTellsThatKeysAreLost: a certificate makes no keys. Whatever is
// missing or damaged, the master learns it by the code and starts anew.
func TestVaultTellsThatKeysAreLost(t *testing.T) {
	damage := func(p string) error {
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		b[len(b)-1] ^= 1
		b[len(b)/2] ^= 1
		return os.WriteFile(p, b, 0o600)
	}
	future := func(p string) error { return os.WriteFile(p, []byte("another format"), 0o600) }
	for name, c := range map[string]struct {
		spoil func(at paths.Layout) error
		code  cluster.Code
	}{
		"nothing is missing":         {func(paths.Layout) error { return nil }, ""},
		"the whole folder":           {func(at paths.Layout) error { return os.RemoveAll(at.MasterdDir()) }, cluster.CodeKeysLost},
		"the keyring":                {func(at paths.Layout) error { return os.Remove(at.Keyring()) }, cluster.CodeKeysLost},
		"the signing key":            {func(at paths.Layout) error { return os.Remove(at.SigningKey()) }, cluster.CodeKeysLost},
		"the client key":             {func(at paths.Layout) error { return os.Remove(at.CandidateKey()) }, cluster.CodeKeysLost},
		"the certificate":            {func(at paths.Layout) error { return os.Remove(at.CandidateCert()) }, ""},
		"the keyring, by damage":     {func(at paths.Layout) error { return damage(at.Keyring()) }, cluster.CodeKeysLost},
		"the signing key, by damage": {func(at paths.Layout) error { return damage(at.SigningKey()) }, cluster.CodeKeysLost},
		"the client key, by damage":  {func(at paths.Layout) error { return damage(at.CandidateKey()) }, cluster.CodeKeysLost},
		"the certificate, by damage": {func(at paths.Layout) error { return damage(at.CandidateCert()) }, ""},
		// That may be a program of yesterday on the disk of today.
		"the signing key, by an update": {func(at paths.Layout) error { return future(at.SigningKey()) }, cluster.CodeInternal},
		"the keys, for those of others": {func(at paths.Layout) error {
			v := newVault(at)
			v.destroy()
			_, err := v.ensure(keysOf(1, 1))
			return err
		}, cluster.CodeKeysLost},
		"the keys, for those of a former life": {func(at paths.Layout) error {
			v := newVault(at)
			v.destroy()
			_, err := v.ensure(keysOf(1, 7))
			return err
		}, cluster.CodeKeysLost},
	} {
		at := layout(t)
		v, r := newVault(at), keysOf(1, 1)
		keys := mustEnsure(t, v, r)
		r.Certificate = issue(t, newTestCA(t), pki.KindCandidate, 1, keys.CSR)
		mustEnsure(t, v, r)
		if err := c.spoil(at); err != nil {
			t.Fatal(err)
		}
		before := contents(t, at.MasterdDir())
		got, err := newVault(at).ensure(r)
		if cluster.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want code %q", name, err, c.code)
		}
		if c.code == "" && (!sameKeys(got, keys) || got.Installed != cluster.DigestOf(r.Certificate)) {
			t.Errorf("%s: what is there is not used", name)
		}
		if c.code == cluster.CodeKeysLost && cluster.HintOf(err) == "" {
			t.Errorf("%s: no hint: %v", name, err)
		}
		if c.code != "" && !maps.Equal(before, contents(t, at.MasterdDir())) {
			t.Errorf("%s: files were made or removed", name)
		}
	}
}

// contents returns the files of a folder.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}
