package candmap

import (
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"rolekey/cluster"
)

// Signature is one signature of an envelope. KeyID is the SHA-256 of the
// 32-byte public key, so that it says nothing that the key does not.
type Signature struct {
	KeyID cluster.Digest `json:"keyid"`
	Sig   []byte         `json:"sig"`
}

// Envelope is a DSSE envelope: bytes, their type, and signatures of both.
// Copies share the payload and the signatures, which nobody changes.
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"`
	Signatures  []Signature `json:"signatures"`
}

// typePrefix begins the payloadType of every document of this program.
const typePrefix = "application/vnd.rolekey."

// maxEnvelopeItems bounds the values of an envelope's JSON: three members, and
// for each signature an object of two.
const maxEnvelopeItems = 8 + 4*MaxSignatures

// Encode returns the canonical JSON form.
func (e Envelope) Encode() []byte {
	e.Payload = notNil(e.Payload)
	e.Signatures = slices.Clone(notNil(e.Signatures))
	for i := range e.Signatures {
		e.Signatures[i].Sig = notNil(e.Signatures[i].Sig)
	}
	b, err := json.Marshal(e)
	if err != nil { // strings, bytes and digests always marshal
		panic(fmt.Sprintf("encode envelope: %v", err))
	}
	return b
}

// ParseEnvelope reads the canonical form and nothing else, and checks every
// limit. It does no cryptography: what it returns proves nothing yet.
func ParseEnvelope(b []byte) (Envelope, error) {
	e, err := decodeCanonical(b, MaxEnvelope, maxEnvelopeItems, func(e *Envelope) ([]byte, error) {
		return e.Encode(), e.checkShape()
	})
	if err != nil {
		return Envelope{}, wrapCode("parse envelope", err)
	}
	return *e, nil
}

// checkShape checks what can be checked without knowing the document's type.
func (e Envelope) checkShape() error {
	switch {
	case len(e.PayloadType) > 128 || !strings.HasPrefix(e.PayloadType, typePrefix):
		return bad("not a document of this program")
	case len(e.Payload) > MaxMapPayload:
		return cluster.Errorf(cluster.CodeTooLarge, "payload of %d bytes, the limit is %d", len(e.Payload), MaxMapPayload)
	case len(e.Signatures) > MaxSignatures:
		return cluster.Errorf(cluster.CodeTooLarge, "%d signatures, the limit is %d", len(e.Signatures), MaxSignatures)
	}
	for i, s := range e.Signatures {
		if len(s.Sig) != ed25519.SignatureSize {
			return bad("signature %d has %d bytes, want %d", i, len(s.Sig), ed25519.SignatureSize)
		}
		if i > 0 && slices.ContainsFunc(e.Signatures[:i], func(o Signature) bool { return o.KeyID == s.KeyID }) {
			return bad("two signatures of key %s", s.KeyID.Short())
		}
	}
	return nil
}

// check is what every verification does first: the type, then the limits, and
// no cryptography before both hold.
func (e Envelope) check(payloadType string, maxPayload int) error {
	if e.PayloadType != payloadType {
		return wrongType(e.PayloadType, payloadType)
	}
	if len(e.Payload) > maxPayload {
		return cluster.Errorf(cluster.CodeTooLarge, "payload of %d bytes, the limit is %d", len(e.Payload), maxPayload)
	}
	return e.checkShape()
}

// wrongType tells a format of a later release, which has its own code, from
// what is simply not the document that was asked for.
func wrongType(got, want string) error {
	if strings.HasPrefix(got, typePrefix) && got != MapType && got != BeaconType {
		return cluster.Errorf(cluster.CodeUnsupportedFormat, "format %.64q is unknown here, want %s", got, want).
			WithHint("upgrade rolekey on this node")
	}
	return bad("document of type %.64q, want %s", got, want)
}

// Hash returns the SHA-256 of the payload, the identity of the document:
// the same payload with other signatures is the same document.
func (e Envelope) Hash() cluster.Digest { return cluster.DigestOf(e.Payload) }

// KeyIDOf returns the id under which a key's signatures appear.
func KeyIDOf(pub ed25519.PublicKey) cluster.Digest { return cluster.DigestOf(pub) }

// pae is DSSE's pre-authentication encoding: what is really signed. The
// lengths make (type, payload) unambiguous.
func pae(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len("DSSEv1")+len(payloadType)+len(payload)+44)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(append(b, ' '), payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	return append(append(b, ' '), payload...)
}

// Sign signs a payload. The signer must hold an Ed25519 key.
func Sign(priv crypto.Signer, payloadType string, payload []byte) (Signature, error) {
	pub, ok := priv.Public().(ed25519.PublicKey)
	if !ok {
		return Signature{}, fmt.Errorf("sign %s: want an Ed25519 key, have %T", payloadType, priv.Public())
	}
	sig, err := priv.Sign(nil, pae(payloadType, payload), crypto.Hash(0))
	if err != nil {
		return Signature{}, fmt.Errorf("sign %s: %w", payloadType, err)
	}
	return Signature{KeyID: KeyIDOf(pub), Sig: sig}, nil
}

// Signers counts the distinct keys of the set whose signature is valid. Ids
// that are not of the set are ignored; an envelope over the limits has none.
func (e Envelope) Signers(keys []SigningKey) int {
	if e.checkShape() != nil {
		return 0
	}
	var message []byte
	n := 0
	for i, k := range keys {
		if containsKey(keys[:i], k) {
			continue
		}
		sig := e.signatureOf(KeyIDOf(k.Public()))
		if sig == nil {
			continue
		}
		if message == nil {
			message = pae(e.PayloadType, e.Payload)
		}
		if len(k) == ed25519.PublicKeySize && ed25519.Verify(k.Public(), message, sig) {
			n++
		}
	}
	return n
}

func (e Envelope) signatureOf(id cluster.Digest) []byte {
	for _, s := range e.Signatures {
		if s.KeyID == id {
			return s.Sig
		}
	}
	return nil
}

// Merge returns the envelope with further signatures, one for each key, up to
// the limit. Verify a signature before merging it: junk would fill the places.
func Merge(e Envelope, sigs ...Signature) Envelope {
	e.Signatures = slices.Clone(e.Signatures)
	for _, s := range sigs {
		if len(e.Signatures) < MaxSignatures && e.signatureOf(s.KeyID) == nil {
			e.Signatures = append(e.Signatures, s)
		}
	}
	return e
}
