package masterd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// signFunc asks one voter, which may be this node, for its signature: two, while
// its key is replaced.
type signFunc func(ctx context.Context, voter cluster.NodeID, req rpc.SignRequest) ([]candmap.Signature, error)

// maxSigs is how many signatures of one voter are looked at.
const maxSigs = 2

// votersOf returns the voters of some maps, each once.
func votersOf(maps ...*candmap.Map) []cluster.NodeID {
	var ids []cluster.NodeID
	for _, m := range maps {
		for _, c := range m.Candidates {
			if c.Voter && !slices.Contains(ids, c.UUID) {
				ids = append(ids, c.UUID)
			}
		}
	}
	return ids
}

// quorum reports whether the envelope carries a majority of each authority.
func quorum(env candmap.Envelope, authorities []candmap.Authority) bool {
	for _, a := range authorities {
		if env.Signers(a.Voters) < a.Majority() {
			return false
		}
	}
	return true
}

// counts reports whether a signature on the envelope's payload is that of any
// voter. One that is not must not take a place: there are few, one for each key.
func counts(env candmap.Envelope, sig candmap.Signature, authorities []candmap.Authority) bool {
	env.Signatures = []candmap.Signature{sig}
	return slices.ContainsFunc(authorities, func(a candmap.Authority) bool { return env.Signers(a.Voters) > 0 })
}

// collect asks the voters in parallel and returns as soon as a majority of
// every authority has signed the envelope's payload. What a voter answers
// proves itself: a signature that does not verify is an answer like none.
func collect(ctx context.Context, sign signFunc, voters []cluster.NodeID, authorities []candmap.Authority, env candmap.Envelope, req rpc.SignRequest) (candmap.Envelope, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		voter cluster.NodeID
		sigs  []candmap.Signature
		err   error
	}
	answers := make(chan answer, len(voters))
	for _, v := range voters {
		go func() { // ends with the call, whose context ends with this function
			sigs, err := sign(ctx, v, req)
			answers <- answer{v, sigs, err}
		}()
	}
	var failed []error
	for range voters {
		a := <-answers
		good := slices.DeleteFunc(a.sigs[:min(len(a.sigs), maxSigs):len(a.sigs)], func(s candmap.Signature) bool { return !counts(env, s, authorities) })
		if a.err == nil && len(good) == 0 {
			a.err = errors.New("its signature does not verify")
		}
		if a.err != nil {
			failed = append(failed, fmt.Errorf("voter %s: %w", a.voter, a.err))
			continue
		}
		if env = candmap.Merge(env, good...); quorum(env, authorities) {
			return env, nil
		}
	}
	short := cluster.Errorf(cluster.CodeNoQuorum, "a majority of the voters did not sign version %s", req.Version)
	return env, errors.Join(append([]error{short}, failed...)...)
}
