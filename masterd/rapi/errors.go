package rapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

// statusError is a refusal that Ganeti's clients know.
type statusError struct {
	status  int
	message string
}

// Error implements error.
func (e *statusError) Error() string { return e.message }

func badRequest(message string) error { return &statusError{http.StatusBadRequest, message} }

var errNotFound = &statusError{http.StatusNotFound, "Not Found"}

// explanations are those of Python's http.server, which Ganeti's server sends.
var explanations = map[int]string{
	400: "Bad request syntax or unsupported method",
	401: "No permission -- see authorization schemes",
	403: "Request forbidden -- authorization will not help",
	404: "Nothing matches the given URI",
	409: "Request conflict",
	413: "Entity is too large",
	415: "Entity body in unsupported format",
	422: "The request was understood but cannot be followed",
	429: "Too many requests at a time",
	500: "Server got itself in trouble",
	501: "Server does not support this operation",
	503: "The server cannot process the request due to a high load",
}

// reasons gives refusals of Ganeti's kind a code of ours.
var reasons = map[int]cluster.Code{
	400: cluster.CodeBadFormat, 401: cluster.CodeUnauthorized, 403: cluster.CodeForbidden, 404: cluster.CodeNotFound,
	413: cluster.CodeTooLarge, 415: cluster.CodeUnsupportedFormat, 501: cluster.CodeUnsupportedFormat,
}

// escape does what Python's html.escape does.
var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#x27;")

// errorBody words a refusal. Whoever may ask here may know why.
func errorBody(err error) wire.Error {
	body := wire.Error{Code: http.StatusInternalServerError, Message: err.Error(), Reason: cluster.CodeInternal}
	var coded *cluster.Error
	var plain *statusError
	switch {
	case errors.As(err, &plain):
		body.Code, body.Message, body.Reason = plain.status, plain.message, reasons[plain.status]
	case errors.As(err, &coded):
		body.Code, body.Message, body.Reason = coded.Code.HTTPStatus(), coded.Message, coded.Code
		body.Hint, body.Node = coded.Hint, coded.Node
	}
	body.Message, body.Explain = escape.Replace(body.Message), explanations[body.Code]
	return body
}

func writeError(w http.ResponseWriter, body wire.Error) {
	if body.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="Ganeti Remote API"`)
	}
	writeJSON(w, body.Code, body)
}

// encode returns the object and a line end.
func encode(v any) ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return text.Bytes(), err
}

// writeJSON answers with the object.
func writeJSON(w http.ResponseWriter, status int, v any) {
	text, err := encode(v)
	if err != nil {
		status = http.StatusInternalServerError
		text = []byte(`{"code": 500, "message": "The answer cannot be encoded", "explain": null}` + "\n")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // a peer that left needs no answer
}
