package noded

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

func (h *host) evict(r rpc.EvictRequest) (rpc.EvictReply, error) {
	h.t.Helper()
	var reply rpc.EvictReply
	err := h.post(rpc.LocalEvict, r, &reply)
	return reply, err
}

func (h *host) evictedFile() string { return filepath.Join(h.cfg.Paths.NodeDir(), evictedFile) }

// evicting makes a candidate that can evict the master, which is first.
func evicting(t *testing.T) (w *world, first, h *host) {
	t.Helper()
	w, first = founded(t)
	h = joined(t, w)
	w.promote(h, true)
	w.mustPush(h.member().id.Node)
	return w, first, h
}

// TestG3EvictIsObeyed: from the answer on, the master's certificate opens
// nothing on this node, masterd has been told, and a restart changes nothing.
func TestG3EvictIsObeyed(t *testing.T) {
	t.Parallel()
	w, first, h := evicting(t)
	id := h.member().id.Node
	state := func() error { return w.call(id, rpc.MethodState, "", nil, nil) }
	if err := state(); err != nil {
		t.Fatal(err)
	}
	for len(h.masterd.views) > 0 {
		<-h.masterd.views
	}
	r, err := h.evict(rpc.EvictRequest{Node: string(first.name)})
	if err != nil || !r.Changed || r.Problem != "" || len(r.Evicted) != 1 || r.Evicted[0].Name != first.name || r.Evicted[0].Incarnation != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	if v := <-h.masterd.views; len(v.Evicted) != 1 || v.Evicted[0].Node != first.member().id.Node {
		t.Errorf("masterd was told %+v", v.Evicted)
	}
	wantCode(t, "the evicted master", state(), cluster.CodeEvicted)
	w.next(func(*candmap.Map) {})
	w.mustPush(id) // what proves itself is taken from anybody

	h.up()
	await(t, h.member(), "the map is taken", func() bool { return h.at() == w.at() })
	wantCode(t, "the evicted master, after a restart", state(), cluster.CodeEvicted)
	if r, err := h.evict(rpc.EvictRequest{Node: string(first.name)}); err != nil || r.Changed || len(r.Evicted) != 1 {
		t.Errorf("again: %+v, %v", r, err)
	}
	short, _, _ := strings.Cut(string(first.name), ".")
	if r, err := h.evict(rpc.EvictRequest{Node: short, Undo: true}); err != nil || !r.Changed || len(r.Evicted) != 0 {
		t.Errorf("undo: %+v, %v", r, err)
	}
	if _, err := w.push(id); err != nil {
		t.Fatal(err)
	}
	if code := cluster.CodeOf(state()); code == cluster.CodeEvicted {
		t.Error("it is refused although the eviction is taken back")
	}
	_, err = h.evict(rpc.EvictRequest{Node: short, Undo: true})
	wantCode(t, "undo again", err, cluster.CodeNotFound)
}

func TestEvictIsRefused(t *testing.T) {
	t.Parallel()
	w, first, h := evicting(t)
	_, err := h.evict(rpc.EvictRequest{Node: string(h.name)})
	wantCode(t, "itself", err, cluster.CodeConflict)
	_, err = h.evict(rpc.EvictRequest{Node: "nobody.example"})
	wantCode(t, "nobody", err, cluster.CodeNotFound)
	_, err = h.evict(rpc.EvictRequest{})
	wantCode(t, "nothing", err, cluster.CodeNotFound)
	normal := joined(t, w)
	_, err = normal.evict(rpc.EvictRequest{Node: string(first.name)})
	wantCode(t, "on a normal node", err, cluster.CodeConflict)
	none := newHost(t)
	none.up()
	_, err = none.evict(rpc.EvictRequest{Node: string(first.name)})
	wantCode(t, "in no cluster", err, cluster.CodeNoMap)
	if exists(h.evictedFile()) || exists(normal.evictedFile()) {
		t.Error("a refused eviction has left a file")
	}
}

// TestG7EvictInterrupted: what is on disk is in force after a crash, whether or
// not anybody was told.
func TestG7EvictInterrupted(t *testing.T) {
	t.Parallel()
	w, first, h := evicting(t)
	id := h.member().id.Node
	h.upWith(func(step string) error {
		if step == "evicted" {
			return errors.New("killed")
		}
		return nil
	})
	if _, err := h.evict(rpc.EvictRequest{Node: string(first.name)}); err == nil {
		t.Fatal("it was not interrupted")
	}
	h.up()
	wantCode(t, "the evicted master", w.call(id, rpc.MethodState, "", nil, nil), cluster.CodeEvicted)
	v := rpc.LocalViewReply{}
	if err := h.local.Do(t.Context(), http.MethodGet, rpc.LocalView, nil, &v); err != nil || len(v.Evicted) != 1 {
		t.Fatalf("masterd is told %+v, %v", v.Evicted, err)
	}
}

// Whoever is evicted must not come back because the file cannot be read.
func TestDamagedEvictions(t *testing.T) {
	dir, own := t.TempDir(), cluster.NewUUID()
	e, err := openEvictions(dir, own)
	if err != nil {
		t.Fatal(err)
	}
	gone := cluster.NewUUID()
	if _, err := e.add(rpc.Eviction{Node: gone, Incarnation: 1}); err != nil {
		t.Fatal(err)
	}
	if e, err = openEvictions(dir, own); err != nil || !e.has(gone) {
		t.Fatalf("the entry is lost: %v", err)
	}
	if e, err = openEvictions(dir, cluster.NewUUID()); err != nil || e.has(gone) {
		t.Fatalf("the entry counts in another cluster: %v", err)
	}
	for _, text := range []string{"", "{", `{"format":2}`, `{"format":1,"more":true}`} {
		write(t, filepath.Join(dir, evictedFile), []byte(text))
		if _, err := openEvictions(dir, own); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}

// An entry ends with the life that it is about, and does not come back with the
// next one.
func TestEvictionEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(m *candmap.Map, i int){
		"demoted":     func(m *candmap.Map, i int) { m.Candidates = slices.Delete(m.Candidates, i, i+1) },
		"added again": func(m *candmap.Map, i int) { m.Candidates[i].Incarnation++ },
	} {
		w, _, h := evicting(t)
		third := joined(t, w)
		w.promote(third, false)
		w.mustPush(h.member().id.Node)
		if _, err := h.evict(rpc.EvictRequest{Node: string(third.name)}); err != nil {
			t.Fatal(err)
		}
		w.next(func(*candmap.Map) {})
		w.mustPush(h.member().id.Node)
		if !h.member().evicted.has(third.member().id.Node) {
			t.Fatalf("%s: the eviction has ended too early", name)
		}
		w.next(func(m *candmap.Map) {
			end(m, slices.IndexFunc(m.Candidates, func(c candmap.Candidate) bool { return c.UUID == third.member().id.Node }))
		})
		w.mustPush(h.member().id.Node)
		if h.member().evicted.has(third.member().id.Node) {
			t.Errorf("%s: the eviction goes on", name)
		}
		text, err := os.ReadFile(h.evictedFile())
		if err != nil || strings.Contains(string(text), string(third.name)) {
			t.Errorf("%s: the file says %s, %v", name, text, err)
		}
	}
}
