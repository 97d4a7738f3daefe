package pki

import "time"

// Bounds on what is read from others.
const (
	maxCSR         = 4096 // DER of a certificate request
	maxCert        = 8192 // DER of a certificate
	maxPEMFile     = 32 << 10
	maxRoots       = 4 // certificates of a root pool: two during a rotation
	maxAddresses   = 8 // IP addresses of one node
	maxTokenText   = 600
	maxRecords     = 256
	maxActor       = 256
	maxRecipients  = 16
	maxRecipient   = 4096
	maxCandidates  = 3 // addresses in an admission string
	maxCommonName  = 64
	rootCertsBytes = maxRoots * maxPEMFile
	maxHosts       = 32 << 10 // JSON of a statement of host keys
	maxSignature   = 128

	// MaxHostKeys is how many host keys a statement may have.
	MaxHostKeys = 8
)

// Life spans of certificates.
//
// Node certificates live long because their pins in the signed map, not their
// dates, decide whether they are believed, and because at least a third of
// the life must outlast a year in which every machine was off (G7). RAPI's
// clients have no map, so its certificate is short.
const (
	LifetimeCA   = 20 * 365 * day
	LifetimeNode = 4 * 365 * day
	LifetimeRAPI = 90 * day

	// Administrators' certificates.
	LifetimeAdmin    = 365 * day
	MaxLifetimeAdmin = 5 * 365 * day

	// Grace is how long after the end of its certificates a node may still ask
	// for new ones. What authorizes is the pin in the roster, which a removed node
	// has not; the end only bounds how long a key that everybody forgot is good.
	// So it is the year in which every machine may be off.
	Grace = 365 * day

	day      = 24 * time.Hour
	backdate = time.Hour // for clocks that are behind the issuer's
)

// maxChain bounds an administrator's own certificate chain for RAPI.
const maxChain = 8

// Life spans of admission records.
const (
	DefaultTTL = time.Hour
	MaxTTL     = 7 * day
	MinTTL     = time.Minute
	retention  = 7 * day // of ended records, for the audit
)

// Bounds of what an administrator gives to open something.
const (
	maxIdentityFile = 64 << 10
	maxRecoveryFile = 64 << 10
)
