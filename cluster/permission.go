package cluster

import "fmt"

// Permission is what a user of the remote API may do. Each includes the one
// before it.
type Permission string

// The permissions. PermissionAdmin allows what changes who holds power:
// admission of nodes, failover, renewal of keys.
const (
	PermissionRead  Permission = "read"
	PermissionWrite Permission = "write"
	PermissionAdmin Permission = "admin"
)

var permissions = map[Permission]int{PermissionRead: 1, PermissionWrite: 2, PermissionAdmin: 3}

// ParsePermission reads a permission.
func ParsePermission(s string) (Permission, error) {
	if p := Permission(s); permissions[p] > 0 {
		return p, nil
	}
	return "", fmt.Errorf("parse permission %q: want read, write or admin", clip(s))
}

// Allows reports whether who has p may do what needs the other.
func (p Permission) Allows(needed Permission) bool {
	return permissions[needed] > 0 && permissions[p] >= permissions[needed]
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Permission) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePermission(string(b))
	return err
}
