package cluster

import (
	"errors"
	"fmt"
)

// Code is the stable short name of a refusal or failure on the wire. Scripts
// may rely on it; the message beside it is for people and may change.
type Code string

// Refusals of the RPC gate, of documents, and of admission.
const (
	CodeNoCertificate     Code = "no_certificate"
	CodeNotInRoster       Code = "not_in_roster"
	CodeNotInMap          Code = "not_in_map"
	CodeIdentityMismatch  Code = "identity_mismatch"
	CodeNotMaster         Code = "not_master"
	CodeEvicted           Code = "evicted"
	CodeTokenUnknown      Code = "token_unknown"
	CodeTokenUsed         Code = "token_used"
	CodeTokenExpired      Code = "token_expired"
	CodeTokenNodeMismatch Code = "token_node_mismatch"
	CodeNotFound          Code = "not_found"
	CodeMapOlder          Code = "map_older"
	CodeMapFork           Code = "map_fork"
	CodeTermOlder         Code = "term_older"
	CodeConflict          Code = "conflict"
	CodeAlreadyExists     Code = "already_exists"
	CodeKeysLost          Code = "keys_lost"
	CodeHooksFailed       Code = "hooks_failed"
	CodeTooLarge          Code = "too_large"
	CodeBadSignature      Code = "bad_signature"
	CodeBadFormat         Code = "bad_format"
	CodeUnsupportedFormat Code = "unsupported_format"
	CodeTrustExpired      Code = "trust_expired"
	CodeBusy              Code = "busy"
	CodeInternal          Code = "internal"
	CodeMapStale          Code = "map_stale"
	CodeNoMap             Code = "no_map"
	CodeNoQuorum          Code = "no_quorum"
	CodeUnavailable       Code = "unavailable"
	CodeQueueDrained      Code = "queue_drained"
	CodeUnauthorized      Code = "unauthorized" // of the remote API: nobody known
	CodeForbidden         Code = "forbidden"    // same: known, and not allowed
)

// httpStatus is the one place where codes become HTTP statuses.
var httpStatus = map[Code]int{
	CodeNoCertificate: 401, CodeUnauthorized: 401,
	CodeForbidden: 403, CodeNotInRoster: 403, CodeNotInMap: 403, CodeIdentityMismatch: 403, CodeNotMaster: 403, CodeEvicted: 403,
	CodeTokenUnknown: 403, CodeTokenUsed: 403, CodeTokenExpired: 403, CodeTokenNodeMismatch: 403,
	CodeNotFound: 404,
	CodeMapOlder: 409, CodeMapFork: 409, CodeTermOlder: 409, CodeConflict: 409, CodeAlreadyExists: 409, CodeKeysLost: 409, CodeHooksFailed: 409,
	CodeTooLarge:     413,
	CodeBadSignature: 422, CodeBadFormat: 422, CodeUnsupportedFormat: 422, CodeTrustExpired: 422,
	CodeBusy:     429,
	CodeInternal: 500,
	CodeMapStale: 503, CodeNoMap: 503, CodeNoQuorum: 503, CodeUnavailable: 503, CodeQueueDrained: 503,
}

// HTTPStatus returns the status that carries the code; 500 for an unknown one.
func (c Code) HTTPStatus() int {
	if s, ok := httpStatus[c]; ok {
		return s
	}
	return 500
}

// Error is an error with a stable code: the body of a refusal on the wire, and
// what the command line explains. It never holds a secret.
type Error struct {
	Code      Code   `json:"code"`
	Message   string `json:"message"`
	Hint      string `json:"hint"`
	Node      string `json:"node"`
	RequestID string `json:"request_id"`
}

// Errorf makes an Error with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns a copy that tells what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Error implements error.
func (e *Error) Error() string {
	if e.Node != "" {
		return e.Node + ": " + e.Message
	}
	return e.Message
}

// Is makes errors.Is(err, &Error{Code: c}) compare codes only.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// CodeOf returns the code of the first Error in err's chain, CodeInternal for
// any other error, and "" for nil.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	default:
		return CodeInternal
	}
}

// HintOf returns the hint of the first Error in err's chain, or "".
func HintOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}
