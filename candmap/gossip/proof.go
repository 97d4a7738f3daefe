package gossip

import (
	"fmt"

	"rolekey/candmap"
)

// couldProve reports whether the envelope names enough voters of the map. It
// is no proof, but junk that fails it costs no signature check.
func couldProve(env candmap.Envelope, m *candmap.Verified) bool {
	auth := m.Authority()
	n := 0
	for _, k := range auth.Voters {
		id := candmap.KeyIDOf(k.Public())
		for _, s := range env.Signatures {
			if s.KeyID == id {
				n++
				break
			}
		}
	}
	return len(auth.Voters) > 0 && n >= auth.Majority()
}

// trim returns the envelope with the valid signatures of a bare majority of
// the map's voters and no others, so that it is as small as a proof can be.
func trim(env candmap.Envelope, m *candmap.Verified) (candmap.Envelope, error) {
	if env.PayloadType != candmap.BeaconType {
		return candmap.Envelope{}, fmt.Errorf("trim announcement: it is no beacon")
	}
	auth := m.Authority()
	bare := candmap.Envelope{PayloadType: env.PayloadType, Payload: env.Payload}
	for _, k := range auth.Voters {
		if len(bare.Signatures) == auth.Majority() {
			break
		}
		id := candmap.KeyIDOf(k.Public())
		for _, s := range env.Signatures {
			one := bare
			one.Signatures = []candmap.Signature{s}
			if s.KeyID == id && one.Signers([]candmap.SigningKey{k}) == 1 {
				bare = candmap.Merge(bare, s)
				break
			}
		}
	}
	if n := len(bare.Signatures); n == 0 || n < auth.Majority() {
		return candmap.Envelope{}, fmt.Errorf("trim announcement: %d of %d voters signed, want %d", n, len(auth.Voters), auth.Majority())
	}
	return bare, nil
}
