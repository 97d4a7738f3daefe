package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/internal/lab"
	"rolekey/pki"
	"rolekey/tests/kit"
)

// expiring is a string that was made early, for the test that runs last.
var expiring struct {
	token string
	made  time.Time
}

// TestFoundAndJoin is the life of a small cluster, from the first command on.
// Its folder has a space and 120 characters, so that no path in it may be cut,
// split or too long for a socket.
func TestFoundAndJoin(t *testing.T) {
	w := small(t)
	if n := len(w.Dir()); n < 120 || !strings.Contains(w.Dir(), " ") {
		t.Fatalf("the folder %q has %d characters", w.Dir(), n)
	}
	for _, step := range []struct {
		name string
		do   func(*world)
	}{
		{"BeforeInit", beforeInit},
		{"Init", initOnce},
		{"JoinErrors", joinErrors},
		{"JoinBindsTheString", joinBinds},
		{"NobodyToAsk", nobodyToAsk},
		{"ExitCodes", exitCodes},
		{"SSHReachOfMaster", reachOfMaster},
		{"RemoveAndReturn", removeAndReturn},
		{"InTheEnd", (*world).clean},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.do(small(t)) }) {
			t.Fatalf("%s failed, and what follows builds on it", step.name)
		}
	}
}

// expect runs a command that must end with the code and say the words.
func (w *world) expect(code int, words, node, input string, args ...string) kit.Run {
	w.t.Helper()
	r, err := w.Feed(w.ctx, node, input, args...)
	w.must(err)
	if err := r.Want(code); err != nil {
		w.t.Error(err)
	}
	if said := r.Stdout + r.Stderr; !strings.Contains(said, words) {
		w.t.Errorf("%s: said %q, want something with %q", strings.Join(args, " "), said, words)
	}
	return r
}

func beforeInit(w *world) {
	w.expect(5, "Cluster not initialized", "node1", "", "gnt-node", "list")
	w.expect(5, "Cluster not initialized", "node1", "", "gnt-cluster", "getmaster")
	w.expect(5, "Cluster not initialized", "node1", "", "gnt-node", "modify", "-C", "yes", "node2")
	w.expect(5, "no cluster", "node1", "", "noded", "leave", "--yes")
	w.expect(13, "--yes", "node1", "", "noded", "leave")
}

func initOnce(w *world) {
	first := w.node("node1")
	args := []string{"gnt-cluster", "init", lab.ClusterName, "--node-name", first.Name, "--address", first.Address, "--map-lease", "6s", "--candidate-pool-size", "3", "--ssh-reach", "master"}
	w.expect(1, "--no-recovery-key", "node1", "", args...)
	args = append(args, "--no-recovery-key")
	w.expect(0, "is founded", "node1", "", args...)
	before := w.readMap()
	w.expect(1, "already", "node1", "", args...)
	if after := w.readMap(); after.Hash != before.Hash {
		w.t.Error("a second init changed the map")
	}
	r := w.expect(0, first.Name, "node1", "", "gnt-cluster", "getmaster")
	if strings.TrimSpace(r.Stdout) != first.Name {
		w.t.Errorf("master: %q", r.Stdout)
	}
}

// token makes an admission string.
func (w *world) token(args ...string) string {
	w.t.Helper()
	r := w.admin(0, append([]string{"gnt-node", "add"}, args...)...)
	token := strings.TrimSuffix(r.Stdout, "\n")
	if !strings.HasPrefix(token, "rk1.") || strings.ContainsAny(token, " \n") {
		w.t.Fatalf("gnt-node add prints more than the string: %q", r.Stdout)
	}
	return token
}

// altered returns the string with other fields.
func (w *world) altered(token string, alter func(*pki.TokenFields)) string {
	w.t.Helper()
	parsed, err := pki.ParseToken(token)
	w.must(err)
	f := parsed.Fields()
	alter(&f)
	other, err := pki.NewToken(f)
	w.must(err)
	return other.Encode()
}

func joinErrors(w *world) {
	good := w.token("node2.example")
	expiring.token, expiring.made = w.token("node9.example", "--ttl", "1m"), time.Now()
	revoked := w.token("node8.example")
	var list []struct {
		ID   cluster.UUID `json:"id"`
		Name string       `json:"name"`
	}
	w.must(json.Unmarshal([]byte(w.admin(0, "gnt-node", "tokens", "list", "--json").Stdout), &list))
	for _, r := range list {
		if r.Name == "node8.example" {
			w.admin(0, "gnt-node", "tokens", "revoke", r.ID.String())
		}
	}
	typo := []byte(good)
	if i := len(typo) / 2; typo[i] == 'A' {
		typo[i] = 'B'
	} else {
		typo[i] = 'A'
	}
	for _, tc := range []struct{ name, token, words string }{
		{"nothing", "", ""},
		{"mistyped", string(typo), "checksum"},
		{"half of it", good[:len(good)/2], ""},
		{"revoked", revoked, "revoked"},
		{"unknown", w.altered(good, func(f *pki.TokenFields) { f.Record = cluster.NewUUID() }), "does not know"},
		{"another name", w.altered(good, func(f *pki.TokenFields) { f.Name = "node7.example" }), "node2.example"},
		{"another seed", w.altered(good, func(f *pki.TokenFields) { f.Seed = cluster.NewSecret(bytes.Repeat([]byte{7}, 32)) }), ""},
		{"another cluster's map", w.altered(good, func(f *pki.TokenFields) { f.MapPin[0] ^= 1 }), ""},
		{"another place", w.token("node2.example", "--address", "127.77.0.99"), "127.77.0.99"},
	} {
		r, err := w.Feed(w.ctx, "node2", tc.token, "noded", "join", "-")
		w.must(err)
		if r.Code == 0 || !strings.Contains(r.Stderr, tc.words) {
			w.t.Errorf("join with %s: exit code %d, said %q, want something with %q", tc.name, r.Code, r.Stderr, tc.words)
		}
		if tc.token != "" && strings.Contains(r.Stderr+r.Stdout, tc.token) {
			w.t.Errorf("join with %s: the answer repeats the string", tc.name)
		}
	}
	if m := w.readMap(); len(m.Nodes) != 1 {
		w.t.Errorf("%d nodes after failed joins", len(m.Nodes))
	}
	w.expect(1, "not taken from the command line", "node2", "", "noded", "join", good)
	w.expect(1, "already", "node1", "", "gnt-node", "add", "node1.example")
}

func joinBinds(w *world) {
	token := w.token("node2.example")
	w.expect(0, "is now a node", "node2", token, "noded", "join", "-")
	w.expect(0, "is now a node", "node2", token, "noded", "join", "-") // the first answer may have been lost
	w.expect(1, "has joined with this admission string", "node3", token, "noded", "join", "-")
	w.settle()
}

func nobodyToAsk(w *world) {
	token := w.token("node3.example")
	w.must(w.Stop(w.ctx, "node1"))
	w.must(w.Stop(w.ctx, "node2"))
	w.expect(1, "reach", "node3", token, "noded", "join", "-")
	w.startAll()
	w.master()
	w.until("the same string works", func(ctx context.Context) error {
		r, err := w.Feed(ctx, "node3", token, "noded", "join", "-")
		if err == nil {
			err = r.Want(0)
		}
		return err
	})
	w.settle()
}

func exitCodes(w *world) {
	master := w.master()
	r := w.expect(14, "nosuchfield", "node1", "", "gnt-node", "list", "-o", "nosuchfield")
	_ = r
	for _, n := range w.others(master) {
		w.until(n.Name+" knows the master", func(ctx context.Context) error {
			r, err := w.Sh(ctx, n.Name, "gnt-node", "modify", "-D", "yes", "node3")
			if err == nil {
				err = r.Want(11)
			}
			return err
		})
		w.expect(11, master, n.Name, "", "gnt-node", "modify", "-D", "yes", "node3")
	}
	w.expect(1, "at least one", master, "", "gnt-node", "modify", "node3")
	w.expect(1, "nosuch", master, "", "gnt-node", "modify", "-C", "yes", "nosuch.example")
}

func removeAndReturn(w *world) {
	n := w.others("node1", w.master())[0]
	w.admin(0, "gnt-node", "remove", n.Name)
	w.until(n.Name+" has destroyed its keys", func(context.Context) error { return left(n) })
	w.expect(1, "already", n.Name, w.token(n.Name), "noded", "join", "-")
	w.expect(0, "removed", n.Name, "", "noded", "status")
	w.expect(0, "", n.Name, "", "noded", "leave", "--yes")
	if l, err := kit.Steal(n); err == nil {
		w.t.Errorf("after leaving there is still node %s", l.ID)
	}
	w.expect(0, "is now a node", n.Name, w.token(n.Name), "noded", "join", "-")
	w.settle()
	if m := w.readMap(); len(m.Nodes) != 3 {
		w.t.Errorf("%d nodes after the return", len(m.Nodes))
	}
}

// TestG4RemovedNodeIsRefused: a removed node gets nowhere with anything that it
// ever had, and comes back only by a new admission.
func TestG4RemovedNodeIsRefused(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node5")
	w.settle()
	before := w.rob("node5")
	key := filepath.Join(t.TempDir(), "stolen")
	w.must(os.WriteFile(key, before.SSHKey, 0o600))
	w.admin(0, "gnt-node", "remove", "node5")
	gone := func() {
		t.Helper()
		for _, n := range w.others("node5") {
			w.refused(before.Caller(before.Member), w.Noded(n), "/v1/map?from=0.0", "not_in_roster", "not_in_map")
			w.refused(before.Caller(before.Candidate), w.Noded(n), "/v1/state", "not_in_roster", "not_in_map")
		}
		if err := kit.ShutOut(w.LoginWith(w.ctx, key, w.node("node5"), w.node("node1"))); err != nil {
			t.Errorf("the removed node's SSH key: %v", err)
		}
	}
	gone()
	w.expect(0, "", "node5", "", "noded", "leave", "--yes")
	w.expect(0, "is now a node", "node5", w.token("node5.example"), "noded", "join", "-")
	w.settle()
	gone()
	w.clean()
}
