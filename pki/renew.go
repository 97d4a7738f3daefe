package pki

import (
	"crypto/x509"
	"encoding/binary"
	"time"

	"rolekey/cluster"
)

// renewSpread is the part of the life over which renewals are spread.
const renewSpread = 20

// RenewAt says when to renew: at two thirds of the life, less up to a
// twentieth that depends on the seed. With the certificate's digest as seed,
// nodes that were admitted together do not renew together, and a restart does
// not move a node's date. A third of the life is always left.
func RenewAt(notBefore, notAfter time.Time, seed cluster.Digest) time.Time {
	life := notAfter.Sub(notBefore)
	if life <= 0 {
		return notBefore
	}
	due := notBefore.Add(life / 3 * 2)
	spread := uint64(life / renewSpread)
	if spread == 0 {
		return due
	}
	// A 64-bit hash modulo at most 2^62 is even enough for a date.
	return due.Add(-time.Duration(binary.BigEndian.Uint64(seed[:8]) % spread))
}

// RenewAt says when this certificate is due.
func (id Identity) RenewAt() time.Time { return RenewAt(id.NotBefore, id.NotAfter, id.Digest) }

// Ended reports whether this certificate has ended.
func (id Identity) Ended(now time.Time) bool { return now.After(id.NotAfter) }

// Lapsed reports whether it ended so long ago that it is no proof for a renewal
// any more.
func (id Identity) Lapsed(now time.Time) bool { return now.After(id.NotAfter.Add(Grace)) }

// IssuedAt says when a certificate was issued, by the issuer's clock.
func IssuedAt(cert *x509.Certificate) time.Time { return cert.NotBefore.Add(backdate) }

// Issued says when this certificate was issued, by the issuer's clock.
func (id Identity) Issued() time.Time { return id.NotBefore.Add(backdate) }
