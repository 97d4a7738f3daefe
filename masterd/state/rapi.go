package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rolekey/cluster"
)

// RAPI is who may use the remote API, and what it shows to be this cluster's.
type RAPI struct {
	Users  []RAPIUser  `json:"users,omitempty"`  // by name
	Admins []RAPIAdmin `json:"admins,omitempty"` // by name
	// Cert is the administrator's own certificate chain, PEM; empty: every
	// candidate issues one to itself. Key is its private half.
	Cert []byte         `json:"cert,omitempty"`
	Key  cluster.Secret `json:"-"`
	// Since ends certificates that candidates issued to themselves before it.
	Since time.Time `json:"since,omitzero"`
}

// RAPIUser may use the remote API by password.
type RAPIUser struct {
	Name       string             `json:"name"`
	Permission cluster.Permission `json:"permission"`
	Changed    time.Time          `json:"changed"`
	Hash       cluster.Secret     `json:"-"` // bcrypt
}

// RAPIAdmin is an administrator who uses the remote API by a client
// certificate. Whoever is not listed is nobody, whatever certificate he shows.
type RAPIAdmin struct {
	Name       string             `json:"name"`
	Permission cluster.Permission `json:"permission"`
	Digest     cluster.Digest     `json:"digest"` // SHA-256 of the DER certificate
	NotAfter   time.Time          `json:"not_after"`
	Changed    time.Time          `json:"changed"`
}

// RAPIUserChange adds a user or replaces the one of that name; without a hash
// it removes the user.
type RAPIUserChange struct {
	Name       string
	Permission cluster.Permission
	Hash       cluster.Secret
}

type rapiUserWire struct {
	Name       string             `json:"name"`
	Permission cluster.Permission `json:"permission,omitempty"`
	Hash       []byte             `json:"hash,omitempty"`
}

func (c RAPIUserChange) wire() any { return rapiUserWire{c.Name, c.Permission, c.Hash.Reveal()} }

// RAPIAdminChange adds an administrator's certificate or replaces the one of
// that name; with a zero digest it removes it.
type RAPIAdminChange struct {
	Name       string             `json:"name"`
	Permission cluster.Permission `json:"permission,omitempty"`
	Digest     cluster.Digest     `json:"digest,omitzero"`
	NotAfter   time.Time          `json:"not_after,omitzero"`
}

// RAPICertChange installs a certificate of the administrator's own, or, without
// one, has every candidate issue a new one to itself.
type RAPICertChange struct {
	Cert []byte
	Key  cluster.Secret
	Job  *JobUpdate
}

type rapiCertWire struct {
	Cert []byte     `json:"cert,omitempty"`
	Key  []byte     `json:"key,omitempty"`
	Job  *JobUpdate `json:"job,omitempty"`
}

func (c RAPICertChange) wire() any { return rapiCertWire{c.Cert, c.Key.Reveal(), c.Job} }

// IsZero reports whether nothing was ever set; then it is absent from a
// snapshot, as in those of earlier releases.
func (r RAPI) IsZero() bool {
	return len(r.Users)+len(r.Admins)+len(r.Cert) == 0 && r.Since.IsZero()
}

// User returns the user of a name, or nil.
func (r *RAPI) User(name string) *RAPIUser {
	i := slices.IndexFunc(r.Users, func(u RAPIUser) bool { return u.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Users[i]
}

// Admin returns the administrator with that certificate, or nil.
func (r *RAPI) Admin(cert cluster.Digest) *RAPIAdmin {
	i := slices.IndexFunc(r.Admins, func(a RAPIAdmin) bool { return a.Digest == cert })
	if i < 0 || cert.IsZero() {
		return nil
	}
	return &r.Admins[i]
}

// CheckRAPIName accepts names that fit into HTTP basic authentication and
// Ganeti's users file.
func CheckRAPIName(name string) error {
	if name == "" || len(name) > MaxRAPIName {
		return fmt.Errorf("name %.40q: want 1 to %d characters", name, MaxRAPIName)
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || c == ':' || c == '#' {
			return fmt.Errorf("name %.40q: want printable ASCII without blanks, : and #", name)
		}
	}
	return nil
}

func (c *rapiUserWire) apply(d *draft) error {
	if err := CheckRAPIName(c.Name); err != nil {
		return badFormat("%v", err)
	}
	old := d.RAPI.User(c.Name)
	if len(c.Hash) == 0 && old == nil {
		return cluster.Errorf(cluster.CodeNotFound, "there is no user %s of the remote API", c.Name)
	}
	users := slices.DeleteFunc(slices.Clone(d.RAPI.Users), func(u RAPIUser) bool { return u.Name == c.Name })
	if len(c.Hash) > 0 {
		users = append(users, RAPIUser{c.Name, c.Permission, d.now, cluster.NewSecret(c.Hash)})
		slices.SortFunc(users, func(a, b RAPIUser) int { return strings.Compare(a.Name, b.Name) })
	}
	d.RAPI.Users = notEmpty(users)
	return d.RAPI.check()
}

func (c *RAPIAdminChange) apply(d *draft) error {
	if err := CheckRAPIName(c.Name); err != nil {
		return badFormat("%v", err)
	}
	admins := slices.DeleteFunc(slices.Clone(d.RAPI.Admins), func(a RAPIAdmin) bool { return a.Name == c.Name })
	if c.Digest.IsZero() && len(admins) == len(d.RAPI.Admins) {
		return cluster.Errorf(cluster.CodeNotFound, "there is no administrator %s", c.Name)
	}
	if !c.Digest.IsZero() {
		admins = append(admins, RAPIAdmin{c.Name, c.Permission, c.Digest, c.NotAfter, d.now})
		slices.SortFunc(admins, func(a, b RAPIAdmin) int { return strings.Compare(a.Name, b.Name) })
	}
	d.RAPI.Admins = notEmpty(admins)
	return d.RAPI.check()
}

func (c *rapiCertWire) apply(d *draft) error {
	d.RAPI.Cert, d.RAPI.Key, d.RAPI.Since = c.Cert, cluster.NewSecret(c.Key), d.now
	if err := d.RAPI.check(); err != nil {
		return err
	}
	return d.linkJob(c.Job)
}

// notEmpty gives an absent list its one form.
func notEmpty[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return list
}

func (r *RAPI) check() error {
	if len(r.Users) > MaxRAPIUsers || len(r.Admins) > MaxRAPIUsers {
		return conflict("more than %d users or administrators of the remote API", MaxRAPIUsers)
	}
	for i, u := range r.Users {
		if err := errors.Join(CheckRAPIName(u.Name), checkPermission(u.Permission)); err != nil {
			return badFormat("user of the remote API: %v", err)
		}
		if n := len(u.Hash.Reveal()); n < 20 || n > MaxRAPIHash || i > 0 && r.Users[i-1].Name >= u.Name {
			return badFormat("user %s of the remote API: the hash is missing, or the list is not sorted", u.Name)
		}
	}
	digests := map[cluster.Digest]bool{}
	for i, a := range r.Admins {
		if err := errors.Join(CheckRAPIName(a.Name), checkPermission(a.Permission)); err != nil {
			return badFormat("administrator: %v", err)
		}
		if a.Digest.IsZero() || digests[a.Digest] || !validTime(a.NotAfter) || i > 0 && r.Admins[i-1].Name >= a.Name {
			return badFormat("administrator %s: the digest is missing or another's, the end is no time, or the list is not sorted", a.Name)
		}
		digests[a.Digest] = true
	}
	if len(r.Cert) > MaxRAPICert || len(r.Key.Reveal()) > MaxRAPICert || (len(r.Cert) == 0) != r.Key.IsZero() {
		return badFormat("certificate of the remote API: want certificate and key, of at most %d bytes each, or neither", MaxRAPICert)
	}
	return nil
}

func checkPermission(p cluster.Permission) error {
	_, err := cluster.ParsePermission(string(p))
	return err
}

// rapiSecrets is the part of a snapshot that reveals RAPI's secrets.
type rapiSecrets struct {
	Hashes [][]byte `json:"hashes,omitempty"` // in the order of the users
	Key    []byte   `json:"key,omitempty"`
}

func (r *RAPI) reveal() rapiSecrets {
	out := rapiSecrets{Key: r.Key.Reveal()}
	for _, u := range r.Users {
		out.Hashes = append(out.Hashes, u.Hash.Reveal())
	}
	return out
}

func (r *RAPI) take(s rapiSecrets) error {
	if len(s.Hashes) != len(r.Users) {
		return errors.New("users of the remote API: not every one has a password")
	}
	for i, h := range s.Hashes {
		r.Users[i].Hash = cluster.NewSecret(h)
	}
	r.Key = cluster.NewSecret(s.Key)
	return r.check()
}
