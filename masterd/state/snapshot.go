package state

import (
	"errors"
	"fmt"
	"io"

	"rolekey/candmap"
	"rolekey/cluster"
)

// The first byte of a snapshot. A release of level 1 reads none of a cluster
// that is past that level, and says so.
const (
	snapshotFormat  = 1
	snapshotFormat2 = 2 // from feature level 2 on
	snapshotFormat3 = 3 // from feature level 3 on
)

func (s *State) snapshotFormat() byte {
	switch {
	case s.FeatureLevel >= LevelSSH:
		return snapshotFormat3
	case s.FeatureLevel >= LevelSettings:
		return snapshotFormat2
	}
	return snapshotFormat
}

// snapshotWire is the state with its secrets revealed.
type snapshotWire struct {
	Format    int    `json:"format"`
	State     *State `json:"state"` // null before there is a cluster
	CAKey     []byte `json:"ca_key"`
	GossipKey []byte `json:"gossip_key"`

	SharedKeys [][]byte     `json:"shared_ssh_keys,omitempty"` // private halves, in the order of the state's
	RAPI       rapiSecrets  `json:"rapi,omitzero"`
	Renewal    renewSecrets `json:"renewal,omitzero"`
}

// Format implements fmt.Formatter for every verb: a state is too large to
// print, and holds secrets.
func (s *State) Format(f fmt.State, _ rune) {
	if s == nil {
		_, _ = io.WriteString(f, "state <nil>")
		return
	}
	_, _ = fmt.Fprintf(f, "state of %s at map %s (%d nodes, %d jobs)", s.Cluster.Name, s.Head().Version, len(s.Nodes), len(s.Jobs))
}

// EncodeSnapshot returns the state with its secrets, to be sealed. Equal
// states give equal bytes.
func EncodeSnapshot(s *State) ([]byte, error) {
	w := snapshotWire{Format: Format}
	if s.Founded() {
		w = snapshotWire{Format, s, s.CA.Key.Reveal(), s.Gossip.Reveal(), revealShared(s.Shared), s.RAPI.reveal(), s.revealRenewal()}
	}
	b, err := marshal(w)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	if len(b)+1 > MaxSnapshot {
		return nil, cluster.Errorf(cluster.CodeTooLarge, "encode snapshot: %d bytes, the limit is %d", len(b)+1, MaxSnapshot)
	}
	return append([]byte{s.snapshotFormat()}, b...), nil
}

// DecodeSnapshot reads what EncodeSnapshot wrote, and checks that the state is
// consistent: its head is the map that it yields.
func DecodeSnapshot(b []byte) (*State, error) {
	if len(b) == 0 || len(b) > MaxSnapshot {
		return nil, cluster.Errorf(cluster.CodeTooLarge, "decode snapshot: %d bytes, want 1 to %d", len(b), MaxSnapshot)
	}
	if b[0] < snapshotFormat || b[0] > snapshotFormat3 {
		return nil, cluster.Errorf(cluster.CodeUnsupportedFormat, "decode snapshot: format %d; upgrade this node", b[0])
	}
	var w snapshotWire
	if err := unmarshal(b[1:], &w); err != nil {
		return nil, cluster.Errorf(cluster.CodeBadFormat, "decode snapshot: %v", err)
	}
	if w.Format != Format {
		return nil, cluster.Errorf(cluster.CodeUnsupportedFormat, "decode snapshot: state format %d; upgrade this node", w.Format)
	}
	s := w.State
	if s == nil {
		if len(w.CAKey)+len(w.GossipKey)+len(w.SharedKeys)+len(w.RAPI.Hashes)+len(w.RAPI.Key)+len(w.Renewal.NextCAKey)+len(w.Renewal.GossipToo) > 0 {
			return nil, cluster.Errorf(cluster.CodeBadFormat, "decode snapshot: keys without a cluster")
		}
		return New(), nil
	}
	if s.snapshotFormat() != b[0] {
		return nil, cluster.Errorf(cluster.CodeBadFormat, "decode snapshot: format %d, and feature level %d", b[0], s.FeatureLevel)
	}
	if s.FeatureLevel > cluster.FeatureLevel {
		return nil, cluster.Errorf(cluster.CodeUnsupportedFormat, "decode snapshot: feature level %d, and this build knows %d; upgrade this node",
			s.FeatureLevel, cluster.FeatureLevel)
	}
	s.CA.Key, s.Gossip = cluster.NewSecret(w.CAKey), cluster.NewSecret(w.GossipKey)
	if err := errors.Join(s.takeShared(w.SharedKeys), s.RAPI.take(w.RAPI), s.takeRenewal(w.Renewal), s.restore()); err != nil {
		return nil, cluster.Errorf(cluster.CodeBadFormat, "decode snapshot: %v", err)
	}
	return s, nil
}

// restore checks a decoded state and computes what is derived from it.
func (s *State) restore() error {
	if !s.Founded() || s.Nodes == nil || s.Jobs == nil || s.Admissions == nil {
		return errors.New("the cluster or a table is missing")
	}
	if err := s.checkTables(); err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	head, err := s.checkChain()
	if err != nil {
		return err
	}
	m, roster, err := Derive(s, head.Issued)
	if err != nil {
		return err
	}
	if same, err := sameContent(m, head); err != nil || !same {
		return errors.Join(errors.New("the head of the chain is not what the state yields"), err)
	}
	s.headMap, s.roster, s.index = head, roster, indexJobs(s.Jobs)
	return nil
}

// checkChain checks hashes and order, and returns the head.
func (s *State) checkChain() (*candmap.Map, error) {
	var head *candmap.Map
	for i, e := range s.Chain {
		m, err := candmap.DecodeMap(e.Payload)
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", e.Version, err)
		}
		if e.Hash != cluster.DigestOf(e.Payload) || m.At() != e.Version || m.Cluster != s.Cluster.UUID {
			return nil, fmt.Errorf("map %s is filed wrongly", e.Version)
		}
		if i > 0 && !e.Version.Newer(s.Chain[i-1].Version) {
			return nil, errors.New("the chain is not in order")
		}
		head = m
	}
	if head == nil {
		return nil, errors.New("the chain is empty")
	}
	return head, nil
}

func (s *State) checkTables() error {
	if len(s.Removed) > MaxRemoved || s.NextJob < 1 {
		return errors.New("too many tombstones, or a bad job counter")
	}
	for id, j := range s.Jobs {
		if j == nil || j.ID != id || id < 1 || id >= s.NextJob || !j.Status.Valid() ||
			len(j.OpStatus) != len(j.Ops) || len(j.OpResult) != len(j.Ops) || len(j.Log) != len(j.Ops) {
			return fmt.Errorf("job %d is not well formed", id)
		}
	}
	return s.Admissions.Validate()
}
