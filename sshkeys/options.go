package sshkeys

import (
	"fmt"
	"time"
)

// Options say which form of the expiry this node's sshd understands: an option
// that sshd cannot parse kills the whole line. Take them from OptionsFor.
type Options struct {
	// ExpiryZ writes the expiry in UTC with a Z (OpenSSH 9.1 and later).
	// Otherwise it is in local time, which older servers assume.
	ExpiryZ bool
	// NoExpiry leaves the expiry out, for servers before 7.7. Trust in a
	// stale map then has no bound in sshd, which verify must say.
	NoExpiry bool
	// Location is sshd's time zone for the form without Z; nil means the
	// process's own. An expiry inside the hour that a change of clocks repeats
	// may be read up to that hour late.
	Location *time.Location
}

// OptionsFor returns the options that an sshd of version v understands. For an
// unknown version they are the ones that every version understands.
func OptionsFor(v Version) Options {
	return Options{ExpiryZ: v.AtLeast(9, 1), NoExpiry: !v.AtLeast(7, 7)}
}

// lastYear is where four digits end.
const lastYear = 9999

// expiryOption renders the option with its leading comma.
func (o Options) expiryOption(expires time.Time) (string, error) {
	if o.NoExpiry {
		return "", nil
	}
	if expires.IsZero() || expires.Unix() < 0 || expires.UTC().Year() >= lastYear {
		return "", fmt.Errorf("expiry %s: want a time from 1970 to %d", expires.UTC().Format(time.RFC3339), lastYear-1)
	}
	const layout = "20060102150405"
	if o.ExpiryZ {
		return `,expiry-time="` + expires.UTC().Format(layout) + `Z"`, nil
	}
	loc := o.Location
	if loc == nil {
		loc = time.Local
	}
	return `,expiry-time="` + expires.In(loc).Format(layout) + `"`, nil
}
