package cluster

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Version orders candidate maps: the epoch, which only a recovery raises, is
// compared before the version. The zero Version is older than every map.
type Version struct {
	Epoch   uint64 `json:"epoch"`
	Version uint64 `json:"version"`
}

// Compare returns -1, 0 or 1 as v is older than, equal to or newer than w.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Epoch, w.Epoch), cmp.Compare(v.Version, w.Version))
}

// Newer reports whether v is newer than w.
func (v Version) Newer(w Version) bool { return v.Compare(w) > 0 }

// IsZero reports whether v is older than every map.
func (v Version) IsZero() bool { return v == Version{} }

// String returns "epoch.version", the form used in URLs and messages.
func (v Version) String() string {
	return strconv.FormatUint(v.Epoch, 10) + "." + strconv.FormatUint(v.Version, 10)
}

// ParseVersion reads the form that String returns.
func ParseVersion(s string) (Version, error) {
	e, n, ok := strings.Cut(s, ".")
	epoch, err1 := strconv.ParseUint(e, 10, 63)
	version, err2 := strconv.ParseUint(n, 10, 63)
	v := Version{epoch, version}
	if !ok || err1 != nil || err2 != nil || v.String() != s {
		return Version{}, fmt.Errorf("parse version %q: want EPOCH.VERSION, such as 1.42", clip(s))
	}
	return v, nil
}
