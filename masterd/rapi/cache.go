package rapi

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"sync"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
)

// prepared is an answer in its final form.
type prepared struct {
	text []byte
	etag string
	kind string // empty: JSON
}

func prepare(v any) (prepared, error) {
	text, err := encode(v)
	if err != nil {
		return prepared{}, err
	}
	return prepareText(text), nil
}

func prepareText(text []byte) prepared {
	sum := sha256.Sum256(text)
	return prepared{text: text, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:15]) + `"`}
}

// write answers with the object, or with 304 to a client that has it already
// (RFC 9110 §13.1.2).
func (p prepared) write(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", p.etag)
	w.Header().Set("Cache-Control", "no-cache")
	for _, tag := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if tag = strings.TrimSpace(tag); tag == p.etag || tag == "*" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.Header().Set("Content-Type", cmp.Or(p.kind, "application/json"))
	_, _ = w.Write(p.text) // a peer that left needs no answer
}

// nodeList keeps the encoded list of all nodes, which is megabytes in a large
// cluster, for as long as nothing in it changes.
type nodeList struct {
	mu    sync.Mutex
	of    *state.State
	seen  []confirmed
	ready prepared
}

// confirmed is the part of a node's status that the list shows.
type confirmed struct {
	node             cluster.NodeID
	version          cluster.Version
	fresh, reachable bool
}

func (l *nodeList) get(a *api, s *state.State) (prepared, error) {
	all := a.b.Nodes()
	seen := make([]confirmed, len(all))
	for i, n := range all {
		seen[i] = confirmed{n.Node, n.Version, n.Fresh, n.Reachable}
	}
	slices.SortFunc(seen, func(x, y confirmed) int { return state.CompareID(x.node, y.node) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == s && slices.Equal(l.seen, seen) {
		return l.ready, nil
	}
	list, known := []wire.Node{}, a.confirmed()
	for _, n := range s.SortedNodes() {
		list = append(list, nodeObject(s, n, known[n.UUID]))
	}
	ready, err := prepare(list)
	if err == nil {
		l.of, l.seen, l.ready = s, seen, ready
	}
	return ready, err
}
