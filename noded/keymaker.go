package noded

import (
	"context"
	"sync"

	"rolekey/cluster"
	"rolekey/sshkeys"
)

// draft is a key that was made before the order is carried out.
type draft struct {
	text cluster.Secret
	key  cluster.SSHKey
}

// maker makes keys, one at a time, apart from the calls that ask for them. An RSA
// key takes seconds, one of 8192 bits up to a minute: a call that is revoked ends
// at once, since the acceptance of a map waits for it, and one that ran out of
// time finds the key when it is repeated.
type maker struct {
	mu      sync.Mutex
	spec    cluster.SSHKeySpec
	done    chan struct{} // of the last key; nil: none was made
	ready   *draft        // that nobody has taken
	err     error
	running sync.WaitGroup
}

// make returns a key of the kind. It is given again until it is taken.
func (m *maker) make(ctx context.Context, spec cluster.SSHKeySpec, node cluster.NodeID) (*draft, error) {
	for {
		done := m.begin(spec, node)
		select {
		case <-done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if d, ok, err := m.result(spec); ok {
			return d, err
		}
	}
}

// begin returns the end of what is being made, or was and is of this kind; if
// there is nothing of that, it starts to make a key.
func (m *maker) begin(spec cluster.SSHKeySpec, node cluster.NodeID) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done != nil && (m.busy() || m.spec == spec && m.ready != nil) {
		return m.done
	}
	done := make(chan struct{})
	m.spec, m.done, m.ready, m.err = spec, done, nil, nil
	m.running.Go(func() {
		text, key, err := sshkeys.Generate(spec, sshkeys.Comment(node))
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.err = err; err == nil {
			m.ready = &draft{text, key}
		}
		close(done)
	})
	return done
}

func (m *maker) busy() bool {
	select {
	case <-m.done:
		return false
	default:
		return true
	}
}

// result is not ok if the key was of another kind, or is taken.
func (m *maker) result(spec cluster.SSHKeySpec) (d *draft, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.spec != spec || m.busy() || m.ready == nil && m.err == nil {
		return nil, false, nil
	}
	return m.ready, true, m.err
}

// taken says that a key is in use.
func (m *maker) taken(d *draft) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d != nil && m.ready == d {
		m.ready = nil
	}
}

// forget drops a key that nobody took.
func (m *maker) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = nil
}
