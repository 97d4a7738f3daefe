package candmap_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"testing"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
)

// weakKeys are encodings of points of small order, and of points whose
// y coordinate is not reduced.
var weakKeys = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// Each listed key is really weak: for one message in eight, or more, a
// signature verifies that nobody made (R the neutral point, S zero). That also
// proves the listed bytes right.
func TestWeakKeysWouldVerifyForgeries(t *testing.T) {
	forged := make([]byte, ed25519.SignatureSize)
	forged[0] = 1
	for _, s := range weakKeys {
		for _, key := range bothSigns(t, s) {
			found := false
			for i := 0; i < 400 && !found; i++ {
				found = ed25519.Verify(ed25519.PublicKey(key), fmt.Append(nil, i), forged)
			}
			if !found && s != weakKeys[5] && s != weakKeys[6] { // crypto/ed25519 may refuse these two by itself
				t.Errorf("%x is not weak after all", key)
			}
		}
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	for _, s := range append(weakKeys, "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f") {
		for _, key := range bothSigns(t, s) {
			m := ct.Map(1)
			m.Candidates[0].Signing = key
			if _, err := m.Encode(); err == nil {
				t.Errorf("%x was accepted", key)
			}
			m = ct.Map(1)
			m.Recovery = candmap.Recovery{Threshold: 1, Keys: []candmap.SigningKey{key}}
			if _, err := m.Encode(); err == nil {
				t.Errorf("%x was accepted for recovery", key)
			}
		}
	}
}

func bothSigns(t *testing.T, s string) (keys []candmap.SigningKey) {
	t.Helper()
	for _, sign := range []byte{0, 0x80} {
		k, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		k[31] |= sign
		keys = append(keys, k)
	}
	return keys
}
