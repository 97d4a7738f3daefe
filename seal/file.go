package seal

import (
	"fmt"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

// maxFile bounds the plaintext of a sealed file: these are keys, not data.
const maxFile = 1 << 20

// filePurpose keeps files apart from every other sealed thing.
func filePurpose(purpose string) string { return "file/" + purpose }

// SealFile makes secret, sealed, the whole content of path: mode 0600,
// replaced in one step, on disk before it returns. The purpose, such as
// "signing-key", is part of the seal: one sealed file does not pass for another.
func (k *Keyring) SealFile(path, purpose string, secret cluster.Secret) error {
	plaintext := secret.Reveal()
	if len(plaintext) > maxFile {
		return fmt.Errorf("seal file %s: %d bytes: %w", path, len(plaintext), ErrTooLarge)
	}
	record := k.Seal(filePurpose(purpose), 0, plaintext)
	if err := atomicfile.Write(path, record, atomicfile.Durable(0o600)); err != nil {
		return fmt.Errorf("seal file: %w", err)
	}
	return nil
}

// OpenFile returns what SealFile wrote for the same purpose. A missing file is
// fs.ErrNotExist.
func (k *Keyring) OpenFile(path, purpose string) (cluster.Secret, error) {
	record, err := readPrivate(path, maxFile+int64(Overhead))
	if err != nil {
		return cluster.Secret{}, fmt.Errorf("open sealed file %s: %w", path, err)
	}
	plaintext, err := k.open(filePurpose(purpose), 0, record)
	if err != nil {
		return cluster.Secret{}, fmt.Errorf("open sealed file %s: %w", path, err)
	}
	return cluster.NewSecret(plaintext), nil
}
