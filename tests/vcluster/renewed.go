package vcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/pki"
)

// others are so many candidates beside the master that are up.
func (c *Cluster) others(n int) (list []*Node) {
	c.t.Helper()
	master := c.Master()
	st, err := c.State()
	c.must(err)
	for _, o := range c.Up() {
		if o != master && st.Node(o.ID).Flags.MasterCandidate && len(list) < n {
			list = append(list, o)
		}
	}
	return list
}

// pinsOf lists what map and roster know a node's certificates by.
func pinsOf(n *state.Node) map[string][]cluster.Digest {
	pins := map[string][]cluster.Digest{state.CertServer: n.Server, state.CertIdentity: n.Identity}
	if n.Keys != nil {
		pins[state.CertCandidate] = n.Keys.Client
	}
	return pins
}

// pins lists what all nodes' certificates are known by.
func (c *Cluster) pins() (all []cluster.Digest) {
	c.t.Helper()
	st, err := c.State()
	c.must(err)
	for _, n := range st.SortedNodes() {
		for _, list := range pinsOf(n) {
			all = append(all, list...)
		}
	}
	return all
}

// renewedAll returns nil if no renewal of certificates is half done: one
// authority is trusted, one certificate of each kind is listed of every node,
// and it is the one on the node's disk, with no other key beside its own.
func (c *Cluster) renewedAll() error {
	st, err := c.State()
	if err != nil {
		return err
	}
	if err := idle(st); err != nil {
		return err
	}
	if st.CA.Next != nil || len(st.CA.Old) > 0 {
		return fmt.Errorf("%d authorities are trusted", len(st.CA.Roots()))
	}
	var errs []error
	for _, n := range st.SortedNodes() {
		if err := c.renewed(st, n); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (c *Cluster) renewed(st *state.State, n *state.Node) error {
	if !n.RenewBefore.IsZero() {
		return errors.New("it is marked")
	}
	at := c.ByID(n.UUID).at
	files := map[string]string{state.CertServer: at.ServerCert(), state.CertIdentity: at.IdentityCert(), state.CertCandidate: at.CandidateCert()}
	for kind, pins := range pinsOf(n) {
		text, err := os.ReadFile(files[kind])
		if err != nil {
			return err
		}
		cert, err := pki.ParseCert(text)
		if err != nil {
			return err
		}
		pin := pki.PinOf(cert)
		if kind == state.CertCandidate {
			pin = pki.DigestOf(cert)
		}
		if !slices.Equal(pins, []cluster.Digest{pin}) {
			return fmt.Errorf("%d pins are listed for its %s certificate, or another one than it has", len(pins), kind)
		}
		if ca, err := pki.ParseCertDER(st.CA.Cert); err != nil || cert.CheckSignatureFrom(ca) != nil {
			return fmt.Errorf("its %s certificate is of a former authority", kind)
		}
	}
	return errors.Join(onlyRoot(at.CACert(), st.CA.Cert), noNext(at.NodeDir()), noNext(at.MasterdDir()))
}

func onlyRoot(file string, der []byte) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	cert, err := pki.ParseCert(text) // of one certificate
	if err == nil && pki.DigestOf(cert) != cluster.DigestOf(der) {
		err = errors.New("it trusts another authority")
	}
	return err
}

// noNext returns nil if the folder holds no key that was prepared.
func noNext(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "*.next"))
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("keys that were prepared are left: %v", left)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sshKeys lists the SSH keys of the map.
func (c *Cluster) sshKeys() (keys []cluster.Digest) {
	c.t.Helper()
	st, err := c.State()
	c.must(err)
	for _, n := range st.Candidates() {
		for _, k := range n.Keys.SSH {
			keys = append(keys, cluster.DigestOf(k.Blob))
		}
	}
	return keys
}

// none returns nil if nothing of what was listed before is listed now.
func (c *Cluster) none(before []cluster.Digest, now func() []cluster.Digest) error {
	c.t.Helper()
	old := slices.DeleteFunc(now(), func(d cluster.Digest) bool { return !slices.Contains(before, d) })
	if len(old) > 0 {
		return fmt.Errorf("%d keys or certificates of before the renewal are still listed", len(old))
	}
	return nil
}
