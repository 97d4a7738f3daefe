package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"

	"rolekey/cluster"
)

// RequestIDHeader carries the id under which both ends log a call.
const RequestIDHeader = "Rolekey-Request-Id"

const (
	hexDigits    = "0123456789abcdef"
	requestIDLen = 16
	maxRefusal   = 64 << 10
)

// Refusal is the audit record of a call that was not served.
type Refusal struct {
	Reason     cluster.Code
	PeerDigest cluster.Digest // zero: no certificate
	PeerNode   cluster.NodeID // zero: unknown
	Method     string
	Remote     string
	RequestID  string
	Suppressed int64 // earlier refusals of this connection that were only counted
}

// refusalBody is a refusal on the wire.
type refusalBody struct {
	cluster.Error
	Version *cluster.Version `json:"version,omitempty"` // the map that the node holds
}

// refusalOf turns any error of a handler into what the peer is told. Errors
// without a code are this node's own trouble; their text may tell a stranger
// too much, so it goes only to peers that the caller calls trusted.
func refusalOf(err error, trusted bool) refusalBody {
	var stamp *StampError
	var coded *cluster.Error
	switch {
	case errors.As(err, &stamp):
		return refusalBody{Error: *stamp.Refusal, Version: &stamp.Held}
	case errors.As(err, &coded):
		return refusalBody{Error: *coded}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return refusalBody{Error: *cluster.Errorf(cluster.CodeUnavailable, "the call took too long here, or was cut off")}
	case trusted:
		return refusalBody{Error: *cluster.Errorf(cluster.CodeInternal, "%s", err)}
	default:
		return refusalBody{Error: *cluster.Errorf(cluster.CodeInternal, "internal error; this node's log has it by the request id")}
	}
}

func writeRefusal(w http.ResponseWriter, status int, body refusalBody) {
	text, err := json.Marshal(body)
	if err != nil {
		// Cannot happen: all fields are strings and numbers.
		http.Error(w, string(body.Code), status)
		return
	}
	writeJSON(w, status, text)
}

func writeJSON(w http.ResponseWriter, status int, text []byte) {
	w.Header()["Content-Type"] = contentJSON
	w.WriteHeader(status)
	_, _ = w.Write(text) // a peer that left needs no answer
}

// Shared header values; net/http does not change them.
var (
	contentJSON = []string{"application/json"}
	contentRaw  = []string{"application/octet-stream"}
)

// readRefusal decodes what the server at the other end refused with.
func readRefusal(status int, body io.Reader, node string) error {
	text, err := io.ReadAll(io.LimitReader(body, maxRefusal))
	if err != nil {
		return fmt.Errorf("read refusal: %w", err)
	}
	var b refusalBody
	if json.Unmarshal(text, &b) != nil || b.Code == "" {
		e := cluster.Errorf(cluster.CodeUnavailable, "unexpected answer with status %d", status)
		e.Node = node
		return e
	}
	if b.Node == "" {
		b.Node = node
	}
	if b.Version != nil {
		return &StampError{&b.Error, *b.Version}
	}
	return &b.Error
}

type requestIDKey struct{}

// WithRequestID returns a context whose calls carry the id of the request that
// they serve, so that one id finds all that came of it. An id that is not well
// formed is not carried.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

func requestIDOf(ctx context.Context) string {
	if id, _ := ctx.Value(requestIDKey{}).(string); wellFormed(id) {
		return id
	}
	return NewRequestID()
}

// NewRequestID returns 16 random hex digits. They tell calls apart and guard
// nothing, so they need not be unpredictable.
func NewRequestID() string {
	var b [requestIDLen]byte
	n := rand.Uint64()
	for i := range b {
		b[i] = hexDigits[n&0xf]
		n >>= 4
	}
	return string(b[:])
}

// requestID takes the caller's id if it is well formed: it reaches logs.
func requestID(h http.Header) string {
	if id := h.Get(RequestIDHeader); wellFormed(id) {
		return id
	}
	return NewRequestID()
}

func wellFormed(id string) bool {
	return len(id) == requestIDLen && strings.Trim(id, hexDigits) == ""
}
