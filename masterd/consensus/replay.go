package consensus

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"rolekey/masterd/state"
)

// Replay returns the state that snapshot and log on disk yield, and how far
// they reach. It applies every entry of the log, also those of which this node
// never learned that they were committed: with the majority lost, nobody can
// tell. Raft must not be running.
func Replay(store *Store, snaps *Snapshots) (*state.State, Position, error) {
	p, err := Probe(store, snaps)
	if err != nil {
		return nil, p, err
	}
	s, err := snaps.newestState()
	if err != nil {
		return nil, p, fmt.Errorf("replay: %w", err)
	}
	for i := p.SnapshotIndex + 1; i <= p.LastIndex; i++ {
		var l raft.Log
		if err := store.GetLog(i, &l); err != nil {
			return nil, p, fmt.Errorf("replay: %w", err)
		}
		if l.Type != raft.LogCommand {
			continue
		}
		c, err := state.DecodeCommand(l.Data)
		if err != nil {
			return nil, p, fmt.Errorf("replay entry %d: %w", i, err)
		}
		s, _ = s.Apply(c, l.Index, l.Term) // what did not fit then does not fit now
	}
	return s, p, nil
}

func (s *Snapshots) newestState() (_ *state.State, err error) {
	metas, err := s.List()
	if err != nil || len(metas) == 0 {
		return state.New(), err
	}
	_, r, err := s.Open(metas[0].ID)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err := io.ReadAll(io.LimitReader(r, maxSnapshot+1))
	if err != nil {
		return nil, err
	}
	return state.DecodeSnapshot(b)
}
