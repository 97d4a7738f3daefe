package state

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
)

// ErrorInterrupted is the error of jobs that a recovery ended.
const ErrorInterrupted = "interrupted by recovery"

// Revival says how a state is to go on whose voters are lost.
type Revival struct {
	// Self will be the only candidate, the only voter and the master.
	Self cluster.NodeID
	// Maps are payloads of maps that were verified, oldest first. The last one is
	// the newest that is known anywhere: what it says counts where the state does
	// not contain it. Then Roster, the one that it names, is needed.
	Maps   [][]byte
	Roster *candmap.Roster

	Gossip  cluster.Secret // a new key
	Issued  time.Time      // of the map that results
	Version uint64         // the least that the map may have; 0: the next
	Term    uint64         // of raft, as if the map had been committed in it

	// Replace is the entry of Self on a new machine; nil: the one that it has.
	Replace *Node
	// Old revokes the admission strings that are open, even if the state contains
	// the newest map: it is a copy of some age.
	Old bool
}

// Recover returns the state that goes on from s with one candidate, in the next
// epoch. The map that it yields is its head, and needs the signatures of the
// recovery keys of the newest map and that of Self.
//
// Where the newest map is not in s, the state was behind, or on the losing side
// of an election: then a node that is not in the roster is removed, roster and
// map overrule what the state says of nodes and parameters, and what cannot be
// known (tags of nodes that were added, newer jobs) is lost. In no case is
// anybody a candidate afterwards whom the newest map does not list.
func Recover(s *State, r Revival) (*State, error) {
	d, newest, err := revive(s, r)
	if err != nil {
		return nil, fmt.Errorf("recover state: %w", err)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("recover state: %w", err)
	}
	m, roster, err := Derive(d.State, r.Issued)
	if err != nil {
		return nil, fmt.Errorf("recover state: %w", err)
	}
	head := s.Head().Version
	m.Epoch, m.Previous = newest.Epoch+1, cluster.DigestOf(r.Maps[len(r.Maps)-1])
	m.Version = max(newest.Version+1, r.Version)
	if head.Epoch == newest.Epoch {
		m.Version = max(m.Version, head.Version+1)
	}
	payload, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("recover state: %w", err)
	}
	d.Chain = extend(d.Chain, newEntry(m, payload, newest, r.Term))
	d.headMap, d.roster, d.MasterTerm = m, roster, r.Term
	return d.State, nil
}

// revive makes the draft, and returns the newest map.
func revive(s *State, r Revival) (*draft, *candmap.Map, error) {
	if !s.Founded() || len(r.Maps) == 0 {
		return nil, nil, errors.New("a state and a map are needed")
	}
	chain, contained, err := joinChain(s.Chain, r)
	if err != nil {
		return nil, nil, err
	}
	newest, err := candmap.DecodeMap(r.Maps[len(r.Maps)-1])
	switch {
	case err != nil:
		return nil, nil, err
	case newest.Cluster != s.Cluster.UUID:
		return nil, nil, conflict("the newest map is of another cluster, %s", newest.Cluster)
	case !contained && (r.Roster == nil || newest.Roster != r.Roster.Hash()):
		return nil, nil, errors.New("the roster is not the one of the newest map")
	case s.Head().Version.Epoch > newest.Epoch:
		return nil, nil, conflict("the state is of epoch %d, and the newest map of epoch %d", s.Head().Version.Epoch, newest.Epoch)
	}
	copied := *s
	d := &draft{State: &copied, now: candmap.Stamp(r.Issued), actor: "gnt-cluster recover"}
	d.Chain, d.Gossip, d.GossipToo, d.CA.Next = chain, r.Gossip, cluster.Secret{}, nil // a renewal that was under way is over
	d.Nodes, d.ownNodes = maps.Clone(d.Nodes), true
	if !contained {
		d.adopt(newest, r.Roster)
	}
	if !contained || r.Old {
		d.revokeOpen()
	}
	d.endJobs()
	return d, newest, d.install(r, newest)
}

// joinChain lets the verified maps follow the part of the chain that they share
// with it. What follows the newest of them was committed here, and is kept, if
// that one is in the chain at all.
func joinChain(chain []ChainEntry, r Revival) (joined []ChainEntry, contained bool, err error) {
	links := make([]ChainEntry, len(r.Maps))
	var prev *candmap.Map
	for i, payload := range r.Maps {
		m, err := candmap.DecodeMap(payload)
		if err != nil {
			return nil, false, err
		}
		if prev != nil && !m.At().Newer(prev.At()) {
			return nil, false, errors.New("the maps are not in order")
		}
		links[i], prev = newEntry(m, payload, prev, r.Term), m
	}
	if slices.ContainsFunc(chain, links[len(links)-1].same) {
		return chain, true, nil
	}
	for i, l := range slices.Backward(links) {
		if at := slices.IndexFunc(chain, l.same); at >= 0 {
			return slices.Concat(chain[:at+1], links[i+1:]), false, nil
		}
	}
	return links, false, nil
}

func (e ChainEntry) same(o ChainEntry) bool { return e.Version == o.Version && e.Hash == o.Hash }

// adopt takes over what a map and its roster say.
func (d *draft) adopt(m *candmap.Map, roster *candmap.Roster) {
	for _, n := range d.SortedNodes() {
		if roster.Node(n.UUID) == nil {
			d.bury(n)
		}
	}
	for _, n := range roster.Nodes() {
		d.adoptNode(n, m)
	}
	d.Params.LeaseSeconds, d.Params.SSHLeaseSeconds = m.LeaseSeconds, m.SSHLeaseSeconds
	d.Params.Policy, d.Params.SSHReach = m.Policy, m.SSHReach
	d.Recovery, d.Master = m.Recovery, m.Master
	if set := roster.Settings(); set != nil {
		d.Cluster.Name, d.Params.MasterAddress = set.Name, set.Address
		d.FeatureLevel = max(d.FeatureLevel, LevelSettings)
		d.adoptSSH(m, set.SSH)
	}
}

// adoptSSH takes over how SSH keys are handled. Whether they are is seen by
// whether there are any.
func (d *draft) adoptSSH(m *candmap.Map, set *cluster.SSHSettings) {
	d.Params.SSHSetup = slices.ContainsFunc(m.Candidates, func(c candmap.Candidate) bool { return len(c.SSH) > 0 })
	if set == nil {
		return
	}
	p := &d.Params
	p.SSHKeyMode, p.SSHKeyType, p.SSHKeyBits, p.SSHKeyStorage, p.SSHAuthorize = set.KeyMode, set.KeyType, set.KeyBits, set.Storage, set.Authorize
	d.FeatureLevel = max(d.FeatureLevel, LevelSSH)
}

// bury removes a node as NodeRemove does.
func (d *draft) bury(n *Node) {
	delete(d.Nodes, n.UUID)
	d.Removed = append(slices.Clip(d.Removed), Tombstone{n.UUID, n.Incarnation, n.Name, n.Identity, d.now})
	if len(d.Removed) > MaxRemoved {
		d.Removed = d.Removed[len(d.Removed)-MaxRemoved:]
	}
	d.revokeAdmissions(n)
}

// adoptNode makes a node what the roster says. Certificates are kept only as
// copies for replies that were lost; those of keys that were replaced are of no
// use any more.
func (d *draft) adoptNode(r candmap.RosterNode, m *candmap.Map) {
	n := &Node{CTime: d.now, Tags: []string{}, Joined: true}
	if old := d.Nodes[r.UUID]; old != nil {
		c := *old
		n = &c
		if old.Incarnation != r.Incarnation || !slices.Equal(old.Server, r.Server) || !slices.Equal(old.Identity, r.Identity) {
			n.Certs, n.Joined = Certs{}, true
		}
		if old.Incarnation != r.Incarnation {
			n.HostKeysIssued, n.PendingHostKeys = time.Time{}, nil
		}
	}
	n.UUID, n.Incarnation, n.Name, n.Addresses, n.Ports = r.UUID, r.Incarnation, r.Name, r.Addresses, r.Ports
	n.Flags, n.HostKeys, n.Server, n.Identity = r.Flags, r.HostKeys, r.Server, r.Identity
	n.WasCandidate = n.WasCandidate && r.Flags.Offline
	n.MTime, n.Serial = d.now, n.Serial+1
	n.Keys, n.Voter = nil, false
	if i := slices.IndexFunc(m.Candidates, func(c candmap.Candidate) bool { return c.UUID == r.UUID }); i >= 0 {
		c := m.Candidates[i]
		n.Keys, n.Voter = &CandidateKeys{Client: c.Client, Signing: c.Signing, SSH: c.SSH}, c.Voter
	}
	if n.Keys == nil || !slices.Contains(n.Keys.Client, cluster.DigestOf(n.Certs.Candidate)) {
		n.Certs.Candidate = nil
	}
	d.Nodes[n.UUID] = n
}

// revokeOpen makes all strings worthless that were not used as far as is known:
// they may have been used, or revoked, since. One that is bound is good for the
// node that it is bound to alone.
func (d *draft) revokeOpen() {
	table := maps.Clone(d.Admissions)
	for id, r := range table {
		if revoked, err := r.Revoke(); err == nil && r.State == pki.RecordOpen {
			table[id] = revoked
		}
	}
	d.Admissions = table
}

// endJobs ends what the lost master was doing.
func (d *draft) endJobs() {
	for old := range d.ActiveJobs() {
		j := *old
		j.Status, j.Error, j.End = JobError, ErrorInterrupted, d.now
		j.OpStatus = slices.Clone(j.OpStatus)
		for i, s := range j.OpStatus {
			if !s.Ended() {
				j.OpStatus[i] = JobError
			}
		}
		d.putJob(&j)
	}
}

// install makes Self the only candidate. The others lose their keys, and keep
// what makes the new master promote them again when they are in touch.
func (d *draft) install(r Revival, newest *candmap.Map) error {
	if r.Replace != nil {
		if err := d.replace(*r.Replace); err != nil {
			return err
		}
	}
	self := d.Nodes[r.Self]
	listed := slices.ContainsFunc(newest.Candidates, func(c candmap.Candidate) bool {
		return c.UUID == r.Self && self != nil && c.Incarnation == self.Incarnation
	})
	switch {
	case self == nil:
		return cluster.Errorf(cluster.CodeNotInRoster, "node %s is not in the cluster any more, by map %s", r.Self, newest.At())
	case r.Replace == nil && (!listed || !self.listed()):
		return cluster.Errorf(cluster.CodeNotInMap, "node %s is not a master candidate any more, by map %s", self.Name, newest.At()).
			WithHint("recover the cluster on a node that map %s lists", newest.At())
	}
	d.Master = r.Self
	d.Shared = nil // those who lose the role know it: the next one is made by the new master
	for id, old := range d.Nodes {
		if id != r.Self && old.Keys == nil && !old.Flags.MasterCandidate || id == r.Self && old.Voter {
			continue
		}
		n := *old
		n.MTime, n.Serial = d.now, n.Serial+1
		n.Voter = id == r.Self
		if id != r.Self {
			n.Keys, n.Certs.Candidate, n.Flags.MasterCandidate = nil, nil, false
			n.WasCandidate = d.FeatureLevel >= LevelSettings && n.Flags.MasterCapable
		}
		d.Nodes[id] = &n
	}
	d.mapped = true
	return nil
}

// replace puts a new machine into the place of a node, or beside all of them.
func (d *draft) replace(n Node) error {
	want := d.nextIncarnation(n.UUID)
	n.CTime, n.MTime, n.Serial, n.Tags = d.now, d.now, 1, []string{}
	if old := d.Nodes[n.UUID]; old != nil {
		n.CTime, n.Serial, n.Tags = old.CTime, old.Serial+1, old.Tags
		n.Flags.VMCapable = old.Flags.VMCapable
	}
	n.Flags.MasterCandidate, n.Flags.MasterCapable, n.Flags.Drained, n.Flags.Offline = true, true, false, false
	n.Joined, n.Voter, n.WasCandidate = true, true, false
	if n.Incarnation != want {
		return conflict("node %s: incarnation %d, want %d", n.Name, n.Incarnation, want)
	}
	if err := d.checkUnique(&n); err != nil {
		return err
	}
	d.Nodes[n.UUID] = &n
	return n.checkCandidateCert()
}

// Again returns the nodes that were candidates before a recovery, and are to be
// candidates again when they are in touch: regular ones, by UUID. A node that is
// offline is promoted when it is set online.
func (s *State) Again() []*Node {
	return s.sortedIDs(func(n *Node) bool {
		return n.WasCandidate && !n.Flags.MasterCandidate && !n.Flags.Offline && !n.Flags.Drained && n.Flags.MasterCapable
	})
}
