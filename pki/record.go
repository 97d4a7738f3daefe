package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"rolekey/cluster"
)

// RecordState is where an admission record stands.
type RecordState string

// The states; docs/admission.rst draws the arrows between them.
const (
	RecordOpen    RecordState = "open"
	RecordBound   RecordState = "bound"
	RecordSpent   RecordState = "spent"
	RecordRevoked RecordState = "revoked"
)

// Record is the cluster's side of an admission string. It is a value: its
// methods return the record that follows.
type Record struct {
	ID        cluster.UUID      `json:"id"`
	Name      cluster.Name      `json:"name"`
	Addresses []netip.Addr      `json:"addresses,omitempty"` // where the request may come from; none: anywhere
	PublicKey ed25519.PublicKey `json:"public_key"`
	Created   time.Time         `json:"created"`
	Expires   time.Time         `json:"expires"`
	State     RecordState       `json:"state"`
	Bound     cluster.Digest    `json:"bound,omitzero"` // pin of the node's identity key
	Node      cluster.NodeID    `json:"node"`           // the UUID that the node will have
	Actor     string            `json:"actor"`          // who asked for it

	Wishes // from feature level 2 on
}

// Wishes are what the administrator said of the node that is to join, beyond
// its name. It does not say these things itself; what is unset is up to it.
type Wishes struct {
	Secondary     netip.Addr `json:"secondary,omitzero"` // its second address
	SSHPort       uint16     `json:"ssh_port,omitempty"`
	MasterCapable *bool      `json:"master_capable,omitempty"`
	VMCapable     *bool      `json:"vm_capable,omitempty"`
}

// Any reports whether something was said.
func (w Wishes) Any() bool { return w != Wishes{} }

// Apply returns the addresses and ports of a node by what was said.
func (w Wishes) Apply(addrs []netip.Addr, ports cluster.Ports) ([]netip.Addr, cluster.Ports) {
	if w.Secondary.IsValid() && !slices.Contains(addrs, w.Secondary) && len(addrs) > 0 {
		addrs = slices.Insert(slices.Clone(addrs), 1, w.Secondary)
	}
	if w.SSHPort != 0 {
		ports.SSH = w.SSHPort
	}
	return addrs, ports
}

// RecordSpec says what to admit.
type RecordSpec struct {
	Name      cluster.Name
	Addresses []netip.Addr
	Node      cluster.NodeID // of a node that is added again; zero: a new UUID
	TTL       time.Duration  // zero: DefaultTTL
	Actor     string
	Wishes
}

// NewRecord makes an open record, and the seed for its admission string. The
// seed is kept nowhere else.
func NewRecord(spec RecordSpec, now time.Time) (Record, cluster.Secret, error) {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails since Go 1.24
	pub, _ := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	ttl := spec.TTL
	if ttl == 0 {
		ttl = DefaultTTL
	}
	created := now.UTC().Truncate(time.Second)
	r := Record{
		ID: cluster.NewUUID(), Name: spec.Name, Addresses: slices.Clone(spec.Addresses), PublicKey: pub,
		Created: created, Expires: created.Add(ttl), State: RecordOpen, Node: spec.Node, Actor: spec.Actor,
		Wishes: spec.Wishes,
	}
	if r.Node.IsZero() {
		r.Node = cluster.NewUUID()
	}
	if err := r.Validate(); err != nil {
		return Record{}, cluster.Secret{}, err
	}
	return r, cluster.NewSecret(seed), nil
}

// Validate checks a record that was decoded.
func (r Record) Validate() error {
	if err := r.validate(); err != nil {
		return fmt.Errorf("check admission record: %w", err)
	}
	return nil
}

func (r Record) validate() error {
	if r.ID.IsZero() || r.Node.IsZero() {
		return errors.New("a UUID is missing")
	}
	if _, err := cluster.ParseName(string(r.Name)); err != nil {
		return err
	}
	if err := checkAddresses(r.Addresses); err != nil {
		return err
	}
	if r.Secondary.IsValid() {
		if err := checkAddresses([]netip.Addr{r.Secondary}); err != nil {
			return err
		}
	}
	if ttl := r.Expires.Sub(r.Created); ttl < MinTTL || ttl > MaxTTL {
		return fmt.Errorf("life of %s, want %s to %s", ttl, MinTTL, MaxTTL)
	}
	if len(r.Actor) > maxActor {
		return fmt.Errorf("actor over %d bytes", maxActor)
	}
	if err := r.validateState(); err != nil {
		return err
	}
	return checkEd25519(r.PublicKey)
}

// validateState checks that a key is bound exactly when the state says so; a
// revoked record may or may not have been bound.
func (r Record) validateState() error {
	switch r.State {
	case RecordRevoked:
		return nil
	case RecordOpen:
		if r.Bound.IsZero() {
			return nil
		}
	case RecordBound, RecordSpent:
		if !r.Bound.IsZero() {
			return nil
		}
	default:
		return errors.New("unknown state")
	}
	return fmt.Errorf("state %s and bound key contradict each other", r.State)
}

// Check says whether a request may be admitted now: from remote, under this
// name, with this key. The proof of the seed has been checked before, so that
// the answers go only to a holder of the string. It changes nothing; Bind
// does, and checks again.
func (r Record) Check(now time.Time, name cluster.Name, remote netip.Addr, key cluster.Digest) error {
	switch {
	case key.IsZero():
		return cluster.Errorf(cluster.CodeBadFormat, "admission request without a key")
	case r.State == RecordRevoked:
		return r.revoked()
	case name != r.Name:
		return cluster.Errorf(cluster.CodeTokenNodeMismatch, "this admission string is for node %s, not for %s", r.Name, name).
			WithHint("Use it on %s, or make one for %s: gnt-node add %s", r.Name, name, name)
	case !r.allows(remote):
		return cluster.Errorf(cluster.CodeTokenNodeMismatch, "this admission string is bound to addresses %v; the request came from %s", r.Addresses, remote).
			WithHint("Join from one of these addresses, or make a string with the right one: gnt-node add %s --address ADDRESS", r.Name)
	case r.State == RecordSpent:
		return r.used("node %s has joined with this admission string; it is good for one node once", r.Name)
	case r.State == RecordBound && key != r.Bound:
		return r.used("this admission string was already used with another key")
	case !now.Before(r.Expires):
		return cluster.Errorf(cluster.CodeTokenExpired, "this admission string expired at %s", r.Expires.Format(time.RFC3339)).
			WithHint("Make a new one on the master: gnt-node add %s", r.Name)
	case r.State != RecordOpen && r.State != RecordBound:
		return cluster.Errorf(cluster.CodeInternal, "admission record in an unknown state")
	}
	return nil
}

// allows reports whether a request may come from remote. A listener for both
// families reports IPv4 peers as IPv6.
func (r Record) allows(remote netip.Addr) bool { return r.Allows(remote.Unmap().WithZone("")) }

// Allows reports whether the node may have an address.
func (r Record) Allows(a netip.Addr) bool {
	return len(r.Addresses) == 0 || a.IsValid() && a == r.Secondary || slices.Contains(r.Addresses, a)
}

func (r Record) used(format string, args ...any) error {
	return cluster.Errorf(cluster.CodeTokenUsed, format, args...).
		WithHint("If you did not do that, somebody else has the string: gnt-node remove %s. Otherwise make a new one: gnt-node add %s", r.Name, r.Name)
}

func (r Record) revoked() error {
	return cluster.Errorf(cluster.CodeTokenUnknown, "this admission string was revoked").
		WithHint("Make a new one on the master: gnt-node add %s", r.Name)
}

// Bind binds the record to the key, or returns why not. The key that is bound
// already may bind again: its owner did not get the reply.
func (r Record) Bind(now time.Time, name cluster.Name, remote netip.Addr, key cluster.Digest) (Record, error) {
	if err := r.Check(now, name, remote, key); err != nil {
		return r, err
	}
	r.State, r.Bound = RecordBound, key
	return r, nil
}

// Spend ends the record at the first use of the identity certificate, whose
// pin is key. A spent record stays as it is: by then the key may have been
// renewed. Expiry is no hindrance, since the certificate has been issued.
func (r Record) Spend(key cluster.Digest) (Record, error) {
	switch {
	case r.State == RecordSpent:
		return r, nil
	case r.State == RecordRevoked:
		return r, r.revoked()
	case r.State != RecordBound:
		return r, cluster.Errorf(cluster.CodeConflict, "no key is bound to admission record %s", r.ID)
	case key != r.Bound:
		return r, r.used("this admission string was used with another key")
	}
	r.State = RecordSpent
	return r, nil
}

// Revoke makes the string worthless. The string of a node that has joined
// already is worthless; there the node must be removed.
func (r Record) Revoke() (Record, error) {
	if r.State == RecordSpent {
		return r, cluster.Errorf(cluster.CodeConflict, "node %s has joined with this admission string", r.Name).
			WithHint("To undo that, remove the node: gnt-node remove %s", r.Name)
	}
	r.State = RecordRevoked
	return r, nil
}

// keepUntil says from when on nobody asks for the record any more. A bound
// one answers for an identity certificate until that has expired.
func (r Record) keepUntil() time.Time {
	if r.State == RecordBound {
		return r.Expires.Add(LifetimeNode)
	}
	return r.Expires.Add(retention)
}
