package noded

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/buildinfo"
	"rolekey/pki"
	"rolekey/rpc"
)

const (
	admissionRounds = 10
	admissionPause  = time.Second
)

// admission asks candidates of a cluster, which it knows by the hash of one map
// alone, for a place in it.
type admission struct {
	token            pki.TokenFields
	body             rpc.AdmitBody
	server, identity csr
	client           *rpc.Client
	now              func() time.Time
	needHostKeys     error // why there are none; nil if there are
}

// welcome is a reply that was verified.
type welcome struct {
	reply  rpc.AdmitReply
	pinned candmap.Envelope
	chain  []candmap.Envelope
	newest *candmap.Verified
	self   *candmap.RosterNode
	cas    [][]byte // DER, of the authorities to trust
}

func (d *Daemon) newAdmission(ctx context.Context, t pki.TokenFields, addrs []netip.Addr) (*admission, error) {
	a := &admission{token: t, now: d.cfg.now}
	var err error
	if a.server, a.identity, err = prepare(d.joinDir()); err != nil {
		return nil, err
	}
	a.body = rpc.AdmitBody{
		Record: t.Record, Name: t.Name, Addresses: addrs,
		Server: a.server.der, Identity: a.identity.der, Software: buildinfo.Version(), Features: cluster.FeatureLevel,
	}
	set, err := d.ssh.get(ctx)
	a.body.Ports = set.ports(&d.cfg)
	if err == nil {
		a.body.HostKeys = set.hostKeys
		if len(set.hostKeys) == 0 {
			err = errors.New("sshd has no host keys that can be used")
		}
	}
	a.needHostKeys = err
	a.client, err = rpc.NewClient(rpc.ClientConfig{LocalAddr: addrs[0], Dial: d.cfg.Dial, Log: d.log})
	return a, err
}

// errNotYet says that asking again soon may help.
var errNotYet = errors.New("the cluster has no master in office at present")

// run finds the master and asks it. Whom it asks has proved before to be a
// candidate of the map that the string pins, or of one that follows from it.
func (a *admission) run(ctx context.Context) (*welcome, error) {
	for round := 1; ; round++ {
		w, err := a.round(ctx)
		if !errors.Is(err, errNotYet) || round == admissionRounds {
			return w, err
		}
		if err := pause(ctx, admissionPause, nil); err != nil {
			return nil, err
		}
	}
}

// round asks every candidate of the string, and whom they call master.
func (a *admission) round(ctx context.Context) (*welcome, error) {
	queue := slices.Clone(a.token.Candidates)
	var tried []netip.AddrPort
	var reasons []string
	met := false
	for len(queue) > 0 {
		to := queue[0]
		queue = queue[1:]
		if slices.Contains(tried, to) {
			continue
		}
		tried = append(tried, to)
		w, next, err := a.ask(ctx, to)
		switch {
		case err == nil && w != nil:
			return w, nil
		case err == nil:
			met, queue = true, append(next, queue...)
		case errors.Is(err, errNotYet):
			met, queue = true, append(next, queue...)
			reasons = append(reasons, fmt.Sprintf("%s: %v", to, err))
		case cluster.CodeOf(err) == cluster.CodeUnavailable && ctx.Err() == nil:
			reasons = append(reasons, err.Error())
		default:
			return nil, err
		}
	}
	err := unreachable(tried, reasons)
	if met {
		return nil, fmt.Errorf("%w: %w", errNotYet, err)
	}
	return nil, err
}

// ask speaks to one address. Without a welcome it returns where the master is.
func (a *admission) ask(ctx context.Context, to netip.AddrPort) (*welcome, []netip.AddrPort, error) {
	conn, err := a.client.DialAdmission(ctx, to, nil)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	w, node, err := a.meet(ctx, conn, to)
	if cluster.CodeOf(err) == cluster.CodeBusy {
		err = fmt.Errorf("%w: %w", errNotYet, err) // many nodes join at once
	}
	if err != nil {
		return nil, nil, err
	}
	if node != w.newest.Master {
		return nil, masterAddresses(w.newest), nil
	}
	if a.needHostKeys != nil && wantsSSH(&candmap.View{Map: w.newest}) {
		return nil, nil, cluster.Errorf(cluster.CodeUnavailable, "SSH cannot be set up on this node: %v", a.needHostKeys).
			WithHint("install and configure sshd, or write [ssh] into noded.toml; the admission string is still good")
	}
	err = a.apply(ctx, conn, w)
	switch cluster.CodeOf(err) {
	case cluster.CodeNotMaster, cluster.CodeNoQuorum, cluster.CodeUnavailable, cluster.CodeBusy:
		return nil, nil, fmt.Errorf("%w: %w", errNotYet, err)
	}
	return w, nil, err
}

func masterAddresses(m *candmap.Verified) []netip.AddrPort {
	var list []netip.AddrPort
	if c := m.Candidate(m.Master); c != nil {
		for _, addr := range c.Addresses {
			list = append(list, netip.AddrPortFrom(addr, c.MasterdPort))
		}
	}
	return list
}

// meet makes the first call, which tells nothing but the pin, and verifies
// that the server is a candidate.
func (a *admission) meet(ctx context.Context, conn *rpc.AdmissionConn, to netip.AddrPort) (*welcome, cluster.NodeID, error) {
	w := &welcome{}
	if err := conn.Call(ctx, rpc.MethodAdmit, "", rpc.AdmitRequest{Pin: a.token.MapPin}, &w.reply); err != nil {
		return nil, cluster.NodeID{}, err
	}
	if err := w.follow(a.token); err != nil {
		return nil, cluster.NodeID{}, impostor(to, err)
	}
	node, err := w.candidate(conn.State())
	if err != nil {
		return nil, cluster.NodeID{}, impostor(to, err)
	}
	return w, node, nil
}

func impostor(to netip.AddrPort, err error) error {
	return cluster.Errorf(cluster.CodeIdentityMismatch, "the server at %s is not a candidate of the cluster that the admission string names: %v", to, err).
		WithHint("an impostor may be at that address; nothing secret was told. Find out who answers there; the admission string is still good")
}

// follow verifies the maps of a reply from the pinned one on.
func (w *welcome) follow(t pki.TokenFields) error {
	at := slices.IndexFunc(w.reply.Maps, func(e candmap.Envelope) bool { return e.Hash() == t.MapPin })
	if at < 0 {
		return errors.New("it does not show the map that the string pins")
	}
	first, err := candmap.Genesis(w.reply.Maps[at], t.MapPin)
	if err != nil {
		return err
	}
	if first.Cluster != t.Cluster {
		return fmt.Errorf("the map is of cluster %s", first.Cluster)
	}
	newest, taken, err := candmap.FollowChain(first, w.reply.Maps[at+1:])
	if err != nil && !errors.Is(err, candmap.ErrKnown) {
		return err
	}
	w.pinned, w.chain, w.newest = w.reply.Maps[at], taken, newest
	return nil
}

// candidate returns whose certificate the server has, by the newest map.
func (w *welcome) candidate(cs tls.ConnectionState) (cluster.NodeID, error) {
	if len(cs.PeerCertificates) != 1 {
		return cluster.NodeID{}, fmt.Errorf("it showed %d certificates", len(cs.PeerCertificates))
	}
	cert := cs.PeerCertificates[0]
	id, err := pki.Identify(cert)
	if err != nil {
		return cluster.NodeID{}, err
	}
	c := w.newest.ByClient(pki.DigestOf(cert))
	if c == nil || id.Kind != pki.KindCandidate || id.Node != c.UUID {
		return cluster.NodeID{}, errors.New("its certificate is not in the candidate map")
	}
	return c.UUID, nil
}

// apply makes the second call: the request, and the proof of the string over
// this very connection. What it answers is verified against what is known.
func (a *admission) apply(ctx context.Context, conn *rpc.AdmissionConn, w *welcome) error {
	raw, err := json.Marshal(a.body)
	if err != nil {
		return fmt.Errorf("encode admission request: %w", err)
	}
	cs := conn.State()
	claim := pki.Claim{Cluster: a.token.Cluster, Record: a.token.Record, Name: a.token.Name, Request: cluster.DigestOf(raw)}
	if claim.Exporter, err = pki.Exporter(&cs); err != nil {
		return err
	}
	proof, err := pki.Prove(a.token.Seed, claim)
	if err != nil {
		return err
	}
	var reply rpc.AdmitReply
	if err := conn.Call(ctx, rpc.MethodAdmit, "", rpc.AdmitRequest{Pin: a.token.MapPin, Request: raw, Proof: proof}, &reply); err != nil {
		return err
	}
	w.reply = reply
	if err := w.follow(a.token); err != nil {
		return fmt.Errorf("check admission: %w", err)
	}
	if err := a.check(w, cs.PeerCertificates); err != nil {
		return fmt.Errorf("check admission: %w", err)
	}
	return nil
}

// check finds this node, with its own keys, in the roster that the verified
// map names, and the server's certificate below an authority that the roster
// names: while that is changed there are two, and the node's own certificates may
// be of either. A cluster of a lower feature level has one, which is sent along.
func (a *admission) check(w *welcome, server []*x509.Certificate) error {
	docs := map[cluster.Digest][]byte{}
	for _, d := range w.reply.Docs {
		docs[cluster.DigestOf(d)] = d
	}
	roster, err := candmap.AssembleRoster(w.newest.Roster, func(d cluster.Digest) []byte { return docs[d] })
	if err != nil {
		// The map moved on between its parts; the same request is answered again.
		return cluster.Errorf(cluster.CodeUnavailable, "%v", err)
	}
	w.self = roster.Node(w.reply.Node)
	switch {
	case w.self == nil || w.self.Name != a.token.Name:
		return cluster.Errorf(cluster.CodeIdentityMismatch, "the roster does not list this node")
	case !slices.Contains(w.self.Server, a.server.pin) || !slices.Contains(w.self.Identity, a.identity.pin):
		return cluster.Errorf(cluster.CodeIdentityMismatch, "the roster lists other keys for this node than its own")
	}
	if w.newest.ByClient(pki.DigestOf(server[0])) == nil {
		return cluster.Errorf(cluster.CodeUnavailable, "the master's certificate is replaced at this moment")
	}
	w.cas = [][]byte{w.reply.CA}
	if s := roster.Settings(); s != nil && len(s.CA) > 0 {
		w.cas = s.CA
	}
	roots, err := rootsOf(w.cas)
	if err == nil {
		_, err = pki.VerifyChain(roots, server, pki.KindCandidate, a.now())
	}
	if err != nil {
		return cluster.Errorf(cluster.CodeIdentityMismatch, "the CA that was sent is not the one that issued the master's certificate: %v", err).
			WithHint("nothing was installed; the admission string is still good for this node")
	}
	return nil
}
