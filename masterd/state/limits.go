package state

import (
	"time"

	"rolekey/candmap"
)

// Bounds on what the state holds and on what is decoded. What comes from an
// administrator is refused at the bound; history is forgotten at it.
const (
	MaxCommand  = 1 << 20   // bytes of an encoded command
	MaxSnapshot = 512 << 20 // bytes of an encoded snapshot
	maxDepth    = 32        // nesting of JSON

	MaxNodes       = 4096
	MaxTags        = 4096 // of one object, as Ganeti
	MaxTagsLevel1  = 64   // of a node, while the cluster is at feature level 1
	MaxTag         = 128  // bytes
	MaxRemoved     = 256  // tombstones
	MaxCertificate = 8 << 10
	MaxSSHPrivate  = 16 << 10 // of a shared SSH key's private half
	maxHostKeyBlob = candmap.MaxSSHBlob
	MaxPool        = 64
	MaxRAPIUsers   = 1000 // also of administrators
	MaxRAPIName    = 128
	MaxRAPIHash    = 256
	MaxRAPICert    = 64 << 10 // bytes of a chain, or of a key
	ChainRecent    = 64       // maps kept that do not change the authority

	MaxActiveJobs  = 256
	MaxEndedJobs   = 1000
	MaxOps         = 16
	MaxOp          = 64 << 10 // bytes of one opcode, or of its result
	MaxSummary     = 256
	MaxLogEntries  = 2000 // of one job; the oldest go
	MaxLogText     = 4 << 10
	MaxLogBytes    = 256 << 10 // of one job
	MaxProgress    = 200
	MaxUnreachable = MaxNodes
	MaxStep        = 64
	MaxData        = 32 << 10
	MaxError       = 4 << 10
	MaxActor       = 256
	MaxRequestID   = 128
)

// Eras outside these years are a broken clock, not a time.
var (
	minTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	maxTime = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)
