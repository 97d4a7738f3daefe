package pki

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
)

func sshLine(t *testing.T, pub crypto.PublicKey) string {
	t.Helper()
	key := must(ssh.NewPublicKey(pub))(t)
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func TestRecoveryForEveryRecipient(t *testing.T) {
	x := must(age.GenerateX25519Identity())(t)
	edPub, edKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	recipients := []string{x.Recipient().String(), sshLine(t, edPub) + " alice@desk", " " + sshLine(t, &rsaKey.PublicKey) + "\n"}
	rec := must(NewRecovery(testCluster, recipients))(t)
	if !bytes.HasPrefix(rec.Ciphertext, []byte("-----BEGIN AGE ENCRYPTED FILE-----")) {
		t.Errorf("not armored: %.40q", rec.Ciphertext)
	}
	for _, id := range []age.Identity{x, must(agessh.NewEd25519Identity(edKey))(t), must(agessh.NewRSAIdentity(rsaKey))(t)} {
		text := must(decrypt(rec.Ciphertext, id))(t)
		if !strings.Contains(string(text), testCluster.String()) {
			t.Error("the text does not name the cluster")
		}
		key := must(ParseRecovery(cluster.NewSecret(text)))(t)
		if !rec.Public.Equal(key.Public()) {
			t.Errorf("%T decrypts another key", id)
		}
	}
	if _, err := decrypt(rec.Ciphertext, must(age.GenerateX25519Identity())(t)); err == nil {
		t.Error("a stranger decrypts it")
	}
}

func TestRecoveryPostQuantum(t *testing.T) {
	id := must(age.GenerateHybridIdentity())(t)
	rec := must(NewRecovery(testCluster, []string{id.Recipient().String()}))(t)
	key := must(ParseRecovery(cluster.NewSecret(must(decrypt(rec.Ciphertext, id))(t))))(t)
	if !rec.Public.Equal(key.Public()) {
		t.Error("decrypts another key")
	}
	x := must(age.GenerateX25519Identity())(t)
	if err := CheckRecipients([]string{id.Recipient().String(), x.Recipient().String()}); err == nil {
		t.Error("age refuses to mix these; so must the check")
	}
}

func decrypt(ciphertext []byte, id age.Identity) ([]byte, error) {
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(ciphertext)), id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// A bad recipient is named by its place, and nothing is made.
func TestRecoveryRecipients(t *testing.T) {
	good := must(age.GenerateX25519Identity())(t)
	small := sshLine(t, must(rsa.GenerateKey(rand.Reader, 1024))(t).Public())
	for name, bad := range map[string]string{
		"empty":      "",
		"word":       "alice",
		"truncated":  good.Recipient().String()[:40],
		"typo":       good.Recipient().String()[:61] + "b",
		"age secret": good.String(),
		"lower case": strings.ToLower(good.String()),
		"ssh secret": "-----BEGIN OPENSSH PRIVATE KEY-----",
		"plugin":     "age1yubikey1qwerty",
		"ecdsa":      "ecdsa-sha2-nistp256 AAAA",
		"ssh junk":   "ssh-ed25519 AAAA",
		"options":    `from="*" ssh-ed25519 AAAA`,
		"small RSA":  small,
		"two lines":  good.Recipient().String() + "\n" + good.Recipient().String(),
		"long":       "ssh-rsa " + strings.Repeat("A", maxRecipient),
		"the same":   good.Recipient().String(),
	} {
		t.Run(name, func(t *testing.T) {
			rec, err := NewRecovery(testCluster, []string{good.Recipient().String(), bad})
			if err == nil || rec.Public != nil {
				t.Fatal("made a key")
			}
			if !strings.Contains(err.Error(), "recipient 2") || len(err.Error()) > 400 {
				t.Errorf("error does not say which: %v", err)
			}
			if secret := good.String()[20:40]; strings.Contains(strings.ToUpper(err.Error()), secret) {
				t.Errorf("error tells a secret: %v", err)
			}
			if CheckRecipients([]string{good.Recipient().String(), bad}) == nil {
				t.Error("the check accepts it")
			}
		})
	}
	if _, err := NewRecovery(testCluster, nil); err == nil {
		t.Error("made a key for nobody")
	}
	if err := CheckRecipients(make([]string, maxRecipients+1)); err == nil {
		t.Error("too many accepted")
	}
	if _, err := ParseRecovery(must(EncodeKey(newKey(t)))(t)); err == nil {
		t.Error("an ECDSA key is no recovery key")
	}
	if err := CheckRecipients([]string{good.Recipient().String()}); err != nil {
		t.Error(err)
	}
}
