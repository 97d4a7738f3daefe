// Package seal keeps secrets and replicated state sealed on disk.
//
// A Keyring holds this node's data keys. With it, Seal and Open turn bytes
// into a self-describing record and back, NewStreamWriter and NewStreamReader
// do the same for content of any length, and SealFile and OpenFile for whole
// small files. The formats are specified in docs/at-rest.rst.
//
// # Guarantees
//
// Whatever opens was sealed by this node, of this cluster, in this
// incarnation, for this purpose and index. A changed, moved, cut, exchanged or
// foreign record is an error, and so is one of an unknown format. What is not
// proven is freshness: an older record for the same place opens.
//
// A keyring is created once and never replaced by a new one. Until an unlock
// key locks it ("kek none") it protects against tampering and against the loss
// of anything but itself, and not against the thief of the whole disk.
//
// No value of this package prints key material, whatever the verb.
//
// # Concurrency
//
// A Keyring may be used concurrently. A stream belongs to one goroutine. A
// file of SealFile has one writer.
//
// Sources: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), ChaCha20-Poly1305
// (RFC 8439), HKDF (RFC 5869), STREAM (Hoang, Reyhanitabar, Rogaway, Vizár:
// Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, 2015).
package seal

import "errors"

// The ways in which something does not open.
var (
	ErrUnknownFormat  = errors.New("unknown format, written by a newer version or damaged")
	ErrWrongKey       = errors.New("sealed with a key that is not in this keyring")
	ErrTruncated      = errors.New("the end is missing")
	ErrTampered       = errors.New("does not verify: damaged, tampered with or moved here from elsewhere")
	ErrTooLarge       = errors.New("too large")
	ErrKeyringMissing = errors.New("keyring is missing")
	ErrKeyringDamaged = errors.New("keyring is damaged")
	ErrKeyringForeign = errors.New("keyring belongs to another cluster, node or incarnation")
)
