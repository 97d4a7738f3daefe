package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

// Derive returns the map that the state yields as the version after its head,
// and the roster that the map names.
func Derive(s *State, issued time.Time) (*candmap.Map, *candmap.Roster, error) {
	if !s.Founded() {
		return nil, nil, errors.New("derive map: there is no cluster")
	}
	nodes := make([]candmap.RosterNode, 0, len(s.Nodes))
	for _, n := range s.Nodes {
		nodes = append(nodes, n.rosterNode())
	}
	roster, err := candmap.NewRoster(nodes, s.settings())
	if err != nil {
		return nil, nil, fmt.Errorf("derive map: %w", err)
	}
	head := s.Head()
	m := &candmap.Map{
		Cluster: s.Cluster.UUID, Epoch: max(head.Version.Epoch, 1), Version: head.Version.Version + 1,
		Previous: head.Hash, Issued: candmap.Stamp(issued),
		LeaseSeconds: s.Params.LeaseSeconds, SSHLeaseSeconds: s.Params.SSHLeaseSeconds,
		Policy: s.Params.Policy, SSHReach: s.Params.SSHReach,
		Master: s.Master, Roster: roster.Hash(), Recovery: s.Recovery,
	}
	for _, n := range s.Candidates() {
		m.Candidates = append(m.Candidates, n.candidate())
	}
	return m, roster, nil
}

// settings are part of the roster once every node can read them.
func (s *State) settings() *candmap.Settings {
	if s.FeatureLevel < LevelSettings {
		return nil
	}
	out := &candmap.Settings{Name: s.Cluster.Name, Address: s.Params.MasterAddress}
	if s.FeatureLevel >= LevelSSH {
		out.SSH = new(s.Params.SSH())
		out.CA, out.Gossip = s.CA.Roots(), s.gossipDigests()
	}
	return out
}

// says returns what a map says apart from its place in the chain, for
// comparison.
func says(m *candmap.Map) ([]byte, error) {
	c := *m
	c.Epoch, c.Version, c.Previous, c.Issued = 1, 1, cluster.Digest{}, minTime
	return c.Encode()
}

// sameContent reports whether two maps say the same.
func sameContent(a, b *candmap.Map) (bool, error) {
	x, err := says(a)
	if err != nil {
		return false, err
	}
	y, err := says(b)
	return bytes.Equal(x, y), err
}

// check finds contradictions in the state as a whole.
func (s *State) check() error {
	if err := s.Params.check(); err != nil {
		return err
	}
	if len(s.Nodes) > MaxNodes {
		return fmt.Errorf("more than %d nodes", MaxNodes)
	}
	for _, id := range slices.SortedFunc(maps.Keys(s.Nodes), CompareID) {
		if s.Nodes[id] == nil || s.Nodes[id].UUID != id {
			return fmt.Errorf("node %s is filed under another UUID", id)
		}
		if err := s.Nodes[id].check(); err != nil {
			return err
		}
		if len(s.Nodes[id].Tags) > s.MaxTags() {
			return fmt.Errorf("node %s: more than %d tags", s.Nodes[id].Name, s.MaxTags())
		}
	}
	if m := s.Nodes[s.Master]; m == nil || !m.listed() {
		return errors.New("the master is not a master candidate")
	}
	if n := len(s.Voters()); n%2 == 0 || n > candmap.MaxVoters {
		return fmt.Errorf("%d voters: want an odd number up to %d", n, candmap.MaxVoters)
	}
	if err := s.CA.check(); err != nil {
		return err
	}
	return checkShared(s.Shared)
}
