package rapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"rolekey/rpc"
)

// maxBody bounds what a request may say.
const maxBody = 64 << 10

// api answers requests.
type api struct {
	b   Backend
	now func() time.Time
}

// New makes the handler of all paths.
func New(b Backend, now func() time.Time) http.Handler {
	a := &api{b, now}
	r := mux.NewRouter().SkipClean(true)
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeError(w, errNotFound) })
	r.MethodNotAllowedHandler = http.HandlerFunc(unsupported)
	for _, route := range a.routes() {
		r.Handle(route.path, route.do).Methods(route.verb)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if err := authenticate(req); err != nil {
			writeError(w, err)
			return
		}
		req.Body = http.MaxBytesReader(w, req.Body, maxBody)
		r.ServeHTTP(w, req)
	})
}

type route struct {
	verb, path string
	do         handler
}

// routes lists everything there is. Ganeti's paths come first.
func (a *api) routes() []route {
	const node, job = "/2/nodes/{node}", "/2/jobs/{job:[0-9]{1,18}}"
	return []route{
		{"GET", "/", nothing},
		{"GET", "/2", nothing},
		{"GET", "/version", func(*http.Request) (any, error) { return 2, nil }},
		{"GET", "/2/features", func(*http.Request) (any, error) { return features, nil }},
		{"GET", "/2/info", a.info},
		{"PUT", "/2/modify", a.modifyCluster},
		{"PUT", "/2/name", a.renameCluster},
		{"GET", "/2/queue", a.queue},
		{"PUT", "/2/queue", a.drainQueue},
		{"GET", "/2/nodes", a.nodes},
		{"GET", node, a.node},
		{"GET", node + "/role", a.role},
		{"PUT", node + "/role", a.setRole},
		{"POST", node + "/modify", a.modify},
		{"POST", node + "/rename", a.rename},
		{"POST", node + "/readd", a.readd},
		{"GET", node + "/tags", a.nodeTags},
		{"PUT", node + "/tags", a.changeNodeTags},
		{"DELETE", node + "/tags", a.changeNodeTags},
		{"GET", "/2/tags", a.clusterTags},
		{"PUT", "/2/tags", a.changeClusterTags},
		{"DELETE", "/2/tags", a.changeClusterTags},
		{"PUT", "/2/redistribute-config", a.redistribute},
		{"GET", "/2/jobs", a.jobs},
		{"GET", job, a.job},
		{"GET", job + "/wait", a.wait},
		{"DELETE", job, a.cancel},

		{"DELETE", node, a.remove},
		{"GET", node + "/state", a.inspect},
		{"GET", node + "/details", a.details},
		{"POST", "/2/jobs/archive", a.archive},
		{"GET", "/2/map", a.clusterMap},
		{"POST", "/2/verify", a.verify},
		{"GET", "/2/admissions", a.admissions},
		{"POST", "/2/admissions", a.admit},
		{"DELETE", "/2/admissions/{id}", a.revoke},
	}
}

// features are those that Ganeti's client asks for before it sends what we do
// not serve.
var features = []string{"node-migrate-reqv1", "instance-create-reqv1", "instance-reinstall-reqv1", "node-evac-res1"}

func nothing(*http.Request) (any, error) { return nil, nil }

func unsupported(w http.ResponseWriter, r *http.Request) {
	writeError(w, &statusError{
		http.StatusNotImplemented, fmt.Sprintf("Method %s is unsupported for path %s", r.Method, r.URL.Path),
	})
}

// handler answers a request with an object, which may be nil.
type handler func(r *http.Request) (any, error)

// ServeHTTP implements http.Handler.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && !strings.EqualFold(r.Header.Get("Content-Type"), "application/json") {
		writeError(w, &statusError{http.StatusUnsupportedMediaType, "Unsupported Media Type"})
		return
	}
	out, err := h(r)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, out)
}

// authenticate lets through whoever the kernel vouches for.
func authenticate(r *http.Request) error {
	if _, ok := rpc.LocalUID(r.Context()); !ok {
		return &statusError{http.StatusUnauthorized, "Unauthorized"}
	}
	return nil
}

// actor says who asks, for jobs and the audit.
func actor(r *http.Request) string {
	uid, _ := rpc.LocalUID(r.Context())
	return rpc.LocalActor(uid)
}

func requestID() string { return rpc.NewRequestID() }

// decode reads the body strictly: unknown names and anything after the value
// are errors.
func decode(r *http.Request, into any) error {
	text, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &statusError{http.StatusRequestEntityTooLarge, fmt.Sprintf("Request body over %d bytes", maxBody)}
	case err != nil:
		return badRequest("Unable to read the request body")
	case !json.Valid(text):
		return badRequest("Unable to parse JSON data")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badRequest("Invalid body contents: " + strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// flag reads a query parameter that is a number, as in ?bulk=1.
func flag(r *http.Request, names ...string) bool {
	for _, name := range names {
		if v := r.URL.Query().Get(name); v != "" && v != "0" {
			return true
		}
	}
	return false
}
