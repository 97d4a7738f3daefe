package candmap

import (
	"bytes"
	"slices"
)

// Authority is whose signatures make the next map valid. Together with the
// epoch it is what a node trusts.
type Authority struct {
	Voters   []SigningKey // sorted
	Recovery Recovery
}

// Authority returns the authority that the map establishes.
func (m *Map) Authority() Authority {
	a := Authority{Recovery: m.Recovery}
	for i := range m.Candidates {
		if m.Candidates[i].Voter {
			a.Voters = append(a.Voters, m.Candidates[i].Signing)
		}
	}
	slices.SortFunc(a.Voters, func(x, y SigningKey) int { return bytes.Compare(x, y) })
	return a
}

// Majority returns how many voters decide.
func (a Authority) Majority() int { return len(a.Voters)/2 + 1 }

// Equal reports whether a and b trust the same keys in the same way.
func (a Authority) Equal(b Authority) bool {
	return slices.EqualFunc(a.Voters, b.Voters, equalKeys) && a.Recovery.equal(b.Recovery)
}

func (r Recovery) equal(o Recovery) bool {
	return r.Threshold == o.Threshold && slices.EqualFunc(r.Keys, o.Keys, equalKeys)
}

func equalKeys(a, b SigningKey) bool { return bytes.Equal(a, b) }

// signedByVoters reports whether a majority of the voters signed.
func (a Authority) signedByVoters(e Envelope) bool {
	return len(a.Voters) > 0 && e.Signers(a.Voters) >= a.Majority()
}

// signedByRecovery reports whether the recovery threshold signed.
func (a Authority) signedByRecovery(e Envelope) bool {
	return a.Recovery.Threshold > 0 && e.Signers(a.Recovery.Keys) >= int(a.Recovery.Threshold)
}

// basis is an authority in its epoch: what a map can be permitted by.
type basis struct {
	Authority
	epoch uint64
}

// speaks reports whether the envelope carries enough signatures to be worth
// parsing: those that could permit some map.
func (b *basis) speaks(e Envelope) bool {
	return b != nil && (b.signedByVoters(e) || b.signedByRecovery(e))
}

// permits decides whether m, the payload of e, is valid under b. Within the
// epoch a majority of the voters decides, and the recovery threshold too when
// recovery itself changes. Only the recovery threshold raises the epoch, by
// one. Whoever the map makes voters must agree to any change of authority.
func (b *basis) permits(m *Map, e Envelope) bool {
	next := m.Authority()
	switch {
	case m.Epoch == b.epoch:
		if !b.signedByVoters(e) {
			return false
		}
		if b.Recovery.Threshold > 0 && !b.Recovery.equal(next.Recovery) && !b.signedByRecovery(e) {
			return false
		}
		return b.Equal(next) || next.signedByVoters(e)
	case m.Epoch == b.epoch+1:
		return b.signedByRecovery(e) && next.signedByVoters(e)
	default:
		return false
	}
}
