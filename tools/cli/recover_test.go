package cli

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/candmap"
	"rolekey/cluster"
)

func recoveryKeys(t *testing.T, n int) ([]ed25519.PrivateKey, candmap.Recovery) {
	t.Helper()
	var keys []ed25519.PrivateKey
	r := candmap.Recovery{Threshold: uint8(n)}
	for range n {
		public, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		keys, r.Keys = append(keys, key), append(r.Keys, candmap.SigningKey(public))
	}
	return keys, r
}

func TestSignRecovery(t *testing.T) {
	keys, want := recoveryKeys(t, 2)
	stranger, _ := recoveryKeys(t, 1)
	payload := []byte("a map")
	sigs, err := signRecovery(payload, want, keys)
	if err != nil || (candmap.Envelope{PayloadType: candmap.MapType, Payload: payload, Signatures: sigs}).Signers(want.Keys) != 2 {
		t.Errorf("two keys of two: %v", err)
	}
	for name, k := range map[string][]ed25519.PrivateKey{
		"one of two": keys[:1], "one twice": {keys[0], keys[0]}, "a stranger's": {keys[0], stranger[0]}, "none": nil,
	} {
		if _, err := signRecovery(payload, want, k); cluster.CodeOf(err) != cluster.CodeBadFormat {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestG6RecoverTellsNoKey: what was given in the wrong place may be secret.
func TestG6RecoverTellsNoKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("AGE-SECRET-KEY-1SECRETSECRET\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"recover"},
		{"recover", "--recovery-key", "-", "--identity", path},
		{"recover", "--recovery-key", "-", "--identity", "-", "--yes-do-it"},
		{"recover", "--recovery-key", path, "--identity", path},
		{"recover", "--recovery-key", path + ".none"},
	} {
		var out, err bytes.Buffer
		code := Run(t.Context(), Cluster, append([]string{"--root", t.TempDir()}, args...), &out, &err)
		if code != ExitFailed || out.Len() > 0 || err.Len() == 0 || strings.Contains(err.String(), "SECRET") {
			t.Errorf("%v: exit code %d: %s%s", args, code, out.String(), err.String())
		}
	}
}
