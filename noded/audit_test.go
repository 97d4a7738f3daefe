package noded

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/rpc"
)

// auditLine is what these tests look at.
type auditLine struct {
	Node, Daemon, Act, Outcome, Code, Actor, Target string
	UID                                             *uint32
	Before, After                                   map[string]string
	MapVersion                                      string `json:"map_version"`
	RequestID                                       string `json:"request_id"`
}

func readAudit(t *testing.T, path string) (list []auditLine) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		var a auditLine
		if err := json.Unmarshal([]byte(l), &a); err != nil || a.Daemon != "noded" || a.Node == "" {
			t.Errorf("line %q: %v", l, err)
		}
		list = append(list, a)
	}
	return list
}

// poll waits until something is so of which nobody tells.
func (h *host) poll(what string, ok func() bool) {
	h.t.Helper()
	tick, limit := time.NewTicker(time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			h.t.Fatalf("%s: did not happen", what)
		}
	}
}

// linesOf returns the lines of an act.
func linesOf(list []auditLine, act audit.Act) []auditLine {
	return slices.DeleteFunc(slices.Clone(list), func(a auditLine) bool { return a.Act != string(act) })
}

// TestAuditOfALife follows a node from the start of its daemon to the end.
func TestAuditOfALife(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := newHost(t)
	h.masterd.start()
	h.up()
	token := w.token(h.name)
	if _, err := h.join(token); err != nil {
		t.Fatal(err)
	}
	if _, err := h.join(w.token(h.name)); cluster.CodeOf(err) != cluster.CodeConflict {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.cfg.SSH.AuthorizedKeys, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := h.cfg.Paths.NodedAudit()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	h.d.Reload() // opens the log anew, and looks after authorized_keys
	h.poll("authorized_keys is put right", func() bool { return h.authorizedKeys() != "" })
	if err := h.post(rpc.LocalLeave, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	h.stop()
	before, after := readAudit(t, path+".1"), readAudit(t, path)
	all := append(before, after...)
	if all[0].Act != "daemon_started" || all[len(all)-1].Act != "daemon_stopped" {
		t.Errorf("from %+v to %+v", all[0], all[len(all)-1])
	}
	joins := linesOf(all, audit.ClusterJoin)
	if len(joins) != 2 || joins[0].Outcome != "ok" || joins[0].Target != string(h.name) || joins[0].UID == nil || *joins[0].UID != uint32(os.Geteuid()) ||
		joins[0].Actor != rpc.LocalActor(uint32(os.Geteuid())) || joins[0].RequestID == "" || joins[0].After["version"] == "" || joins[1].Outcome != "refused" || joins[1].Code != "conflict" {
		t.Errorf("joins: %+v", joins)
	}
	if fresh := linesOf(all, audit.MapFresh); len(fresh) == 0 || fresh[0].Node != string(h.name) {
		t.Errorf("fresh: %+v", fresh)
	}
	if repaired := linesOf(after, audit.KeysRepaired); len(repaired) != 1 || repaired[0].Target != h.cfg.SSH.AuthorizedKeys {
		t.Errorf("repaired: %+v", repaired)
	}
	if leave := linesOf(after, audit.ClusterLeave); len(leave) != 1 || leave[0].Outcome != "ok" {
		t.Errorf("leave: %+v", leave)
	}
	for _, p := range []string{path, path + ".1"} {
		if text := h.read(p); strings.Contains(text, token) || strings.Contains(text, "PRIVATE") {
			t.Errorf("%s holds a secret", p)
		}
	}
}

// TestAuditOfARole follows keys and maps through a promotion and its end.
func TestAuditOfARole(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := joined(t, w)
	w.promote(h, false)
	id := h.member().id.Node
	w.mustPush(id)
	w.demote(id)
	w.mustPush(id)
	h.poll("keys are destroyed", func() bool { return !h.member().demoted.Load() })
	h.stop()
	all := readAudit(t, h.cfg.Paths.NodedAudit())
	maps := linesOf(all, audit.MapAccepted)
	added := slices.ContainsFunc(maps, func(a auditLine) bool { return a.After["candidates_added"] == string(h.name) })
	removed := slices.ContainsFunc(maps, func(a auditLine) bool { return a.Before["candidates_removed"] == string(h.name) })
	if !added || !removed || maps[0].After["version"] != maps[0].MapVersion || maps[0].After["master"] != string(first.name) {
		t.Errorf("maps: %+v", maps)
	}
	if len(linesOf(all, audit.KeysDestroyed)) == 0 {
		t.Errorf("no line says that keys were destroyed: %+v", all)
	}
}

// TestReady: a node is ready while it holds a complete and fresh map.
func TestReady(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.masterd.start()
	h.up()
	wantCode(t, "in no cluster", h.d.ready(), cluster.CodeNoMap)
	if _, err := h.init(initRequest(h)); err != nil {
		t.Fatal(err)
	}
	if err := h.d.ready(); err != nil {
		t.Errorf("founded: %v", err)
	}
	h.up()
	wantCode(t, "started again, and nothing heard", h.d.ready(), cluster.CodeMapStale)
}
