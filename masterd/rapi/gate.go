package rapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/rpc"
)

// gate stands before every path.
type gate struct {
	b        Backend
	identify func(*http.Request) (Caller, error)
	record   func(audit.Event)
	origin   http.CrossOriginProtection
}

// of serves a path to callers who have the permission.
func (g *gate) of(needed cluster.Permission, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := rpc.NewRequestID()
		w.Header().Set(rpc.RequestIDHeader, id)
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, id))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		r, err := admit(r, g.identify, needed)
		// A browser that knows an administrator's password or certificate sends it
		// along with what a foreign page makes it ask.
		if err == nil && g.origin.Check(r) != nil {
			err = errForbidden
		}
		var out any
		if err == nil {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			out, err = answer(h, r)
		}
		g.note(r, id, err)
		if err != nil {
			g.refuse(w, err)
			return
		}
		if r.Method != http.MethodGet {
			writeJSON(w, http.StatusOK, out)
			return
		}
		p, ready := out.(prepared)
		if !ready {
			p, err = prepare(out)
		}
		if err != nil {
			g.refuse(w, err)
			return
		}
		p.write(w, r)
	})
}

// refuse answers with a refusal, which tells where the master is.
func (g *gate) refuse(w http.ResponseWriter, err error) {
	body := errorBody(err)
	if body.Reason == cluster.CodeNotMaster {
		body.MasterURL = masterURL(g.b, body.Node)
	}
	writeError(w, body)
}

func answer(h handler, r *http.Request) (any, error) {
	if r.ContentLength != 0 && !strings.EqualFold(r.Header.Get("Content-Type"), "application/json") {
		return nil, &statusError{http.StatusUnsupportedMediaType, "Unsupported Media Type"}
	}
	return h(r)
}

type requestKey struct{}

// requestID ties together what comes of a request.
func requestID(r *http.Request) string {
	id, _ := r.Context().Value(requestKey{}).(string)
	return id
}

// note records what was refused, and what may have changed something. A path or
// an object that is not there is not worth a line.
func (g *gate) note(r *http.Request, id string, err error) {
	e := audit.Event{
		Act: audit.RAPICalled, Op: r.Method, Target: r.URL.Path,
		Caller: audit.Caller{Actor: actor(r), Remote: r.RemoteAddr, RequestID: id},
	}.Of(err)
	var plain *statusError
	if errors.As(err, &plain) {
		e.Outcome, e.Code = audit.Refused, reasons[plain.status]
	}
	switch e.Outcome {
	case audit.OK:
		if r.Method == http.MethodGet {
			return
		}
	case audit.Refused:
		if e.Code == cluster.CodeNotFound {
			return
		}
	}
	g.record(e)
}
