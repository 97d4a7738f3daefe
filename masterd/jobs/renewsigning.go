package jobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// renewSigning replaces the keys by which candidates sign maps. Each makes a
// next one beside its own; one map then lists them all, which a majority of the
// old and of the new keys signs: each voter with both of its own. Whatever
// majority is there can do that, also one whose other members kept their key.
// When that map is published the old keys are destroyed.
// A candidate that does not answer is marked, and gets its new key when it does.
func (r *run) renewSigning(ctx context.Context, left *resume) error {
	return r.replaceSigning(ctx, left, false)
}

// renewMissedSigning replaces the signing keys of marked candidates.
func (r *run) renewMissedSigning(ctx context.Context) error {
	left := &resume{Renew: &renewal{}}
	for _, n := range r.c.State().Candidates() {
		if n.Keys.RenewSigning {
			left.Renew.Signing = append(left.Renew.Signing, cluster.DigestOf(n.Keys.Signing))
		}
	}
	if len(left.Renew.Signing) == 0 {
		return nil
	}
	return r.replaceSigning(ctx, left, true)
}

// replaceSigning replaces the keys that are noted; marked says that those who
// have them are marked already.
func (r *run) replaceSigning(ctx context.Context, left *resume, marked bool) error {
	if len(r.unsigned(left)) > 0 {
		if r.canceling() {
			return errCanceled // a next key that no map lists is none
		}
		fresh, missed := r.prepareSigning(ctx, left)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.toldOf("signing keys: prepare", len(fresh)+len(missed), r.named(missed))
		if r.canceling() {
			return errCanceled
		}
		if err := r.listSigning(ctx, fresh, missed, marked); err != nil {
			return err
		}
		for _, m := range r.named(missed) {
			r.say(fmt.Sprintf(" - WARNING: Node %s; it keeps its old signing key until it answers and the master has replaced it", m))
		}
	}
	return r.retireSigning(ctx, left)
}

// unsigned are the candidates whose key is still the one that is to be replaced.
func (r *run) unsigned(left *resume) (nodes []*state.Node) {
	for _, n := range r.c.State().Candidates() {
		if slices.Contains(left.Renew.Signing, cluster.DigestOf(n.Keys.Signing)) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// prepareSigning has candidates make their next key, and says which did not.
func (r *run) prepareSigning(ctx context.Context, left *resume) (fresh map[cluster.NodeID]candmap.SigningKey, missed map[cluster.NodeID]error) {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	s := r.c.State()
	fresh, missed = map[cluster.NodeID]candmap.SigningKey{}, map[cluster.NodeID]error{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, n := range r.unsigned(left) {
		all.Go(func() {
			key, err := r.nextSigning(ctx, s, n)
			mu.Lock()
			defer mu.Unlock()
			if taken := slices.ContainsFunc(s.Candidates(), func(o *state.Node) bool { return bytes.Equal(o.Keys.Signing, key) }); err == nil && taken {
				err = errors.New("it answers with a key that the map lists already")
			}
			if err != nil {
				missed[n.UUID] = err
				return
			}
			fresh[n.UUID] = key
		})
	}
	all.Wait()
	return fresh, missed
}

func (r *run) nextSigning(ctx context.Context, s *state.State, n *state.Node) (candmap.SigningKey, error) {
	req := KeyRequest(s, n, n.Certs.Candidate)
	req.Signing = &rpc.SigningOrder{Avoid: []candmap.SigningKey{n.Keys.Signing}}
	keys, err := patient{r.c, notYet}.KeyCreate(ctx, n.UUID, req)
	if err != nil {
		return nil, err
	}
	return keys.Signing, pki.CheckPossession(keys.Signing.Public(), s.Cluster.UUID, n.UUID, n.Incarnation, keys.Possession)
}

// named says what went wrong with nodes.
func (r *run) named(missed map[cluster.NodeID]error) (list []string) {
	for id, err := range missed {
		list = append(list, fmt.Sprintf("%s: %v", r.name(id), err))
	}
	slices.Sort(list)
	return list
}

// listSigning lists the next keys, in one map, and marks those who have none.
func (r *run) listSigning(ctx context.Context, fresh map[cluster.NodeID]candmap.SigningKey, missed map[cluster.NodeID]error, marked bool) error {
	s := r.c.State()
	var body state.NodesCerts
	voters, ready := 0, 0
	for _, n := range s.Candidates() {
		key, ok := fresh[n.UUID]
		if n.Voter {
			voters++
		}
		if !ok {
			if missed[n.UUID] != nil && !marked {
				body.Stale = append(body.Stale, state.StaleNode{Node: n.UUID, Signing: true})
			}
			continue
		}
		if n.Voter {
			ready++
		}
		body.Certs = append(body.Certs, state.NodeCerts{Node: n.UUID, Kind: state.CertSigning, Signing: key})
	}
	switch {
	case len(body.Certs) == 0 && marked:
		return nil
	case len(body.Certs) == 0:
		return errors.New("no master candidate has made a new one")
	case !marked && ready > 0 && ready <= voters/2 && len(fresh) > 1: // of a renewal for all
		return fmt.Errorf("only %d of %d voters have made a new one; a majority must", ready, voters)
	}
	u := r.update
	body.Job = &u
	spread, err := r.c.Change(ctx, state.KindNodesCerts, body, r.job.Actor, r.job.RequestID)
	if err != nil {
		return err
	}
	r.drained()
	r.report(spread)
	return nil
}

// retireSigning has candidates destroy the keys that came before those of the
// map. Who does not answer is asked again by the master, now and then.
func (r *run) retireSigning(ctx context.Context, left *resume) error {
	bounded, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	s := r.c.State()
	var missed []string
	var mu sync.Mutex
	var all sync.WaitGroup
	asked := 0
	for _, n := range s.Candidates() {
		if !left.Renew.about(n.UUID) || slices.Contains(left.Renew.Signing, cluster.DigestOf(n.Keys.Signing)) {
			continue
		}
		asked++
		all.Go(func() {
			if _, err := (patient{r.c, notYet}).KeyCreate(bounded, n.UUID, KeyRequest(s, n, n.Certs.Candidate)); err != nil {
				mu.Lock()
				defer mu.Unlock()
				missed = append(missed, fmt.Sprintf("%s: %v", n.Name, err))
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.toldOf("signing keys: retire", asked, missed)
	return nil
}

// toldOf notes how many nodes a phase has reached, and which it has not.
func (r *run) toldOf(phase string, asked int, missed []string) {
	slices.Sort(missed)
	r.told("%s", strings.Join(append([]string{fmt.Sprintf("%s: %d of %d nodes", phase, asked-len(missed), asked)}, missed...), "; "))
}
