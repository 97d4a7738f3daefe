package rapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"rolekey/masterd/query"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
)

// maxFields is how many fields a query may ask for.
const maxFields = 256

// resource is something that can be queried.
type resource struct {
	fields func(names []string) []wire.Field // of all, without names
	query  func(a *api, s *state.State, q wire.Query, f *query.Filter) (wire.QueryAnswer, error)
}

var resources = map[string]resource{
	"node": resourceOf(query.Nodes, func(a *api, s *state.State) []wire.Node {
		var list []wire.Node
		confirmed := a.confirmed()
		for _, n := range s.SortedNodes() {
			list = append(list, nodeObject(s, n, confirmed[n.UUID]))
		}
		return list
	}),
	"job": resourceOf(query.Jobs, func(_ *api, s *state.State) []wire.JobHead {
		var list []wire.JobHead
		for _, j := range s.SortedJobs() {
			list = append(list, jobHead(j))
		}
		return list
	}),
}

// foreign are Ganeti's other resources, of which there are none here.
var foreign = map[string]bool{
	"cluster": true, "instance": true, "group": true, "os": true, "export": true, "network": true, "filter": true, "lock": true, "extstorage": true,
}

func resourceOf[T any](t *query.Table[T], rows func(*api, *state.State) []T) resource {
	fields := func(names []string) []wire.Field {
		if len(names) == 0 {
			names = t.Names()
		}
		list := []wire.Field{}
		for _, name := range names {
			f, known := t.Find(name)
			kind := f.Kind.Wire()
			if !known {
				kind = "unknown"
			}
			list = append(list, wire.Field{Name: f.Name, Title: f.Title, Kind: kind, Doc: f.Doc})
		}
		return list
	}
	ask := func(a *api, s *state.State, q wire.Query, f *query.Filter) (wire.QueryAnswer, error) {
		out := wire.QueryAnswer{Fields: fields(q.Fields), Data: [][]wire.QueryCell{}}
		if err := t.Check(f); err != nil {
			return out, badRequest(err.Error())
		}
		for _, row := range t.Select(rows(a, s), f) {
			out.Data = append(out.Data, cells(t, q.Fields, row))
		}
		return out, nil
	}
	return resource{fields, ask}
}

func cells[T any](t *query.Table[T], names []string, row T) []wire.QueryCell {
	list := make([]wire.QueryCell, 0, len(names))
	for _, name := range names {
		f, _ := t.Find(name)
		c := f.Cell(row)
		cell := wire.QueryCell{int(c.Status), c.Value}
		if c.Status == query.StatusNormal && f.Wire != nil {
			cell[1] = f.Wire(row)
		}
		if c.Status != query.StatusNormal {
			cell[1] = nil
		}
		list = append(list, cell)
	}
	return list
}

// resource returns what the path names.
func resourceNamed(r *http.Request) (string, resource, error) {
	what := mux.Vars(r)["what"]
	found, ok := resources[what]
	switch {
	case ok:
		return what, found, nil
	case foreign[what]:
		return "", found, notServed("queries about " + what)
	}
	return "", found, badRequest(fmt.Sprintf("Invalid value for resource name: '%.64s'", what))
}

func (a *api) query(r *http.Request) (any, error) {
	what, found, err := resourceNamed(r)
	if err != nil {
		return nil, err
	}
	q := wire.Query{What: what}
	if r.Method == http.MethodPut {
		if err := decode(r, &q); err != nil {
			return nil, err
		}
		q.What = what
	} else if fields := r.URL.Query().Get("fields"); fields != "" {
		q.Fields = strings.Split(fields, ",")
	}
	if len(q.Fields) == 0 {
		return nil, badRequest("Required parameter 'fields' is missing")
	}
	if len(q.Fields) > maxFields {
		return nil, badRequest(fmt.Sprintf("More than %d fields", maxFields))
	}
	f, err := filterOf(q)
	if err != nil {
		return nil, err
	}
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	return found.query(a, s, q, f)
}

// filterOf reads the filter; Ganeti's client sends it by two names.
func filterOf(q wire.Query) (*query.Filter, error) {
	text := q.QFilter
	if absent(text) {
		text = q.Filter
	}
	if absent(text) {
		return nil, nil
	}
	f, err := query.ParseWire(text)
	var wrong *query.WireError
	if errors.As(err, &wrong) {
		return nil, badRequest("Invalid filter: " + wrong.Error())
	}
	return f, err
}

func absent(text json.RawMessage) bool { return len(text) == 0 || bytes.Equal(text, []byte("null")) }

func (a *api) queryFields(r *http.Request) (any, error) {
	_, found, err := resourceNamed(r)
	if err != nil {
		return nil, err
	}
	var names []string // none: all
	if list := r.URL.Query().Get("fields"); list != "" {
		names = strings.Split(list, ",")
	}
	if len(names) > maxFields {
		return nil, badRequest(fmt.Sprintf("More than %d fields", maxFields))
	}
	return wire.QueryFields{Fields: found.fields(names)}, nil
}

// notServed answers for what Ganeti has and Rolekey has not.
func notServed(what string) error {
	return &statusError{http.StatusNotImplemented, "Rolekey has no instances, groups, storage or networks, and so no " + what}
}

func foreignResource(r *http.Request) (any, error) { return nil, notServed(r.URL.Path) }
