package candmap

import (
	"bytes"
	"crypto/ed25519"
	"slices"
)

// lowOrder are the canonical encodings, sign bit cleared, of the points of
// small order on the curve of Ed25519: y = 0, 1, -1 and the two of order 8.
// With such a key, signatures verify that nobody made.
var lowOrder = [][]byte{
	make([]byte, 32),
	append([]byte{1}, make([]byte, 31)...),
	{
		0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
	},
	{
		0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
	},
	append(append([]byte{0xec}, bytes.Repeat([]byte{0xff}, 30)...), 0x7f),
}

// validate refuses keys that cannot be somebody's: wrong length, a point of
// small order, or a y coordinate that is not reduced modulo 2^255-19 (a second
// spelling of a key would have a second key id).
func (k SigningKey) validate() error {
	if len(k) != ed25519.PublicKeySize {
		return bad("signing key of %d bytes, want %d", len(k), ed25519.PublicKeySize)
	}
	y := slices.Clone(k)
	y[31] &= 0x7f
	unreduced := y[31] == 0x7f && y[0] >= 0xed && bytes.Count(y[1:31], []byte{0xff}) == 30
	weak := slices.ContainsFunc(lowOrder, func(p []byte) bool { return bytes.Equal(p, y) })
	if unreduced || weak {
		return bad("signing key is not a usable Ed25519 key")
	}
	return nil
}

func containsKey(keys []SigningKey, k SigningKey) bool {
	return slices.ContainsFunc(keys, func(o SigningKey) bool { return bytes.Equal(o, k) })
}
