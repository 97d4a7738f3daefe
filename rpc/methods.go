package rpc

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"rolekey/candmap"
)

// Tier orders callers by what they may do. A caller of a tier may call the
// methods of all lower ones.
type Tier uint8

// The tiers.
const (
	TierOpen      Tier = iota // anybody who completes TLS
	TierMember                // a node of the roster, by its pinned identity
	TierCandidate             // a candidate of the map, by certificate digest
	TierMaster                // the candidate that the map names as master
)

var tierNames = [...]string{"open", "member", "candidate", "master"}

// String returns the tier's name.
func (t Tier) String() string {
	if int(t) < len(tierNames) {
		return tierNames[t]
	}
	return fmt.Sprintf("tier(%d)", uint8(t))
}

// Method is one call: where it is, who may make it, and its bounds. The server
// and the client use the same table, so that they cannot differ.
type Method struct {
	Name     string
	Verb     string
	Path     string // may hold one variable, such as /v1/roster/{hash}
	Query    string // the query parameter that carries the argument when Path has no variable
	Tier     Tier
	Stale    bool          // served although the map is stale
	Ended    bool          // served to, and asked of, members whose certificates have ended: it is how they get others
	Mutating bool          // changes the node: stamped, and made through Effect
	Delivers bool          // may change the map, and so revoke its own connection: see Revoke
	MaxBody  int64         // bytes of the request's body
	MaxReply int64         // bytes of the answer that a client accepts
	Timeout  time.Duration // of the whole call
}

// Bounds of bodies. A delivery holds whole maps, in base64 within base64; what
// does not fit into one is delivered, or fetched, in several calls.
const (
	smallBody    = 64 << 10
	beaconBody   = 16 << 10
	deliveryBody = 32 << 20
	raftBody     = 1 << 30 // a snapshot; the handler reads it as a stream
)

// Times of calls. The slow ones wait for disks, sshd, or a whole snapshot.
const (
	quickCall = 10 * time.Second
	slowCall  = 60 * time.Second
	raftCall  = 5 * time.Minute
)

// The methods of noded.
var (
	MethodVersion    = Method{Name: "version", Verb: http.MethodGet, Path: "/v1/version", Stale: true, Timeout: quickCall}
	MethodHealth     = Method{Name: "health", Verb: http.MethodGet, Path: "/v1/health", Stale: true, Timeout: quickCall}
	MethodMapPut     = Method{Name: "map-put", Verb: http.MethodPut, Path: "/v1/map", Stale: true, Delivers: true, MaxBody: deliveryBody, Timeout: slowCall}
	MethodBeaconPut  = Method{Name: "beacon-put", Verb: http.MethodPut, Path: "/v1/beacon", Stale: true, Delivers: true, MaxBody: beaconBody, Timeout: quickCall}
	MethodMapGet     = Method{Name: "map-get", Verb: http.MethodGet, Path: "/v1/map", Query: "from", Tier: TierMember, Stale: true, Ended: true, MaxReply: deliveryBody, Timeout: slowCall}
	MethodRosterGet  = Method{Name: "roster-get", Verb: http.MethodGet, Path: "/v1/roster/{hash}", Tier: TierMember, Stale: true, Ended: true, MaxReply: 2 * candmap.MaxBucket, Timeout: slowCall}
	MethodState      = Method{Name: "state", Verb: http.MethodGet, Path: "/v1/state", Tier: TierCandidate, MaxReply: 4 << 20, Timeout: slowCall}
	MethodFacts      = Method{Name: "facts", Verb: http.MethodPost, Path: "/v1/facts", Tier: TierMaster, MaxBody: 1 << 20, MaxReply: 4 << 20, Timeout: slowCall}
	MethodKeyCreate  = Method{Name: "key-create", Verb: http.MethodPost, Path: "/v1/key/create", Tier: TierMaster, Mutating: true, MaxBody: smallBody, Timeout: slowCall}
	MethodKeyDestroy = Method{Name: "key-destroy", Verb: http.MethodPost, Path: "/v1/key/destroy", Tier: TierMaster, Mutating: true, MaxBody: smallBody, Timeout: slowCall}
	MethodRepair     = Method{Name: "repair", Verb: http.MethodPost, Path: "/v1/repair", Tier: TierMaster, Mutating: true, MaxBody: smallBody, Timeout: slowCall}
	MethodHooks      = Method{Name: "hooks", Verb: http.MethodPost, Path: "/v1/hooks", Tier: TierMaster, Mutating: true, MaxBody: smallBody, Timeout: slowCall}
	MethodProbe      = Method{Name: "probe", Verb: http.MethodPost, Path: "/v1/probe", Tier: TierMaster, MaxBody: smallBody, MaxReply: smallBody, Timeout: slowCall}
	MethodSSHProbe   = Method{Name: "ssh-probe", Verb: http.MethodPost, Path: "/v1/ssh/probe", Tier: TierMaster, MaxBody: 8 << 20, MaxReply: 4 << 20, Timeout: raftCall}
	MethodSSHSettle  = Method{Name: "ssh-settle", Verb: http.MethodPost, Path: "/v1/ssh/settle", Tier: TierMaster, MaxBody: smallBody, Timeout: quickCall}
)

// Those that renew certificates of a node.
var (
	MethodCertPrepare = Method{Name: "certificate-prepare", Verb: http.MethodPost, Path: "/v1/certificate/prepare", Tier: TierMaster, Mutating: true, MaxBody: smallBody, Timeout: slowCall}
	MethodCertInstall = Method{Name: "certificate-install", Verb: http.MethodPost, Path: "/v1/certificate/install", Tier: TierMaster, Mutating: true, MaxBody: smallBody, Timeout: slowCall}
)

// The methods of masterd.
var (
	MethodAdmit       = Method{Name: "admit", Verb: http.MethodPost, Path: "/v1/admit", MaxBody: smallBody, MaxReply: 128 << 20, Timeout: slowCall}
	MethodCertificate = Method{Name: "certificate", Verb: http.MethodPost, Path: "/v1/certificate", Tier: TierMember, Ended: true, MaxBody: smallBody, Timeout: slowCall}
	MethodSign        = Method{Name: "sign", Verb: http.MethodPost, Path: "/v1/sign", Tier: TierCandidate, Stale: true, MaxBody: smallBody, Timeout: quickCall}
	MethodRaft        = Method{Name: "raft", Verb: http.MethodPost, Path: "/v1/raft/{message}", Tier: TierCandidate, Stale: true, MaxBody: raftBody, MaxReply: 1 << 20, Timeout: raftCall}
	MethodHostKeys    = Method{Name: "host-keys", Verb: http.MethodPost, Path: "/v1/hostkeys", Tier: TierMember, MaxBody: smallBody, Timeout: slowCall}
	MethodSeen        = Method{Name: "seen", Verb: http.MethodGet, Path: "/v1/seen", Query: "node", Tier: TierCandidate, Stale: true, Timeout: quickCall}
)

// NodedMethods are all methods of noded, in the order of docs/rpc.rst.
func NodedMethods() []Method {
	return []Method{
		MethodVersion, MethodHealth, MethodMapPut, MethodBeaconPut, MethodMapGet,
		MethodRosterGet, MethodState, MethodFacts, MethodKeyCreate, MethodKeyDestroy, MethodCertPrepare, MethodCertInstall, MethodRepair, MethodHooks, MethodSSHProbe, MethodSSHSettle, MethodProbe,
	}
}

// MasterdMethods are all methods of masterd.
func MasterdMethods() []Method {
	return []Method{MethodAdmit, MethodCertificate, MethodHostKeys, MethodSign, MethodRaft, MethodSeen, MethodVersion}
}

// variable returns the name of the variable in Path, or "".
func (m *Method) variable() string {
	_, rest, _ := strings.Cut(m.Path, "{")
	name, _, _ := strings.Cut(rest, "}")
	return name
}

// holds reports whether a call by a peer of the tier may take so much memory,
// or so much time to send its body, that few of them may be in flight. A
// stranger's connection without such a call may be closed for another one.
func (m *Method) holds(tier Tier) bool {
	return m.MaxBody > smallBody || m.MaxReply > smallBody || tier == TierOpen && m.MaxBody > 0
}

// maxReply returns the bound of the answer.
func (m *Method) maxReply() int64 { return max(m.MaxReply, smallBody) }
