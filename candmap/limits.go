package candmap

import "time"

// Limits of the documents. They are checked before any cryptography or
// allocation that the sender could drive.
const (
	MaxSignatures    = 16        // on one envelope
	MaxMapPayload    = 256 << 10 // bytes of a decoded map payload
	MaxBeaconPayload = 512
	MaxEnvelope      = 400 << 10 // bytes of a JSON envelope
	MaxCandidates    = 64
	MaxVoters        = 7
	MaxAddresses     = 8
	MaxFrom          = 16
	MaxSSHBlob       = 2048 // bytes of one public key blob
	MaxRecoveryKeys  = 16
	MaxDepth         = 8       // nesting of JSON
	MaxNumber        = 1 << 53 // every number in a document is exact in any JSON reader

	// MaxRecoveryThreshold leaves room on one envelope for the majorities of
	// seven old and seven new voters beside the recovery signatures.
	MaxRecoveryThreshold = MaxSignatures - 2*(MaxVoters/2+1)

	MaxChain  = 128 // envelopes in one delivery or answer
	MaxRecent = 64  // versions kept that do not change the authority
	MaxForks  = 32  // pairs of envelopes kept as evidence

	RosterBuckets  = 64
	MaxRosterIndex = 16 << 10
	MaxBucket      = 1 << 20
	MaxHostKeys    = 8
	MaxAuthorities = 3
	MaxAuthority   = 2048 // bytes of a certificate
	MaxGossipKeys  = 2

	MinLease    = 1 * time.Second
	MaxLease    = 24 * time.Hour
	MinSSHLease = 1 * time.Minute
	MaxSSHLease = 30 * 24 * time.Hour

	// TrustPeriod is how long a node crosses changes of authority without a
	// verified beacon; after it, keys of that authority may have been stolen.
	TrustPeriod = 30 * 24 * time.Hour

	// MaxSkew is how far a signer's clock may be from the time it signs.
	MaxSkew = 2 * time.Second
)
