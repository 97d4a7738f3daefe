package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"

	"rolekey/cluster"
)

// Recovery is a new recovery key: the public half for the map, the private
// half encrypted for the administrators.
type Recovery struct {
	Public     ed25519.PublicKey
	Ciphertext []byte // age, ASCII armor
}

// NewRecovery makes a recovery key for the cluster. The private half leaves
// this function only encrypted to every one of the recipients.
func NewRecovery(id cluster.UUID, recipients []string) (Recovery, error) {
	to, err := parseRecipients(recipients)
	if err != nil {
		return Recovery{}, err
	}
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return Recovery{}, fmt.Errorf("make recovery key: %w", err)
	}
	defer clear(key)
	text, err := recoveryText(id, key)
	if err != nil {
		return Recovery{}, fmt.Errorf("make recovery key: %w", err)
	}
	defer clear(text)
	ciphertext, err := encrypt(text, to)
	if err != nil {
		return Recovery{}, fmt.Errorf("encrypt recovery key: %w", err)
	}
	return Recovery{Public: pub, Ciphertext: ciphertext}, nil
}

// recoveryText returns the private half in PEM, after a line that tells a
// person who finds it what it is; PEM readers skip it.
func recoveryText(id cluster.UUID, key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	head := []byte("Rolekey recovery key of cluster " + id.String() + "\n")
	body := pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})
	defer clear(body)
	return append(head, body...), nil
}

// ParseRecovery reads the decrypted private half, for gnt-cluster recover.
func ParseRecovery(text cluster.Secret) (ed25519.PrivateKey, error) {
	signer, err := ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("read recovery key: %w", err)
	}
	key, ok := signer.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("read recovery key: not an Ed25519 key")
	}
	return key, nil
}

func encrypt(text []byte, to []age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	wrapped := armor.NewWriter(&out)
	w, err := age.Encrypt(wrapped, to...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), wrapped.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// CheckRecipients says which recipient is bad, before anything is made.
func CheckRecipients(recipients []string) error {
	to, err := parseRecipients(recipients)
	if err != nil {
		return err
	}
	// Which kinds do not mix, age itself knows.
	if _, err := age.Encrypt(io.Discard, to...); err != nil {
		return fmt.Errorf("recovery recipients: %w", err)
	}
	return nil
}

func parseRecipients(recipients []string) ([]age.Recipient, error) {
	if len(recipients) == 0 || len(recipients) > maxRecipients {
		return nil, fmt.Errorf("recovery recipients: %d given, want 1 to %d", len(recipients), maxRecipients)
	}
	var to []age.Recipient
	var seen []string
	for i, text := range recipients {
		text = strings.TrimSpace(text)
		r, err := parseRecipient(text)
		if err != nil {
			return nil, fmt.Errorf("recovery recipient %d: %w", i+1, err)
		}
		id := recipientID(text)
		if first := slices.Index(seen, id); first >= 0 {
			return nil, fmt.Errorf("recovery recipient %d: the same as recipient %d", i+1, first+1)
		}
		to, seen = append(to, r), append(seen, id)
	}
	return to, nil
}

// parseRecipient quotes a text in errors only if it begins as a public key
// does: a private key may have been pasted by mistake.
func parseRecipient(s string) (age.Recipient, error) {
	upper := strings.ToUpper(s)
	switch {
	case s == "" || len(s) > maxRecipient || strings.ContainsAny(s, "\r\n"):
		return nil, fmt.Errorf("want one line of 1 to %d characters", maxRecipient)
	case strings.Contains(upper, "AGE-SECRET-KEY") || strings.Contains(upper, "PRIVATE KEY"):
		return nil, errors.New("this is a private key; give the public one, and think about whether the private one is still secret")
	case strings.HasPrefix(s, "age1pq1"):
		return named[*age.HybridRecipient](s)(age.ParseHybridRecipient(s))
	case strings.HasPrefix(s, "age1"):
		return named[*age.X25519Recipient](s)(age.ParseX25519Recipient(s))
	case strings.HasPrefix(s, "ssh-ed25519 "), strings.HasPrefix(s, "ssh-rsa "):
		return named[age.Recipient](s)(agessh.ParseRecipient(s))
	default:
		return nil, errors.New("want an age key (age1...) or an ssh-ed25519 or ssh-rsa public key")
	}
}

// named puts the beginning of the recipient before an error.
func named[R age.Recipient](s string) func(R, error) (age.Recipient, error) {
	return func(r R, err error) (age.Recipient, error) {
		if err != nil {
			return nil, fmt.Errorf("%.24q: %w", s, err)
		}
		return r, nil
	}
}

// recipientID leaves out the comment of an ssh key.
func recipientID(s string) string {
	return strings.Join(strings.Fields(s)[:min(2, len(strings.Fields(s)))], " ")
}
