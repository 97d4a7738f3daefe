package cli

import (
	"errors"
	"net/netip"
	"time"

	"rolekey/cluster"
)

// switchValue is a flag that takes yes or no, as Ganeti's do.
type switchValue struct{ to **bool }

// String implements pflag.Value.
func (v switchValue) String() string {
	switch {
	case v.to == nil || *v.to == nil:
		return ""
	case **v.to:
		return "yes"
	}
	return "no"
}

// Set implements pflag.Value.
func (v switchValue) Set(s string) error {
	switch s {
	case "yes", "true":
		*v.to = new(true)
	case "no", "false":
		*v.to = new(false)
	default:
		return errors.New("want yes or no")
	}
	return nil
}

// Type implements pflag.Value.
func (switchValue) Type() string { return "yes|no" }

// wholeSeconds converts a duration that the map can hold.
func wholeSeconds(flag string, d time.Duration) (uint32, error) {
	if d <= 0 || d%time.Second != 0 || d > time.Duration(1<<31)*time.Second {
		return 0, usage("--%s %s: want whole seconds, as 3s or 2m", flag, d)
	}
	return uint32(d / time.Second), nil
}

func parseAddresses(list []string) ([]netip.Addr, error) {
	out := make([]netip.Addr, len(list))
	for i, s := range list {
		a, err := cluster.ParseAddr(s)
		if err != nil {
			return nil, usage("%v", err)
		}
		out[i] = a
	}
	return out, nil
}

func parseName(s string) (cluster.Name, error) {
	name, err := cluster.ParseName(s)
	if err != nil {
		return "", usage("%v", err)
	}
	return name, nil
}
