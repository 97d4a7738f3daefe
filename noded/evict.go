package noded

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// evictFormat is the number of the file's format; docs/operations.rst lists the
// file.
const evictFormat = 1

// evictFile is what local root decided, on disk before it has any effect.
type evictFile struct {
	Format  int            `json:"format"`
	Cluster cluster.UUID   `json:"cluster"`
	Evicted []rpc.Eviction `json:"evicted"`
}

// evictions are the candidates that local root wants refused. An entry ends by
// itself with the life that it is about: when a map is in force that no longer
// has the node as a candidate, or in a later incarnation.
type evictions struct {
	path    string
	cluster cluster.UUID

	mu    sync.Mutex // for writers
	saved bool       // the file holds what held has
	held  atomic.Pointer[[]rpc.Eviction]
}

// openEvictions fails on a file that cannot be read: who is in it must not come
// back unnoticed.
func openEvictions(dir string, c cluster.UUID) (*evictions, error) {
	e := &evictions{path: filepath.Join(dir, evictedFile), cluster: c, saved: true}
	e.held.Store(new([]rpc.Eviction))
	var f evictFile
	ok, err := readStrict(e.path, &f)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read evictions: %w", err)
	case !ok:
		return e, nil
	case f.Format != evictFormat:
		return nil, cluster.Errorf(cluster.CodeUnsupportedFormat, "read evictions: %s has format %d, which this release does not know", e.path, f.Format)
	case f.Cluster != c: // left by a life in another one
		return e, nil
	}
	e.held.Store(&f.Evicted)
	return e, nil
}

// list returns the entries; whoever gets them must not change them.
func (e *evictions) list() []rpc.Eviction { return *e.held.Load() }

// has reports whether the node is evicted.
func (e *evictions) has(id cluster.NodeID) bool {
	return slices.ContainsFunc(e.list(), func(x rpc.Eviction) bool { return x.Node == id })
}

// add evicts a node; it is durable before it has an effect.
func (e *evictions) add(x rpc.Eviction) (changed bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.has(x.Node) {
		return false, e.save(e.list())
	}
	next := append(slices.Clone(e.list()), x)
	if err := e.write(next); err != nil {
		return false, err
	}
	e.held.Store(&next)
	return true, nil
}

// remove takes an eviction back.
func (e *evictions) remove(id cluster.NodeID) (changed bool, err error) {
	return e.keep(func(x rpc.Eviction) bool { return x.Node != id })
}

// follow drops the entries whose life has ended by the map.
func (e *evictions) follow(v *candmap.View) (changed bool, err error) {
	if v.Map == nil {
		return false, nil
	}
	return e.keep(func(x rpc.Eviction) bool {
		c := v.Map.Candidate(x.Node)
		return c != nil && c.Incarnation <= x.Incarnation
	})
}

// keep drops all others. What cannot be written has its effect all the same, and
// is written later.
func (e *evictions) keep(of func(rpc.Eviction) bool) (changed bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(e.list()), func(x rpc.Eviction) bool { return !of(x) })
	if len(next) != len(e.list()) {
		changed, e.saved = true, false
		e.held.Store(&next)
	}
	return changed, e.save(next)
}

func (e *evictions) save(list []rpc.Eviction) error {
	if e.saved {
		return nil
	}
	return e.write(list)
}

func (e *evictions) write(list []rpc.Eviction) error {
	err := writeJSON(e.path, evictFile{evictFormat, e.cluster, list})
	e.saved = err == nil
	return err
}

// serveEvict evicts a candidate on this node, for local root, or takes it back.
func (d *Daemon) serveEvict(ctx context.Context, r *rpc.EvictRequest) (any, error) {
	m, err := d.serving()
	if err != nil {
		return nil, err
	}
	if r.Undo {
		return m.undoEvict(ctx, r.Node)
	}
	return m.evict(ctx, r.Node)
}

// serveEvicted lists them.
func (d *Daemon) serveEvicted(context.Context, *struct{}) (any, error) {
	m, err := d.serving()
	if err != nil {
		return nil, err
	}
	return rpc.EvictReply{Evicted: m.evicted.list()}, nil
}

func (m *member) evict(ctx context.Context, ref string) (any, error) {
	v := m.keeper.View()
	switch {
	case v.Map == nil:
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node holds no candidate map")
	case !m.candidate(v):
		return nil, cluster.Errorf(cluster.CodeConflict, "this node is no master candidate, so it elects nobody and signs nothing: to evict a node here has no effect").
			WithHint("run the command on the voters: %s", strings.Join(voterNames(v), ", "))
	}
	c := findCandidate(v, ref)
	switch {
	case c == nil:
		return nil, cluster.Errorf(cluster.CodeNotFound, "'%.64s' is not a master candidate; only these can be evicted: %s", ref, strings.Join(candidateNames(v), ", "))
	case c.UUID == m.id.Node:
		return nil, cluster.Errorf(cluster.CodeConflict, "a node cannot evict itself").
			WithHint("to hand the master role on, run gnt-cluster master-failover on another candidate")
	}
	changed, err := m.evicted.add(rpc.Eviction{Node: c.UUID, Incarnation: c.Incarnation, Name: c.Name, Since: candmap.Stamp(m.cfg.now())})
	if err != nil {
		return nil, fmt.Errorf("evict %s: %w", c.Name, err)
	}
	if err := m.step("evicted"); err != nil {
		return nil, err
	}
	m.log.Warn("root has evicted a candidate", zap.String("node", string(c.Name)), zap.Bool("changed", changed))
	return m.evictReply(ctx, changed), nil
}

func (m *member) undoEvict(ctx context.Context, ref string) (any, error) {
	v := m.keeper.View()
	i := slices.IndexFunc(m.evicted.list(), func(x rpc.Eviction) bool {
		c := findCandidate(v, ref)
		return x.Node.String() == ref || matches(x.Name, ref) || c != nil && c.UUID == x.Node
	})
	if i < 0 {
		return nil, cluster.Errorf(cluster.CodeNotFound, "'%.64s' is not evicted on this node", ref)
	}
	x := m.evicted.list()[i]
	changed, err := m.evicted.remove(x.Node)
	if err != nil {
		return nil, fmt.Errorf("take back the eviction of %s: %w", x.Name, err)
	}
	m.log.Warn("root has taken an eviction back", zap.String("node", string(x.Name)))
	return m.evictReply(ctx, changed), nil
}

// evictReply has all gates follow, and tells whether they do.
func (m *member) evictReply(ctx context.Context, changed bool) rpc.EvictReply {
	reply := rpc.EvictReply{Evicted: m.evicted.list(), Changed: changed}
	if err := m.enforceEvictions(ctx); err != nil {
		reply.Problem = err.Error()
	}
	return reply
}

// enforceEvictions closes the connections of who is evicted, here and in
// masterd. What is told of masterd is told again when it starts.
func (m *member) enforceEvictions(ctx context.Context) error {
	v := m.keeper.View()
	if err := m.server.Revoke(v, v); err != nil {
		return err
	}
	err := m.tellMasterd(ctx, v)
	m.changed()
	return err
}

// dropEvictions ends the entries that the map has settled.
func (m *member) dropEvictions(v *candmap.View) {
	changed, err := m.evicted.follow(v)
	if changed {
		m.log.Info("an eviction has ended: the map no longer has that candidate", zap.Stringer("version", v.At()))
	}
	if err != nil {
		m.log.Warn("the end of an eviction is not on disk yet", zap.Error(err))
	}
}

// findCandidate finds one by name or UUID, or by the first label of its name
// when that is the label of one only.
func findCandidate(v *candmap.View, ref string) *candmap.Candidate {
	var short []*candmap.Candidate
	for i := range v.Map.Candidates {
		c := &v.Map.Candidates[i]
		if c.UUID.String() == ref || string(c.Name) == ref {
			return c
		}
		if matches(c.Name, ref) {
			short = append(short, c)
		}
	}
	if len(short) != 1 {
		return nil
	}
	return short[0]
}

// matches reports whether a reference means the name: in full, or its first
// label.
func matches(name cluster.Name, ref string) bool {
	label, _, _ := strings.Cut(string(name), ".")
	return ref != "" && (string(name) == ref || label == ref)
}

func voterNames(v *candmap.View) []string {
	var names []string
	for _, c := range v.Map.Candidates {
		if c.Voter {
			names = append(names, string(c.Name))
		}
	}
	return names
}
