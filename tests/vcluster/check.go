package vcluster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/masterd/state"
)

// Settle waits until the cluster is as it should be: Check finds nothing.
func (c *Cluster) Settle() {
	c.t.Helper()
	c.Await(Limit, c.Check)
}

// Check compares intent and reality, on all nodes that are up and in the
// cluster: one master, all jobs ended, one map in force everywhere, fresh and
// naming exactly the candidates of the intent, and on each node's disk what
// its role wants, and nothing more that opens anything.
func (c *Cluster) Check() error {
	master, err := c.one()
	if err != nil {
		return err
	}
	st, err := master.Masterd().State()
	if err != nil {
		return err
	}
	if err := errors.Join(idle(st), checkIntent(st, master), c.checkVoters(st)); err != nil {
		return err
	}
	var errs []error
	for _, n := range c.Up() {
		if in := st.Node(n.ID); in == nil || in.Flags.Offline {
			continue // CheckGone looks at those
		}
		if err := c.checkNode(n, st); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.Short(), err))
		}
	}
	return errors.Join(errs...)
}

// checkIntent looks at the replicated state alone.
func checkIntent(st *state.State, master *Node) error {
	head := st.HeadMap()
	var names []cluster.NodeID
	for _, e := range head.Candidates {
		names = append(names, e.UUID)
	}
	for _, n := range st.SortedNodes() {
		if n.Flags.MasterCandidate != slices.Contains(names, n.UUID) {
			return fmt.Errorf("%s: master_candidate=%t, in the map: %t", n.Name, n.Flags.MasterCandidate, slices.Contains(names, n.UUID))
		}
	}
	if head.Master != master.ID || st.Master != master.ID {
		return fmt.Errorf("map %s names another master than %s", head.At(), master.Short())
	}
	return nil
}

// checkVoters wants the largest odd number of those that are up to vote. While
// a candidate is down its vote may still be counted on, or be gone.
func (c *Cluster) checkVoters(st *state.State) error {
	up, voters := 0, len(st.Voters())
	for _, n := range st.Candidates() {
		if node := c.ByID(n.UUID); node != nil && node.Up() {
			up++
		}
	}
	want := min(up-(up+1)%2, candmap.MaxVoters)
	if voters%2 == 0 || voters < want {
		return fmt.Errorf("%d nodes vote, with %d candidates up", voters, up)
	}
	return nil
}

func (c *Cluster) checkNode(n *Node, st *state.State) error {
	v, err := n.View()
	if err != nil {
		return err
	}
	head := st.HeadMap()
	switch want := st.Head(); {
	case v.Map.Hash() != want.Hash:
		return fmt.Errorf("it holds another map than %s", want.Version)
	case !v.Fresh:
		return errors.New("its map is stale")
	}
	return errors.Join(n.checkKeys(entryOf(head, n.ID)), n.checkAuthorized(head))
}

func entryOf(m *candmap.Map, id cluster.NodeID) *candmap.Candidate {
	for i := range m.Candidates {
		if m.Candidates[i].UUID == id {
			return &m.Candidates[i]
		}
	}
	return nil
}

// checkKeys compares the keys on disk with the node's entry in the map, which
// is nil for a normal node. Keys that a promotion left behind may lie there for
// some minutes; they are no use, because nothing names them, and a certificate
// for them is not installed.
func (n *Node) checkKeys(entry *candmap.Candidate) error {
	cert, err := os.ReadFile(n.at.CandidateCert())
	has := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case entry == nil && has:
		return errors.New("a normal node holds a candidate's certificate")
	case entry == nil:
		return nil
	case !has:
		return errors.New("the candidate lacks its certificate")
	}
	der, err := pemOf(cert)
	if err != nil {
		return err
	}
	if !slices.Contains(entry.Client, cluster.DigestOf(der)) {
		return errors.New("the candidate holds another certificate than the map names")
	}
	for _, f := range []string{n.at.SigningKey(), n.at.CandidateKey(), n.at.Keyring(), n.at.RaftDB()} {
		if _, err := os.Lstat(f); err != nil {
			return fmt.Errorf("the candidate lacks a file: %w", err)
		}
	}
	return n.checkSSHKey(entry)
}

func (n *Node) checkSSHKey(entry *candmap.Candidate) error {
	if len(entry.SSH) == 0 {
		return nil
	}
	text, err := os.ReadFile(n.at.SSHPublicKey())
	if err != nil {
		return fmt.Errorf("the candidate lacks its SSH key: %w", err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return err
	}
	for _, k := range entry.SSH {
		if bytes.Equal(k.Blob, key.Marshal()) {
			return nil
		}
	}
	return errors.New("the candidate's SSH key is not the one in the map")
}

func candidateFiles(at paths.Layout) []string {
	return []string{
		at.SigningKey(), at.CandidateKey(), at.CandidateCert(), at.Keyring(), at.RaftDB(), at.SnapshotDir(), at.SSHKey(), at.SSHPublicKey(),
	}
}

// Leftovers lists the files on the node's disk that only a candidate may have.
func (n *Node) Leftovers() []string {
	var left []string
	for _, f := range candidateFiles(n.at) {
		if _, err := os.Lstat(f); err == nil {
			left = append(left, strings.TrimPrefix(f, n.at.Root))
		}
	}
	return left
}

// checkAuthorized compares root's authorized_keys with the map.
func (n *Node) checkAuthorized(m *candmap.Map) error {
	have, err := n.Authorized()
	if err != nil {
		return err
	}
	var want []string
	for _, e := range m.Candidates {
		if m.SSHReach == cluster.ReachMaster && e.UUID != m.Master {
			continue
		}
		for _, k := range e.SSH {
			want = append(want, string(k.Blob))
		}
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		return fmt.Errorf("authorized_keys has %d keys, the map %d, or they are others", len(have), len(want))
	}
	return nil
}

// Authorized lists the blobs of all keys in root's authorized_keys.
func (n *Node) Authorized() ([]string, error) {
	text, err := os.ReadFile(n.AuthorizedKeys())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return keysIn(text), err
}

// keysIn lists the blobs of the keys in a text in the form of authorized_keys.
func keysIn(text []byte) []string {
	var keys []string
	for {
		key, _, _, rest, err := ssh.ParseAuthorizedKey(text)
		if err != nil { // nothing but comments is left
			return keys
		}
		keys, text = append(keys, string(key.Marshal())), rest
	}
}

// CheckForks fails the test if any node keeps evidence of two maps of one
// version.
func (c *Cluster) CheckForks() {
	c.t.Helper()
	for _, n := range c.Nodes {
		entries, err := os.ReadDir(n.at.EvidenceDir())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.t.Fatal(err)
		}
		if len(entries) > 0 {
			c.t.Errorf("%s keeps evidence of a fork", n.Short())
		}
	}
}
