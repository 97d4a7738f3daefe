package rpc

import "rolekey/cluster"

// MaxProbeTargets bounds the targets of one probe.
const MaxProbeTargets = 64

// ProbeRequest asks a node to attempt what the targets must refuse. It looks up
// itself where they are: the request gives it no way to anybody else.
type ProbeRequest struct {
	// Calls are nodes whose noded is asked for what only a candidate may read,
	// once with this node's identity certificate and once with none.
	Calls []cluster.NodeID `json:"calls"`
	// Logins are nodes whose sshd is offered a key that is made for the purpose
	// and thrown away, so that nobody can have authorized it.
	Logins []cluster.NodeID `json:"logins"`
}

// ProbeReply has one result for each target, in order.
type ProbeReply struct {
	Calls  []ProbedCall  `json:"calls"`
	Logins []ProbedLogin `json:"logins"`
}

// ProbedCall tells how a node answered. A code is ProbeServed when the call was
// served, which it must not be.
type ProbedCall struct {
	Node     cluster.NodeID `json:"node"`
	Identity cluster.Code   `json:"identity"` // with the identity certificate
	Nothing  cluster.Code   `json:"nothing"`  // without a certificate
	Error    string         `json:"error,omitempty"`
}

// ProbeServed is the code of a call that was not refused.
const ProbeServed cluster.Code = "served"

// LoginOutcome is what became of a login that must fail.
type LoginOutcome string

// The outcomes of a login that must fail.
const (
	LoginRefused   LoginOutcome = "refused"   // sshd asked for a public key and did not take it
	LoginAdmitted  LoginOutcome = "admitted"  // it let the stranger in
	LoginUndecided LoginOutcome = "undecided" // it did not come to that
	LoginCutOff    LoginOutcome = "cut_off"   // sshd could not be reached: a firewall, or nobody listens
)

// ProbedLogin tells what a sshd did.
type ProbedLogin struct {
	Node    cluster.NodeID `json:"node"`
	Outcome LoginOutcome   `json:"outcome"`
	Error   string         `json:"error,omitempty"`
	// AgeSeconds is how long ago that was, rounded up; 0: it was tried now. A node
	// repeats no failing login within 15 s, and tells again what it saw.
	AgeSeconds int `json:"age_seconds,omitempty"`
}
