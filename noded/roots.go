package noded

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/pki"
)

// rootsFile is ca.pem: the authorities that this node trusts. They follow the
// roster, which the signed map names: that carries trust from one authority to
// the next.
type rootsFile struct {
	path string
	held atomic.Pointer[pki.Roots]

	mu    sync.Mutex // held by whoever changes them
	saved []byte     // what the file holds; nil: not known
}

func (f *rootsFile) open(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read CA: %w", err)
	}
	roots, err := pki.ParseRoots(text)
	if err != nil {
		return err
	}
	f.path, f.saved = path, text
	f.held.Store(roots)
	return nil
}

func (f *rootsFile) get() *pki.Roots { return f.held.Load() }

func (f *rootsFile) digests() []cluster.Digest {
	var out []cluster.Digest
	for _, c := range f.get().Certificates() {
		out = append(out, pki.DigestOf(c))
	}
	return out
}

// set trusts other authorities, at once, and returns when they are on disk. It
// trusts them as well when the disk is full.
func (f *rootsFile) set(next *pki.Roots) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := next.Encode()
	f.held.Store(next)
	if bytes.Equal(text, f.saved) {
		return nil
	}
	f.saved = nil
	if err := atomicfile.Write(f.path, text, atomicfile.Durable(0o644)); err != nil {
		return fmt.Errorf("the authorities of the roster are not kept on disk: %w", err)
	}
	f.saved = text
	return nil
}

// followRoots trusts the authorities that the roster names. One that names none
// is of a master that does not know how to change them.
func (m *member) followRoots(v *candmap.View) error {
	if !v.Complete() || v.Roster.Settings() == nil || len(v.Roster.Settings().CA) == 0 {
		return nil
	}
	next, err := rootsOf(v.Roster.Settings().CA)
	if err != nil {
		return fmt.Errorf("authorities of the roster: %w", err)
	}
	if next.Cluster() != m.id.Cluster {
		return fmt.Errorf("authorities of the roster: they are of cluster %s", next.Cluster())
	}
	was := m.caRoots()
	err = m.roots.set(next)
	if m.server != nil && !bytes.Equal(was.Encode(), next.Encode()) {
		m.server.Reintroduce()
	}
	return err
}

// rootsOf trusts authorities, that which issues first.
func rootsOf(ders [][]byte) (*pki.Roots, error) {
	var certs []*x509.Certificate
	for _, der := range ders {
		cert, err := pki.ParseCertDER(der)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return pki.NewRoots(certs...)
}
