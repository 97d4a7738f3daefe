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

	"rolekey/cluster"
	"rolekey/internal/audit"
)

// maxBody bounds what a request may say.
const maxBody = 64 << 10

// api answers requests.
type api struct {
	b    Backend
	now  func() time.Time
	list nodeList
}

// New makes the handler of all paths for the root-only socket.
func New(b Backend, now func() time.Time) http.Handler {
	return serve(&api{b: b, now: now}, localCaller, func(audit.Event) {})
}

// NewRemote makes the handler for the network. Identify tells who asks;
// refused requests, and those that change something, are told to record.
func NewRemote(b Backend, now func() time.Time, identify func(*http.Request) (Caller, error), record func(audit.Event)) http.Handler {
	return serve(&api{b: b, now: now}, identify, record)
}

func serve(a *api, identify func(*http.Request) (Caller, error), record func(audit.Event)) http.Handler {
	r := mux.NewRouter().SkipClean(true)
	gate := &gate{b: a.b, identify: identify, record: record}
	// Who is nobody shall not learn which paths there are.
	r.NotFoundHandler = gate.of(cluster.PermissionRead, handler(func(*http.Request) (any, error) { return nil, errNotFound }))
	r.MethodNotAllowedHandler = gate.of(cluster.PermissionRead, handler(unsupported))
	for _, route := range a.routes() {
		r.Handle(route.path, gate.of(route.permission(), route.do)).Methods(route.verb)
	}
	for _, path := range notOurs {
		r.Handle(path, gate.of(cluster.PermissionRead, foreignResource))
	}
	return r
}

type route struct {
	verb, path string
	do         handler
	needs      cluster.Permission // empty: read to GET, write for all else
}

func (r route) permission() cluster.Permission {
	switch {
	case r.needs != "":
		return r.needs
	case r.verb == http.MethodGet:
		return cluster.PermissionRead
	}
	return cluster.PermissionWrite
}

// routes lists everything there is. Ganeti's paths come first.
func (a *api) routes() []route {
	const node, job = "/2/nodes/{node}", "/2/jobs/{job:[0-9]{1,18}}"
	const write, admin = cluster.PermissionWrite, cluster.PermissionAdmin
	return []route{
		{"GET", "/", nothing, ""},
		{"GET", "/2", nothing, ""},
		{"GET", "/version", func(*http.Request) (any, error) { return 2, nil }, ""},
		{"GET", "/2/features", func(*http.Request) (any, error) { return features, nil }, ""},
		{"GET", "/2/openapi.yaml", openAPI, ""},
		{"GET", "/2/info", a.info, ""},
		{"PUT", "/2/modify", a.modifyCluster, ""},
		{"PUT", "/2/name", a.renameCluster, admin},
		{"GET", "/2/queue", a.queue, ""},
		{"PUT", "/2/queue", a.drainQueue, ""},
		{"GET", "/2/nodes", a.nodes, ""},
		{"GET", node, a.node, ""},
		{"GET", node + "/role", a.role, ""},
		{"PUT", node + "/role", a.setRole, ""},
		{"POST", node + "/modify", a.modify, ""},
		{"POST", node + "/rename", a.rename, admin},
		{"POST", node + "/readd", a.readd, admin},
		{"POST", node + "/host-keys", a.acceptHostKeys, admin},
		{"GET", node + "/tags", a.nodeTags, ""},
		{"PUT", node + "/tags", a.changeNodeTags, ""},
		{"DELETE", node + "/tags", a.changeNodeTags, ""},
		{"GET", "/2/tags", a.clusterTags, ""},
		{"PUT", "/2/tags", a.changeClusterTags, ""},
		{"DELETE", "/2/tags", a.changeClusterTags, ""},
		{"PUT", "/2/redistribute-config", a.redistribute, ""},
		{"GET", "/2/jobs", a.jobs, ""},
		{"GET", job, a.job, ""},
		{"GET", job + "/wait", a.wait, write},
		{"DELETE", job, a.cancel, ""},

		{"GET", "/2/query/{what}", a.query, ""},
		{"PUT", "/2/query/{what}", a.query, cluster.PermissionRead},
		{"GET", "/2/query/{what}/fields", a.queryFields, ""},

		{"DELETE", node, a.remove, admin},
		{"GET", node + "/state", a.inspect, ""},
		{"GET", node + "/details", a.details, ""},
		{"POST", "/2/jobs/archive", a.archive, ""},
		{"GET", "/2/map", a.clusterMap, ""},
		{"POST", "/2/verify", a.verify, ""},
		{"POST", "/2/failover", a.failover, admin},
		{"GET", "/2/audit", a.audit, admin},
		{"GET", "/2/admissions", a.admissions, admin},
		{"POST", "/2/admissions", a.admit, admin},
		{"DELETE", "/2/admissions/{id}", a.revoke, admin},
		{"GET", "/2/renew-crypto", a.renewals, ""},
		{"PUT", "/2/renew-crypto", a.renewCrypto, admin},
		{"PUT", "/2/rapi-certificate", a.setRAPICertificate, admin},
		{"GET", "/2/users", a.users, admin},
		{"PUT", "/2/users/{name}", a.setUser, admin},
		{"DELETE", "/2/users/{name}", a.removeUser, admin},
		{"GET", "/2/administrators", a.administrators, admin},
		{"PUT", "/2/administrators/{name}", a.setAdministrator, admin},
		{"DELETE", "/2/administrators/{name}", a.removeAdministrator, admin},
	}
}

// notOurs are Ganeti's paths about what Rolekey does not have.
var notOurs = []string{
	"/2/instances", "/2/instances/{rest:.*}", "/2/instances-multi-alloc", "/2/groups", "/2/groups/{rest:.*}", "/2/networks", "/2/networks/{rest:.*}",
	"/2/os", "/2/filters", "/2/filters/{rest:.*}", "/2/nodes/{node}/{what:powercycle|evacuate|migrate|storage}", "/2/nodes/{node}/storage/{rest:.*}",
}

// features are Ganeti's, which its client asks for before it sends what we do not
// serve, and names of what we have beyond Ganeti.
var features = []string{
	"node-migrate-reqv1", "instance-create-reqv1", "instance-reinstall-reqv1", "node-evac-res1",
	"rolekey-admissions", "rolekey-node-remove", "rolekey-node-rename", "rolekey-node-state", "rolekey-map", "rolekey-verify",
	"rolekey-failover", "rolekey-job-archive", "rolekey-queue", "rolekey-audit", "rolekey-renew", "rolekey-openapi",
}

func nothing(*http.Request) (any, error) { return nil, nil }

func unsupported(r *http.Request) (any, error) {
	return nil, &statusError{
		http.StatusNotImplemented, fmt.Sprintf("Method %s is unsupported for path %s", r.Method, r.URL.Path),
	}
}

// handler answers a request with an object, which may be nil.
type handler func(r *http.Request) (any, error)

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
