package state_test

import (
	"errors"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// TestOvertakenRenewals: what was computed from other pins than those of now is
// refused, and among many it is left out.
func TestOvertakenRenewals(t *testing.T) {
	l := statetest.New(t)
	l.Add(2)
	l.Add(3)
	s := l.S
	n, other := s.Node(statetest.ID(2)), s.Node(statetest.ID(3))
	was, next := n.Pins(state.CertServer), []cluster.Digest{n.Server[0], cluster.DigestOf([]byte("next"))}
	good := state.NodeCerts{Node: n.UUID, Kind: state.CertServer, Pins: next, Was: was}
	late := state.NodeCerts{Node: other.UUID, Kind: state.CertIdentity, Pins: next, Was: next}
	free := state.NodeCerts{Node: other.UUID, Kind: state.CertSigning}
	if _, err := good.Current(s); err != nil {
		t.Error(err)
	}
	if _, err := late.Current(s); !errors.Is(err, state.ErrOvertaken) {
		t.Errorf("%v", err)
	}
	got, err := state.NodesCerts{Certs: []state.NodeCerts{good, late, free}}.Current(s)
	if many := got.(state.NodesCerts).Certs; err != nil || len(many) != 2 || many[0].Node != n.UUID || many[1].Kind != state.CertSigning {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := (state.NodesCerts{Certs: []state.NodeCerts{late}}).Current(s); !errors.Is(err, state.ErrOvertaken) {
		t.Errorf("%v", err)
	}
	if _, err := (state.NodesCerts{Certs: []state.NodeCerts{late}, Stale: []state.StaleNode{{Node: n.UUID}}}).Current(s); err != nil {
		t.Error(err)
	}
}
