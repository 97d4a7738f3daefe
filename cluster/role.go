package cluster

import "fmt"

// Role is what a node is at present, derived from its flags and from who is
// master. The precedence is Ganeti's: master, then candidate, drained,
// offline, regular.
type Role uint8

// The roles. Their order means nothing.
const (
	RoleRegular Role = iota
	RoleMaster
	RoleCandidate
	RoleDrained
	RoleOffline
)

var roleWords = [...]struct {
	name string
	code byte
}{
	RoleRegular:   {"regular", 'R'},
	RoleMaster:    {"master", 'M'},
	RoleCandidate: {"master-candidate", 'C'},
	RoleDrained:   {"drained", 'D'},
	RoleOffline:   {"offline", 'O'},
}

// String returns the word, such as "master-candidate".
func (r Role) String() string {
	if int(r) < len(roleWords) {
		return roleWords[r].name
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// Code returns Ganeti's one-letter code: M, C, R, D or O.
func (r Role) Code() string {
	if int(r) < len(roleWords) {
		return string(roleWords[r].code)
	}
	return "?"
}

// ParseRole reads the word form.
func ParseRole(s string) (Role, error) {
	for r, w := range roleWords {
		if w.name == s {
			return Role(r), nil
		}
	}
	return 0, fmt.Errorf("parse role %q: want master, master-candidate, regular, drained or offline", clip(s))
}

// MarshalText implements encoding.TextMarshaler.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Role) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRole(string(b))
	return err
}

// Candidate reports whether a node in this role may hold root's key and call
// other nodes.
func (r Role) Candidate() bool { return r == RoleMaster || r == RoleCandidate }

// Flags are a node's replicated switches. MasterCandidate, Drained and
// Offline exclude one another.
type Flags struct {
	MasterCandidate bool `json:"master_candidate"`
	Drained         bool `json:"drained"`
	Offline         bool `json:"offline"`
	MasterCapable   bool `json:"master_capable"`
	VMCapable       bool `json:"vm_capable"`
}

// Valid reports whether the flags do not contradict one another.
func (f Flags) Valid() bool {
	n := 0
	for _, on := range [...]bool{f.MasterCandidate, f.Drained, f.Offline} {
		if on {
			n++
		}
	}
	return n <= 1 && (f.MasterCapable || !f.MasterCandidate)
}

// Role derives the role of a node with these flags.
func (f Flags) Role(isMaster bool) Role {
	switch {
	case isMaster:
		return RoleMaster
	case f.MasterCandidate:
		return RoleCandidate
	case f.Drained:
		return RoleDrained
	case f.Offline:
		return RoleOffline
	default:
		return RoleRegular
	}
}
