package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// renewCA changes the authority and with it the certificates of all nodes. No
// node is waited for: whoever is away is marked, and the former authority stays
// trusted until it is back.
func (r *run) renewCA(ctx context.Context, left *resume) error {
	since := left.Renew.Since
	if !caSince(r.c.State(), since, r.c.Now()) {
		if err := r.switchCA(ctx, since); err != nil {
			return err
		}
	}
	g := &certRoll{run: r, since: since, onward: true}
	if err := g.all(ctx); err != nil {
		return err
	}
	g.tell()
	return r.retireCA(ctx)
}

// caSince reports whether the authority that issues was made since then.
func caSince(s *state.State, since, now time.Time) bool {
	cert, err := pki.ParseCertDER(s.CA.Cert)
	return err == nil && !replaced(pki.IssuedAt(cert), since, now)
}

// switchCA has all nodes trust the next authority, and lets it issue.
func (r *run) switchCA(ctx context.Context, since time.Time) error {
	commit := func(c state.CAChange) error {
		_, err := (&roll{run: r}).commit(ctx, state.KindCAChange, func(u *state.JobUpdate) any { c.Job = u; return c })
		return err
	}
	if r.c.State().CA.Next == nil {
		if r.canceling() {
			return errCanceled
		}
		if len(r.c.State().CA.Old) > 0 { // an earlier change has not come to its end
			if err := r.endCA(ctx); err != nil {
				return err
			}
		}
		next, err := r.makeCA(since)
		if err != nil {
			return err
		}
		if err := commit(state.CAChange{Step: state.CAPrepare, Next: next}); err != nil {
			return err
		}
	}
	r.trusted(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case r.canceling():
		if err := commit(state.CAChange{Step: state.CAAbort}); err != nil {
			return err
		}
		return errCanceled
	}
	return commit(state.CAChange{Step: state.CASwitch})
}

func (r *run) makeCA(since time.Time) (*state.NextCA, error) {
	s := r.c.State()
	at := r.c.Now()
	if end := cutoff(since); at.Before(end) {
		at = end
	}
	ca, err := pki.NewCA(s.Cluster.UUID, s.Cluster.Name, at)
	if err != nil {
		return nil, err
	}
	key, err := ca.MarshalKey()
	return &state.NextCA{Cert: ca.Cert.Raw, Key: key}, err
}

// trusted waits until all nodes that answer trust all authorities.
func (r *run) trusted(ctx context.Context) {
	s := r.c.State()
	var want []cluster.Digest
	for _, der := range s.CA.Roots() {
		want = append(want, cluster.DigestOf(der))
	}
	g := &certRoll{run: r, missed: map[cluster.NodeID]error{}}
	nodes := s.SortedNodes()
	g.each(ctx, nodes, func(ctx context.Context, n *state.Node) error {
		reply, err := r.c.CertPrepare(ctx, n.UUID, rpc.CertPrepareRequest{Incarnation: n.Incarnation})
		if err == nil && !slices.Equal(reply.Roots, want) {
			err = cluster.Errorf(cluster.CodeConflict, "it does not trust the authorities of the roster yet")
		}
		return err
	})
	g.progress("trust in the next authority", len(nodes)-len(g.missed), nodes)
}

// endCA brings an earlier change of the authority to its end, or says why it
// cannot: three at once are none too many, but nobody can follow that.
func (r *run) endCA(ctx context.Context) error {
	g := &certRoll{run: r, onward: true}
	if err := g.all(ctx); err != nil {
		return err
	}
	if err := r.retireCA(ctx); err != nil {
		return err
	}
	if s := r.c.State(); len(s.CA.Old) > 0 {
		return fmt.Errorf("the former authority is still trusted because of %s; bring them back, remove or readd them", r.holders(s))
	}
	return nil
}

// retireCA ends the trust in the former authority, unless a node still needs it.
func (r *run) retireCA(ctx context.Context) error {
	s := r.c.State()
	if len(s.CA.Old) == 0 {
		return nil
	}
	if names := r.holders(s); len(names) > 0 {
		r.say(fmt.Sprintf(" - WARNING: The former authority stays trusted until it is needed no more, for at most %d days: %s", RenewLimit/(24*time.Hour), names))
		return nil
	}
	_, err := (&roll{run: r}).commit(ctx, state.KindCAChange, func(u *state.JobUpdate) any { return state.CAChange{Step: state.CARetire, Job: u} })
	if err == nil {
		r.say(" - INFO: The nodes trust the new authority alone")
	}
	return err
}

// holders are the nodes that the former authority is kept for.
func (r *run) holders(s *state.State) (names []cluster.Name) {
	for _, n := range s.SortedNodes() {
		if needsFormer(s, n, r.c.Now()) {
			names = append(names, n.Name)
		}
	}
	return names
}

func needsFormer(s *state.State, n *state.Node, now time.Time) bool {
	if !n.RenewBefore.IsZero() && now.Sub(n.RenewBefore) > RenewLimit {
		return false
	}
	return len(kindsDue(s, n, n.RenewBefore, now)) > 0 || !n.RenewBefore.IsZero() || len(pending(n)) > 0
}

// OpClusterRenewDue is the master's own: it renews certificates that are due, and
// those of nodes that a renewal has not reached, and their signing keys.
const OpClusterRenewDue = "OP_CLUSTER_RENEW_DUE"

func clusterRenewDue(ctx context.Context, r *run, _ json.RawMessage) (json.RawMessage, error) {
	if r.dry {
		r.wouldDo("renew certificates that are due")
		return json.RawMessage("null"), nil
	}
	left := &resume{Op: r.op, Results: [][2]string{}, Steps: []roles.Step{{Kind: stepRenewDue}}}
	return r.enact(ctx, left, func(u *state.JobUpdate) (string, any) { return state.KindJobUpdate, *u })
}

// stepRenewDue is what is left of it.
const stepRenewDue roles.StepKind = "renew-due"

func (r *run) renewDue(ctx context.Context) error {
	if r.c.State().CA.Next != nil { // of a change that is given up
		_, err := (&roll{run: r}).commit(ctx, state.KindCAChange, func(u *state.JobUpdate) any { return state.CAChange{Step: state.CAAbort, Job: u} })
		if err != nil {
			return err
		}
	}
	g := &certRoll{run: r, onward: true}
	if err := g.all(ctx); err != nil {
		return err
	}
	return errors.Join(r.renewMissedSigning(ctx), r.retireCA(ctx))
}

// CertsDue reports whether that would do something: reachable tells which nodes
// answer. Deep looks at the dates, too.
func CertsDue(s *state.State, now time.Time, reachable func(cluster.NodeID) bool, deep bool) bool {
	if s.FeatureLevel < state.LevelRenew {
		return false
	}
	needed := false
	for _, n := range s.Nodes {
		if !n.Flags.Offline && reachable(n.UUID) && (len(pending(n)) > 0 || !n.RenewBefore.IsZero() || n.Keys != nil && n.Keys.RenewSigning || deep && len(kindsDue(s, n, n.RenewBefore, now)) > 0) {
			return true
		}
		needed = needed || deep && len(s.CA.Old) > 0 && needsFormer(s, n, now)
	}
	return s.CA.Next != nil || deep && len(s.CA.Old) > 0 && !needed
}

// CADue reports whether the authority is to be changed: at two thirds of its
// life, so that no certificate is cut short by its end.
func CADue(s *state.State, now time.Time) bool {
	cert, err := pki.ParseCertDER(s.CA.Cert)
	return err == nil && s.CA.Next == nil && len(s.CA.Old) == 0 &&
		!now.Before(pki.RenewAt(cert.NotBefore, cert.NotAfter, pki.DigestOf(cert)))
}
