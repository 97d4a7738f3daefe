package pki

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"

	"rolekey/cluster"
)

// ParseIdentities reads what opens files that are encrypted with age: a file of
// age identities, or an ssh private key without a passphrase.
func ParseIdentities(text []byte) ([]age.Identity, error) {
	if len(text) > maxIdentityFile {
		return nil, fmt.Errorf("read identity: it is larger than %d bytes", maxIdentityFile)
	}
	if !bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		ids, err := age.ParseIdentities(bytes.NewReader(text))
		if err != nil {
			return nil, errors.New("read identity: neither age identities nor an ssh private key") // age's error quotes the line
		}
		return ids, nil
	}
	id, err := agessh.ParseIdentity(text)
	if err != nil && strings.Contains(err.Error(), "passphrase") {
		return nil, errors.New("read identity: the ssh key has a passphrase; decrypt the file with age -d, and give the result")
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	return []age.Identity{id}, nil
}

// OpenRecovery returns the private half of a recovery key from the file that
// gnt-cluster init wrote, or from its text that was decrypted before. The caller
// clears the key after use.
func OpenRecovery(file []byte, ids []age.Identity) (ed25519.PrivateKey, error) {
	if len(file) > maxRecoveryFile {
		return nil, fmt.Errorf("read recovery key: it is larger than %d bytes", maxRecoveryFile)
	}
	text := file
	if isAge(file) {
		var err error
		if text, err = openAge(file, ids); err != nil {
			return nil, fmt.Errorf("open recovery key: %w", err)
		}
		defer clear(text)
	}
	return ParseRecovery(cluster.NewSecret(text))
}

const ageHeader = "age-encryption.org/"

func isAge(file []byte) bool {
	return bytes.HasPrefix(file, []byte(ageHeader)) || bytes.HasPrefix(bytes.TrimSpace(file), []byte(armor.Header))
}

func openAge(file []byte, ids []age.Identity) ([]byte, error) {
	if len(ids) == 0 {
		return nil, errors.New("it is encrypted, and no identity is given")
	}
	var in io.Reader = bytes.NewReader(file)
	if !bytes.HasPrefix(file, []byte(ageHeader)) {
		in = armor.NewReader(in)
	}
	plain, err := age.Decrypt(in, ids...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(plain, maxRecoveryFile))
}
