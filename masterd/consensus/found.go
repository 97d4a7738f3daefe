package consensus

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"rolekey/masterd/state"
)

// Found writes the first state of a cluster as a snapshot in which the named
// server is the only voter. Raft then starts from it as it starts from any
// snapshot, so that founding a cluster needs no election.
func Found(id raft.ServerID, stable raft.StableStore, snaps raft.SnapshotStore, first *state.State) error {
	return FoundAt(id, stable, snaps, first, 1, 1)
}

// FoundAt is Found for a state that goes on from an earlier log: index and term
// follow that log's, so that whoever saw it sees this node go on.
func FoundAt(id raft.ServerID, stable raft.StableStore, snaps raft.SnapshotStore, first *state.State, index, term uint64) error {
	old, err := snaps.List()
	if err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	if len(old) > 0 {
		return errors.New("found cluster: there is a raft state already")
	}
	if err := stable.SetUint64([]byte("CurrentTerm"), term); err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	servers := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: id, Address: raft.ServerAddress(id)}}}
	// Stores that still write raft's older format ask the transport for names.
	sink, err := snaps.Create(raft.SnapshotVersionMax, index, term, servers, index, NewTransport(id, nil))
	if err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	if err := (snapshot{first}).Persist(sink); err != nil {
		return fmt.Errorf("found cluster: %w", err)
	}
	return nil
}
