package gossip

import "time"

// label begins every packet and stream, in the clear, and is authenticated
// with it. It is the number of the format of what is gossiped; clusters are
// kept apart by their keys.
const label = "1"

// What memberlist v0.7.0 puts around a queued message in a packet of its
// configured size. A larger message stays in its queue for ever.
const (
	packetSize       = 1400 // memberlist's UDPBufferSize, its default
	compoundOverhead = 2
	labelOverhead    = 2 + len(label)
	cryptoOverhead   = 1 + 12 + 16 // version, nonce, tag
	messageOverhead  = 2 + 1       // length in the compound, type

	// MaxMessage is the size of the largest announcement that arrives: 1363.
	// A beacon with the signatures of four of seven voters has at most 1060.
	MaxMessage = packetSize - compoundOverhead - labelOverhead - cryptoOverhead - messageOverhead
)

// Limits of what is received.
const (
	maxPacket     = 1536    // bytes; memberlist adds a checksum of 5 to its 1400
	maxStream     = 1 << 20 // bytes read from one stream: the states of thousands of nodes
	maxStreams    = 64      // that peers opened
	maxPerPeer    = 4       // of those, from one address
	maxMembers    = 4096    // let in while there is no roster to compare with
	maxWaiting    = 16      // messages to be judged; the oldest give way
	checksPerSec  = 50      // envelopes verified, each up to seven signatures
	checksAtOnce  = 20
	linesPerSec   = 2 // of memberlist's log
	linesAtOnce   = 20
	streamTimeout = 5 * time.Second // for dialling, and for a whole exchange
	leaveTimeout  = 2 * time.Second
)

// retransmits, times the decimal logarithm of the number of members, is how
// often each node sends an announcement. With memberlist's own 4, one in sixty
// announcements would miss a node of fifty until the next push/pull.
const retransmits = 8

// Pace of the upkeep of the membership.
const (
	tickEvery   = time.Second
	minBackoff  = time.Second // of joining one node, and of opening the sockets
	maxBackoff  = 30 * time.Second
	joinsAtOnce = 3
	metaEvery   = 10 * time.Second // at most, plus as much by chance
	reportEvery = time.Minute
	aloneAfter  = 30 * time.Second
)
