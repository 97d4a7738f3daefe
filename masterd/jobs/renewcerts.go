package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// RenewLimit is how long a node that a renewal has not reached is waited for: the
// former authority, if that was changed, stays trusted for so long. A node that
// returns later is to be readded.
const RenewLimit = 30 * 24 * time.Hour

// Limits of a renewal of certificates. A node that does not answer costs no more
// than the first; one that answers and has not got the map yet has the second.
const (
	certLimit    = 5 * time.Second
	certPatience = 4 * time.Second
	certPause    = 50 * time.Millisecond
	certPasses   = 3  // nodes may join meanwhile
	certChunk    = 64 // nodes in one entry of the log
)

var errOffline = errors.New("it is offline")

// certRoll replaces certificates of nodes in phases, each of which is computed
// from the state and what the nodes answer: whoever goes on with it just begins
// it anew. See docs/renewal.rst.
type certRoll struct {
	*run
	since  time.Time      // certificates of before are replaced; zero: only what is due anyway
	only   cluster.NodeID // zero: all nodes
	onward bool           // there is no way back any more
	missed map[cluster.NodeID]error
}

// renewCertificates replaces the certificates of one node or of all.
func (r *run) renewCertificates(ctx context.Context, left *resume) error {
	g := &certRoll{run: r, since: left.Renew.Since, only: left.Renew.Node}
	if err := g.all(ctx); err != nil {
		return err
	}
	g.tell()
	return nil
}

func (g *certRoll) all(ctx context.Context) error {
	g.missed = map[cluster.NodeID]error{}
	for range certPasses {
		if err := g.pass(ctx); err != nil {
			return err
		}
		rest := slices.ContainsFunc(g.nodes(), func(n *state.Node) bool { return len(g.due(g.c.State(), n)) > 0 })
		if rest && g.stops() {
			return errCanceled
		}
		// What a node renewed by itself meanwhile leaves an old key listed.
		if !rest && !slices.ContainsFunc(g.nodes(), func(n *state.Node) bool { return len(pending(n)) > 0 }) {
			break
		}
	}
	return nil
}

// stops reports whether nothing new is to be begun.
func (g *certRoll) stops() bool { return !g.onward && g.canceling() }

// pass goes through all phases once. If it is to stop, it only brings to its end
// what is in the map already.
func (g *certRoll) pass(ctx context.Context) error {
	if !g.stops() {
		answers := g.prepare(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !g.stops() {
			if err := g.overlap(ctx, answers); err != nil {
				return err
			}
		}
	}
	used := g.install(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return g.retire(ctx, used)
}

// nodes are those that the renewal is about and that it has not failed to reach.
func (g *certRoll) nodes() (out []*state.Node) {
	for _, n := range g.c.State().SortedNodes() {
		if (g.only.IsZero() || n.UUID == g.only) && g.missed[n.UUID] == nil {
			out = append(out, n)
		}
	}
	return out
}

// each does something with many nodes at once, and notes which of them failed.
func (g *certRoll) each(ctx context.Context, nodes []*state.Node, do func(ctx context.Context, n *state.Node) error) {
	ctx, cancel := context.WithTimeout(ctx, certLimit)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() {
			err := errOffline
			if !n.Flags.Offline {
				err = patiently(ctx, func() error { return do(ctx, n) })
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				g.missed[n.UUID] = err
			}
		})
	}
	all.Wait()
}

// patiently tries again while a node has not got the newest map.
func patiently(ctx context.Context, do func() error) error {
	for end := time.Now().Add(certPatience); ; {
		err := do()
		if !notYet(err) && cluster.CodeOf(err) != cluster.CodeConflict || !time.Now().Before(end) {
			return err
		}
		select {
		case <-time.After(certPause):
		case <-ctx.Done():
			return err
		}
	}
}

// prepare has the nodes make keys for the certificates that are to be replaced.
func (g *certRoll) prepare(ctx context.Context) map[cluster.NodeID]rpc.CertPrepareReply {
	s := g.c.State()
	var nodes []*state.Node
	for _, n := range g.nodes() {
		if len(g.due(s, n)) > 0 {
			nodes = append(nodes, n)
		}
	}
	var mu sync.Mutex
	answers := map[cluster.NodeID]rpc.CertPrepareReply{}
	g.each(ctx, nodes, func(ctx context.Context, n *state.Node) error {
		reply, err := g.c.CertPrepare(ctx, n.UUID, rpc.CertPrepareRequest{Incarnation: n.Incarnation, Kinds: g.due(s, n)})
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			answers[n.UUID] = reply
		}
		return err
	})
	g.progress("prepare", len(answers), nodes)
	return answers
}

// overlap issues the certificates, and lists them beside those in use.
func (g *certRoll) overlap(ctx context.Context, answers map[cluster.NodeID]rpc.CertPrepareReply) error {
	s := g.c.State()
	ca, err := pki.ParseCA(s.CA.Cert, s.CA.Key)
	if err != nil {
		return err
	}
	i := issuing{s: s, ca: ca, at: g.c.Now(), pins: pinsOf(s)}
	if end := cutoff(g.since); !g.since.IsZero() && i.at.Before(end) {
		i.at = end // else it would be taken for one of before
	}
	var certs []state.NodeCerts
	for _, n := range g.nodes() {
		reply, ok := answers[n.UUID]
		if !ok {
			continue
		}
		made, err := i.all(n, g.due(s, n), reply.Requests)
		if err != nil {
			g.missed[n.UUID] = err
			continue
		}
		certs = append(certs, made...)
	}
	for chunk := range slices.Chunk(certs, 3*certChunk) {
		if err := g.commitCerts(ctx, state.NodesCerts{Certs: chunk}); err != nil {
			return err
		}
	}
	return nil
}

func (g *certRoll) commitCerts(ctx context.Context, body state.NodesCerts) error {
	_, err := (&roll{run: g.run}).commit(ctx, state.KindNodesCerts, func(u *state.JobUpdate) any { body.Job = u; return body })
	if errors.Is(err, state.ErrOvertaken) {
		return nil // what is left to do is found again
	}
	return err
}

// install has the nodes use what the map lists, and returns which certificates
// they confirmed to use. All must know all of it before: whoever did not would
// refuse, or not recognise, those who use it.
func (g *certRoll) install(ctx context.Context) map[cluster.NodeID][]rpc.InstalledCert {
	s := g.c.State()
	var nodes []*state.Node
	for _, n := range g.nodes() {
		if len(pending(n)) > 0 {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 {
		return nil
	}
	g.confirm(ctx, s)
	nodes = slices.DeleteFunc(nodes, func(n *state.Node) bool { return g.missed[n.UUID] != nil })
	var mu sync.Mutex
	used := map[cluster.NodeID][]rpc.InstalledCert{}
	g.each(ctx, nodes, func(ctx context.Context, n *state.Node) error {
		req := rpc.CertInstallRequest{Incarnation: n.Incarnation, Certificates: pending(n)}
		reply, err := g.c.CertInstall(ctx, n.UUID, req)
		if err != nil {
			return err
		}
		same := slices.EqualFunc(req.Certificates, reply.Used, func(c rpc.InstalledCert, d cluster.Digest) bool { return cluster.DigestOf(c.Certificate) == d })
		if !same {
			return fmt.Errorf("node %s uses other certificates than it was given", n.Name)
		}
		mu.Lock()
		defer mu.Unlock()
		used[n.UUID] = req.Certificates
		return nil
	})
	g.progress("switch", len(used), nodes)
	return used
}

// confirm waits until all nodes that answer go by the newest roster, also those
// that the renewal is not about. Of these, one that does not answer hinders
// nothing.
func (g *certRoll) confirm(ctx context.Context, s *state.State) {
	every := &certRoll{run: g.run, missed: map[cluster.NodeID]error{}}
	every.each(ctx, s.SortedNodes(), func(ctx context.Context, n *state.Node) error {
		if g.missed[n.UUID] != nil {
			return nil
		}
		reply, err := g.c.CertPrepare(ctx, n.UUID, rpc.CertPrepareRequest{Incarnation: n.Incarnation})
		if err == nil && reply.Roster != s.Roster().Hash() {
			err = cluster.Errorf(cluster.CodeConflict, "it does not go by the newest roster yet")
		}
		return err
	})
	for id, err := range every.missed {
		if n := s.Node(id); g.missed[id] == nil && (g.only.IsZero() || id == g.only) && len(pending(n)) > 0 {
			g.missed[id] = err
		}
	}
}

// retire lists the new certificates alone where they are in use, and marks the
// nodes where something is left to do.
func (g *certRoll) retire(ctx context.Context, used map[cluster.NodeID][]rpc.InstalledCert) error {
	s := g.c.State()
	var body state.NodesCerts
	for _, n := range s.SortedNodes() {
		if !g.only.IsZero() && n.UUID != g.only {
			continue
		}
		retired := 0
		for _, c := range used[n.UUID] {
			if !bytes.Equal(c.Certificate, certOf(n, c.Kind)) {
				continue // the node has renewed it by itself since
			}
			if pin, err := pinIn(n, c); err == nil {
				body.Certs = append(body.Certs, state.NodeCerts{Node: n.UUID, Kind: c.Kind, Pins: []cluster.Digest{pin}, Was: n.Pins(c.Kind)})
				retired++
			}
		}
		open := len(g.due(s, n)) > 0 || len(pending(n)) > retired
		switch {
		case open && n.RenewBefore.Before(g.since) && !g.stops():
			body.Stale = append(body.Stale, state.StaleNode{Node: n.UUID, Since: g.since})
		case !open && !n.RenewBefore.IsZero():
			body.Stale = append(body.Stale, state.StaleNode{Node: n.UUID})
		}
	}
	if len(body.Certs)+len(body.Stale) == 0 {
		return nil
	}
	return g.commitCerts(ctx, body)
}

// progress says how far a phase has got.
func (g *certRoll) progress(phase string, done int, nodes []*state.Node) {
	if len(nodes) == 0 {
		return
	}
	text := fmt.Sprintf("certificates: %s: %d of %d nodes", phase, done, len(nodes))
	for _, n := range nodes {
		if g.missed[n.UUID] != nil {
			text += "; " + string(n.Name) + " unreachable"
		}
	}
	g.update.Progress = append(g.update.Progress, text[:min(len(text), state.MaxLogText)])
}

// tell says what became of the nodes.
func (g *certRoll) tell() {
	s := g.c.State()
	all, open := 0, 0
	for _, n := range s.SortedNodes() {
		if !g.only.IsZero() && n.UUID != g.only {
			continue
		}
		all++
		if n.RenewBefore.IsZero() {
			continue
		}
		open++
		why := "it has not confirmed them"
		if err := g.missed[n.UUID]; err != nil {
			why = strings.ReplaceAll(err.Error(), "\n", "; ")
		}
		g.say(fmt.Sprintf(" - WARNING: Node %s keeps its old certificates until it answers, within %d days: %s", n.Name, RenewLimit/(24*time.Hour), why))
	}
	g.say(fmt.Sprintf(" - INFO: %d of %d nodes have new certificates", all-open, all))
}

// renewAhead bounds how far in the future certificates may have been issued: one
// of the second in which a renewal began is taken for one of the next, and masters'
// clocks differ. Those beyond it are of a clock that was wrong.
const renewAhead = 5 * time.Second

// renewSince is when a renewal begins: what was issued before is replaced, also
// what an earlier renewal issued within the same second.
func renewSince(s *state.State, now time.Time) time.Time {
	since := candmap.Stamp(now)
	ders := [][]byte{s.CA.Cert}
	for _, n := range s.Nodes {
		ders = append(ders, n.Certs.Server, n.Certs.Identity, n.Certs.Candidate)
	}
	for _, der := range ders {
		if cert, err := pki.ParseCertDER(der); err == nil {
			if at := pki.IssuedAt(cert); at.After(since) && !at.After(now.Add(renewAhead)) {
				since = at
			}
		}
	}
	return since
}

// replaced reports whether something that was issued then is older than a renewal,
// or later than any clock says.
func replaced(issued, since, now time.Time) bool {
	return issued.Before(cutoff(since)) || issued.After(now.Add(2*renewAhead))
}

// cutoff is the time from which on certificates are new: they tell whole seconds.
func cutoff(since time.Time) time.Time { return since.Truncate(time.Second).Add(time.Second) }

// due lists the kinds of certificates of a node that are to be replaced and that
// nothing new has been issued for.
func (g *certRoll) due(s *state.State, n *state.Node) []string {
	since := n.RenewBefore
	if since.Before(g.since) && (g.only.IsZero() || n.UUID == g.only) {
		since = g.since
	}
	return kindsDue(s, n, since, g.c.Now())
}

func kindsDue(s *state.State, n *state.Node, since, now time.Time) (kinds []string) {
	for _, kind := range kindsOf(n) {
		if certDue(s, n, kind, since, now) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

func kindsOf(n *state.Node) []string {
	kinds := []string{state.CertServer, state.CertIdentity}
	if n.Keys != nil {
		kinds = append(kinds, state.CertCandidate)
	}
	return kinds
}

func certDue(s *state.State, n *state.Node, kind string, since, now time.Time) bool {
	cert, err := pki.ParseCertDER(certOf(n, kind))
	if err != nil {
		return !since.IsZero()
	}
	id, err := pki.Identify(cert)
	if err != nil {
		return !since.IsZero()
	}
	if !since.IsZero() && replaced(id.Issued(), since, now) {
		return true
	}
	if ca, err := pki.ParseCertDER(s.CA.Cert); err == nil && !bytes.Equal(ca.SubjectKeyId, cert.AuthorityKeyId) {
		return true
	}
	// The others are renewed by the node itself.
	return kind == state.CertCandidate && (!now.Before(id.RenewAt()) || id.Name != n.Name || !slices.Equal(id.Addresses, n.Addresses))
}

func certOf(n *state.Node, kind string) []byte {
	switch kind {
	case state.CertServer:
		return n.Certs.Server
	case state.CertIdentity:
		return n.Certs.Identity
	}
	return n.Certs.Candidate
}

// pinIn is what the map or the roster knows a certificate by.
func pinIn(n *state.Node, c rpc.InstalledCert) (cluster.Digest, error) {
	pin := cluster.DigestOf(c.Certificate)
	if c.Kind != state.CertCandidate {
		cert, err := pki.ParseCertDER(c.Certificate)
		if err != nil {
			return pin, err
		}
		pin = pki.PinOf(cert)
	}
	if !slices.Contains(n.Pins(c.Kind), pin) {
		return pin, fmt.Errorf("the %s certificate of node %s is not listed", c.Kind, n.Name)
	}
	return pin, nil
}

// pending are the newest certificates of a node that are listed beside others.
func pending(n *state.Node) (certs []rpc.InstalledCert) {
	for _, kind := range kindsOf(n) {
		c := rpc.InstalledCert{Kind: kind, Certificate: certOf(n, kind)}
		if _, err := pinIn(n, c); err == nil && len(n.Pins(kind)) > 1 {
			certs = append(certs, c)
		}
	}
	return certs
}
