package masterd

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/pki"
	"rolekey/seal"
)

// errUnfit says that the certificate on disk is of no use with the key.
var errUnfit = errors.New("read candidate certificate")

// installLocked writes the certificate after checking that it is for this
// node, this use and this key.
func (v *vault) installLocked(ctx seal.Context, der []byte) error {
	cert, err := candidateCert(ctx.Node, der)
	if err != nil {
		return fmt.Errorf("install candidate certificate: %w", err)
	}
	if err := v.findLocked(ctx); err != nil {
		return fmt.Errorf("install candidate certificate: %w", err)
	}
	pair, next, err := v.pairFor(v.ring, cert)
	switch {
	case errors.Is(err, errUnfit):
		return fmt.Errorf("install candidate certificate: %w", keysLost("the key on disk is another"))
	case err != nil:
		return fmt.Errorf("install candidate certificate: %w", orLost(err))
	}
	err = atomicfile.Write(v.at.CandidateCert(), pki.EncodeCert(der), atomicfile.Options{Mode: 0o644, UID: -1, GID: -1, Sync: true})
	if err != nil {
		return fmt.Errorf("install candidate certificate: %w", err)
	}
	t := pair.TLS()
	v.client = &t
	if next {
		return v.promoteNext()
	}
	return nil
}

func candidateCert(node cluster.NodeID, der []byte) (*x509.Certificate, error) {
	cert, err := pki.ParseCertDER(der)
	if err != nil {
		return nil, err
	}
	id, err := pki.Identify(cert)
	if err != nil {
		return nil, err
	}
	if id.Kind != pki.KindCandidate || id.Node != node {
		return nil, cluster.Errorf(cluster.CodeIdentityMismatch, "it is a %s certificate of node %s", id.Kind, id.Node)
	}
	return cert, nil
}

// findLocked opens the keys that a certificate was issued for. It makes none:
// new ones would fit neither the certificate nor the map, and nobody would
// learn that the old ones are gone.
func (v *vault) findLocked(ctx seal.Context) error {
	for _, p := range []string{v.at.Keyring(), v.at.SigningKey(), v.at.CandidateKey()} {
		if missing(p) {
			return keysLost(p + " is missing")
		}
	}
	err := v.openLocked(ctx)
	if errors.Is(err, errUnfit) { // a better one is about to be written
		if err = atomicfile.Remove(v.at.CandidateCert()); err == nil {
			err = v.openLocked(ctx)
		}
	}
	return orLost(err)
}

// lostKeys are the faults that no retry mends.
var lostKeys = []error{
	seal.ErrKeyringMissing, seal.ErrKeyringDamaged, seal.ErrKeyringForeign, seal.ErrWrongKey, seal.ErrTruncated, seal.ErrTampered,
}

// orLost gives faults of the disk's contents their code; what may pass, such as
// a disk that does not answer, keeps its own.
func orLost(err error) error {
	if slices.ContainsFunc(lostKeys, func(lost error) bool { return errors.Is(err, lost) }) {
		return keysLost(err.Error())
	}
	return err
}

func keysLost(why string) error {
	return cluster.Errorf(cluster.CodeKeysLost, "this node has lost the candidate keys that the certificate was issued for: %s", why).
		WithHint("the master gives the node a new start as a candidate; if it does not, set the node's master_candidate flag to no and to yes again")
}
