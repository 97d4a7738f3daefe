package pki

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// EncryptTo encrypts what is written to age or ssh public keys. The message is
// complete, and can be told from one that was cut off, when Close has returned.
func EncryptTo(w io.Writer, recipients []string) (io.WriteCloser, error) {
	to, err := parseRecipients(recipients)
	if err != nil {
		return nil, err
	}
	out, err := age.Encrypt(w, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return out, nil
}

// DecryptWith reads what EncryptTo wrote, or its armored form. A message that
// was changed or cut off fails, at the latest at its end.
func DecryptWith(r io.Reader, ids []age.Identity) (io.Reader, error) {
	if len(ids) == 0 {
		return nil, errors.New("decrypt: no identity is given")
	}
	in := bufio.NewReader(r)
	start, err := in.Peek(len(armor.Header))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	var message io.Reader = in
	if string(start) == armor.Header {
		message = armor.NewReader(in)
	}
	plain, err := age.Decrypt(message, ids...)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return plain, nil
}
