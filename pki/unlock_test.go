package pki

import (
	"crypto/ed25519"
	"encoding/pem"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"
)

func TestOpenRecovery(t *testing.T) {
	x := must(age.GenerateX25519Identity())(t)
	edPub, edKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := must(NewRecovery(testCluster, []string{x.Recipient().String(), sshLine(t, edPub)}))(t)
	private := pem.EncodeToMemory(must(ssh.MarshalPrivateKey(edKey, ""))(t))
	for name, text := range map[string]string{"age": "# a comment\n" + x.String() + "\n", "ssh": string(private)} {
		ids, err := ParseIdentities([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if key, err := OpenRecovery(rec.Ciphertext, ids); err != nil || !rec.Public.Equal(key.Public()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	plain := must(decrypt(rec.Ciphertext, x))(t)
	if key, err := OpenRecovery(plain, nil); err != nil || !rec.Public.Equal(key.Public()) {
		t.Errorf("decrypted before: %v", err)
	}
	stranger := must(age.GenerateX25519Identity())(t)
	for name, ids := range map[string][]age.Identity{"no identity": nil, "a stranger's": {stranger}} {
		if _, err := OpenRecovery(rec.Ciphertext, ids); err == nil {
			t.Errorf("%s opens it", name)
		}
	}
}

// TestG6IdentityErrorsTellNothing: what is given by mistake may be secret.
func TestG6IdentityErrorsTellNothing(t *testing.T) {
	locked := pem.EncodeToMemory(must(ssh.MarshalPrivateKeyWithPassphrase(must(ed25519Key())(t), "", []byte("SECRET")))(t))
	for _, text := range []string{"SECRET-" + strings.Repeat("x", 40), "", "AGE-SECRET-KEY-1SECRET", string(locked), strings.Repeat("x", maxIdentityFile+1)} {
		_, err := ParseIdentities([]byte(text))
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func ed25519Key() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	return key, err
}
