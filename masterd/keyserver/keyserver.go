// Package keyserver admits new nodes and issues certificates to nodes that
// have been admitted. It decides from the replicated state alone, and every
// decision is one committed command, so that it survives a change of master.
//
// Guarantees: a request is admitted only by a holder of the admission string,
// over the very connection that proved it; a string binds one key, by
// compare-and-set, after everything else was checked; a lost reply can be asked
// for again with the same key; nothing secret arrives here. A member gets
// certificates for its own name and addresses only, whatever its CSR says, and
// changes host keys of its own sshd only.
//
// A Server may be used concurrently.
package keyserver

import (
	"context"
	"net/netip"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
)

// Master is the elected master that the keyserver works for.
type Master interface {
	// State returns the newest applied state.
	State() *state.State
	// Ready returns nil if this node is master and in office, or an error
	// that names the master.
	Ready() error
	// Change commits a command and publishes the map that it yields.
	Change(ctx context.Context, kind string, body any, actor, request string) (state.Result, error)
	// Added queues the job that follows the admission of a node.
	Added(ctx context.Context, name cluster.Name, request string) error
	// Chain returns what proves the newest map to a node that holds only the
	// version given.
	Chain(from cluster.Version) []candmap.Envelope
	// Beacon returns the newest beacon, if any.
	Beacon() (candmap.Envelope, bool)
}

// Server is the keyserver.
type Server struct {
	master Master
	now    func() time.Time
	claims pace
}

// New makes a keyserver.
func New(m Master, now func() time.Time) *Server { return &Server{master: m, now: now} }

// Call is what the transport knows of a request.
type Call struct {
	Remote   netip.Addr
	Request  string // its id
	Exporter [pki.ExporterSize]byte
	Node     cluster.NodeID // the authenticated caller; zero for a stranger
	Pin      cluster.Digest // of the caller's identity key
	Ended    bool           // the caller's certificate has ended: it gets others, and nothing else
}

// issuer opens the cluster's CA.
func issuer(s *state.State) (*pki.CA, error) { return pki.ParseCA(s.CA.Cert, s.CA.Key) }
