package rpc

import (
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
)

// Peer is what TLS proved of the other end of a connection. Digest, Pin and
// Identity mean something only with HasCert, which says that a certificate of
// our CA was presented and that its key is the peer's.
type Peer struct {
	HasCert  bool
	Digest   cluster.Digest // SHA-256 of the certificate in DER
	Pin      cluster.Digest // SHA-256 of its SubjectPublicKeyInfo
	Identity pki.Identity
}

// Grant is what one view of the cluster allows a peer.
type Grant struct {
	Tier   Tier
	Node   cluster.NodeID // the peer's; zero when it proved none
	Digest cluster.Digest // of its certificate
	Lack   cluster.Code   // why the tier is not higher; "" for the master

	// Ended says that the certificate has, not long ago, and that nothing is left
	// but to get others with it. Only a member has that.
	Ended bool

	gone *cluster.Error // why nothing is left of the grant; nil: it has not ended
}

// until takes from a grant what it has by a certificate that has ended. The pin
// in the roster is what makes a member, and it is still there: so a member may
// get what it needs to become one again. A candidate may nothing more.
func (g *Grant) until(id *pki.Identity, now time.Time) {
	switch {
	case g.Tier == TierOpen || !id.Ended(now):
	case g.Tier > TierMember:
		*g = Grant{Lack: cluster.CodeNoCertificate, gone: errExpired}
	case id.Lapsed(now):
		*g = Grant{Lack: cluster.CodeNoCertificate, gone: errLapsed}
	default:
		g.Ended = true
	}
}

// Classify grants a peer its tier. It is pure, total, and does not allocate.
//
// A candidate is recognised by the exact digest of its certificate, a member
// by the pinned key of its identity. In both cases the map's or roster's UUID
// and the certificate's must agree: a digest that reached another node's entry
// proves nothing.
func Classify(view *candmap.View, peer *Peer) Grant {
	if !peer.HasCert {
		return Grant{Lack: cluster.CodeNoCertificate}
	}
	g := Grant{Node: peer.Identity.Node, Digest: peer.Digest}
	if view == nil || view.Map == nil {
		g.Lack = cluster.CodeNoMap
		return g
	}
	if peer.Identity.Kind == pki.KindIdentity {
		g.member(view, peer)
	} else {
		g.candidate(view, peer)
	}
	return g
}

func (g *Grant) candidate(view *candmap.View, peer *Peer) {
	entry := view.Map.ByClient(peer.Digest)
	switch {
	case entry == nil:
		g.Lack = cluster.CodeNotInMap
	case entry.UUID != peer.Identity.Node || entry.UUID.IsZero() || peer.Identity.Kind != pki.KindCandidate:
		g.Lack = cluster.CodeIdentityMismatch
	case entry.UUID == view.Map.Master:
		g.Tier = TierMaster
	default:
		g.Tier, g.Lack = TierCandidate, cluster.CodeNotMaster
	}
}

func (g *Grant) member(view *candmap.View, peer *Peer) {
	if view.Roster == nil {
		g.Lack = cluster.CodeNotInRoster
		return
	}
	node := view.Roster.ByIdentity(peer.Pin)
	switch {
	case node == nil:
		g.Lack = cluster.CodeNotInRoster
	case node.UUID != peer.Identity.Node || node.UUID.IsZero():
		g.Lack = cluster.CodeIdentityMismatch
	case view.Map.ByClient(peer.Digest) != nil:
		g.Lack = cluster.CodeIdentityMismatch // an identity never stands in the map
	default:
		g.Tier, g.Lack = TierMember, cluster.CodeNotInMap
	}
}

// Allow decides whether a peer with this grant may call the method now. It
// returns nil, or the refusal. Accepting does not allocate.
func (g *Grant) Allow(m *Method, view *candmap.View, fresh bool) *cluster.Error {
	if g.Tier < m.Tier {
		return g.refuse(m)
	}
	if g.Ended && m.Tier > TierOpen && !m.Ended {
		return errExpired
	}
	if m.Tier == TierOpen || m.Stale {
		return nil
	}
	if m.Tier >= TierCandidate && !fresh && view.Map.Policy != cluster.PolicyBestEffort {
		return cluster.Errorf(cluster.CodeMapStale, "the candidate map %s is stale here, so nobody is trusted by it", view.Map.At()).
			WithHint("the node hears no beacon: check the network between it and the master")
	}
	return nil
}

// refuse explains what the grant lacks for the method.
func (g *Grant) refuse(m *Method) *cluster.Error {
	switch {
	case g.gone != nil:
		return g.gone
	case g.Ended:
		return errExpired
	case g.Lack == cluster.CodeNotInRoster && m.Tier >= TierCandidate:
		// Whoever asks for what a candidate may do is told about the map.
		return lacks[cluster.CodeNotInMap]
	case g.Lack == cluster.CodeNotInMap && m.Tier == TierMember:
		// A certificate of a former candidate, asking for what a member may do.
		return lacks[cluster.CodeNotInRoster]
	}
	return lacks[g.Lack]
}

var (
	errExpired = cluster.Errorf(cluster.CodeNoCertificate, "the caller's certificate has expired").
			WithHint("the node renews it by itself; if not, check its clock and its log")
	errLapsed = cluster.Errorf(cluster.CodeNoCertificate, "the caller's certificate has expired more than %d days ago, and is good for nothing", pki.Grace/(24*time.Hour)).
			WithHint(Readd)
)

// Readd is what is left to do for a node that was away for too long.
const Readd = "the node was away for too long and is to be admitted again: gnt-node add --readd NAME on the master, noded leave --yes and noded join on the node"

// lacks are the texts of the refusals; they are never changed, only copied.
var lacks = map[cluster.Code]*cluster.Error{
	cluster.CodeNoCertificate:    cluster.Errorf(cluster.CodeNoCertificate, "this call needs a client certificate of the cluster"),
	cluster.CodeNoMap:            cluster.Errorf(cluster.CodeNoMap, "this node holds no candidate map").WithHint("it is new, or its map was lost; the master delivers one"),
	cluster.CodeNotInRoster:      cluster.Errorf(cluster.CodeNotInRoster, "the certificate's key is not in the roster"),
	cluster.CodeNotInMap:         cluster.Errorf(cluster.CodeNotInMap, "the certificate is not in the candidate map"),
	cluster.CodeIdentityMismatch: cluster.Errorf(cluster.CodeIdentityMismatch, "the certificate belongs to another node or another use than its place in the map"),
	cluster.CodeEvicted:          cluster.Errorf(cluster.CodeEvicted, "root on this node has evicted the caller").WithHint("gnt-cluster evict --list on this node shows it, gnt-cluster evict --undo NODE takes it back"),
	cluster.CodeNotMaster:        cluster.Errorf(cluster.CodeNotMaster, "only the master may do this"),
}
