package rapi

import (
	"context"
	"net/http"

	"rolekey/cluster"
	"rolekey/rpc"
)

// Caller is who asks, and what he may do.
type Caller struct {
	Actor      string // for jobs and the audit
	Permission cluster.Permission
	Local      bool // on the root-only socket: may also raise privileges
}

type callerKey struct{}

func callerOf(r *http.Request) Caller {
	c, _ := r.Context().Value(callerKey{}).(Caller)
	return c
}

// localCaller is whoever the kernel vouches for.
func localCaller(r *http.Request) (Caller, error) {
	uid, ok := rpc.LocalUID(r.Context())
	if !ok {
		return Caller{}, errUnauthorized
	}
	return Caller{Actor: rpc.LocalActor(uid), Permission: cluster.PermissionAdmin, Local: true}, nil
}

var (
	errUnauthorized = &statusError{http.StatusUnauthorized, "Unauthorized"}
	errForbidden    = &statusError{http.StatusForbidden, "Forbidden"}
)

// admit finds out who asks, and refuses who may not. What the caller may not
// do is no secret, so it comes before anything else is looked at.
func admit(r *http.Request, identify func(*http.Request) (Caller, error), needed cluster.Permission) (*http.Request, error) {
	c, err := identify(r)
	if err != nil {
		return r, err
	}
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
	if !c.Permission.Allows(needed) {
		return r, errForbidden
	}
	return r, nil
}

// actor says who asks, for jobs and the audit.
func actor(r *http.Request) string { return callerOf(r).Actor }
