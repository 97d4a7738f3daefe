package rapi

import (
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"rolekey/cluster"
)

// FastHashes makes passwords cheap for a test, and weak.
func FastHashes(t *testing.T) {
	old := hashCost
	hashCost = bcrypt.MinCost
	t.Cleanup(func() { hashCost = old })
}

// Route is one path and what it needs.
type Route struct {
	Verb, Path string
	Needs      cluster.Permission
}

// Routes lists everything that is served.
func Routes(b Backend) []Route {
	var out []Route
	for _, r := range (&api{b: b, now: time.Now}).routes() {
		out = append(out, Route{r.verb, r.path, r.permission()})
	}
	return out
}
