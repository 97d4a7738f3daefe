package seal

import (
	"crypto/rand"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Formats of sealed data: the first byte of each. The numbers are one space.
const (
	formatRecord = 1
	formatStream = 2
)

const (
	headerSize = 1 + len(KeyID{})
	nonceSize  = chacha20poly1305.NonceSizeX

	// Overhead is the number of bytes by which a record is longer than its
	// plaintext.
	Overhead = headerSize + nonceSize + chacha20poly1305.Overhead
)

// header starts every record and stream: format and key id. It is
// authenticated with the context.
type header [headerSize]byte

func newHeader(format byte, id KeyID) (h header) {
	h[0] = format
	copy(h[1:], id[:])
	return h
}

func (h header) keyID() KeyID { return KeyID(h[1:]) }

// Seal returns plaintext as a record for this purpose and index, under the
// active key. The same plaintext never gives the same record twice.
func (k *Keyring) Seal(purpose string, index uint64, plaintext []byte) []byte {
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails since Go 1.24
	return k.seal(nonce, purpose, index, plaintext)
}

// seal is Seal with a chosen nonce.
func (k *Keyring) seal(nonce [nonceSize]byte, purpose string, index uint64, plaintext []byte) []byte {
	key := k.keys.Load().active
	h := newHeader(formatRecord, key.ID)
	out := make([]byte, 0, Overhead+len(plaintext))
	out = append(out, h[:]...)
	out = append(out, nonce[:]...)
	return key.record.Seal(out, nonce[:], plaintext, k.ctx.associated(h, purpose, index))
}

// Open returns the plaintext of a record that Seal made for the same purpose
// and index. The error is ErrUnknownFormat, ErrTruncated, ErrWrongKey or
// ErrTampered.
func (k *Keyring) Open(purpose string, index uint64, record []byte) ([]byte, error) {
	plaintext, err := k.open(purpose, index, record)
	if err != nil {
		return nil, fmt.Errorf("open sealed %s %d: %w", purpose, index, err)
	}
	return plaintext, nil
}

func (k *Keyring) open(purpose string, index uint64, record []byte) ([]byte, error) {
	key, h, err := k.openHeader(formatRecord, record)
	if err != nil {
		return nil, err
	}
	if len(record) < Overhead {
		return nil, ErrTruncated
	}
	nonce, box := record[headerSize:headerSize+nonceSize], record[headerSize+nonceSize:]
	plaintext, err := key.record.Open(nil, nonce, box, k.ctx.associated(h, purpose, index))
	if err != nil {
		return nil, ErrTampered
	}
	return plaintext, nil
}

// openHeader finds the key of sealed data that must have the given format.
func (k *Keyring) openHeader(format byte, b []byte) (*dataKey, header, error) {
	if len(b) == 0 {
		return nil, header{}, ErrTruncated
	}
	if b[0] != format {
		return nil, header{}, fmt.Errorf("format %d: %w", b[0], ErrUnknownFormat)
	}
	if len(b) < headerSize {
		return nil, header{}, ErrTruncated
	}
	h := header(b[:headerSize])
	key, err := k.keys.Load().find(h.keyID())
	return key, h, err
}

// KeyOf returns the id of the key that sealed a record or stream, of which the
// beginning is enough. It proves nothing.
func KeyOf(sealed []byte) (KeyID, error) {
	if len(sealed) < headerSize {
		return KeyID{}, fmt.Errorf("read key id: %w", ErrTruncated)
	}
	if f := sealed[0]; f != formatRecord && f != formatStream {
		return KeyID{}, fmt.Errorf("read key id: format %d: %w", f, ErrUnknownFormat)
	}
	return header(sealed[:headerSize]).keyID(), nil
}
