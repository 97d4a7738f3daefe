package e2e

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"rolekey/internal/lab"
)

// verified is the part of verify's JSON that is looked at.
type verified struct {
	OK               bool
	Errors, Warnings []struct{ Code, Name, Text string }
	Lines, Summary   []string
}

func (w *world) verify(code int, args ...string) (v verified) {
	w.t.Helper()
	r := w.admin(code, append([]string{"gnt-cluster", "verify", "--json"}, args...)...)
	w.must(json.Unmarshal([]byte(r.Stdout), &v))
	return v
}

// TestVerifyProbes: with real daemons and sshds, what must work works, what must
// be refused is refused, and the nodes' audit logs know by which run. A sshd that
// hangs is reported by each candidate, and by nobody else.
func TestVerifyProbes(t *testing.T) {
	w := rested(t)
	before := w.readMap()
	v := w.verify(0, "--all-pairs")
	text := strings.Join(v.Lines, "\n")
	// 3 candidates to 4 others each; 3 calls of the master to 5 nodes, and 2 nodes
	// that are none with 2 calls and a login to 4 others each.
	if want := "No errors. 5 nodes answered; 12 logins worked that must; 31 calls and 8 logins were refused that must be."; !v.OK || len(v.Summary) != 1 || v.Summary[0] != want {
		t.Errorf("%q\n%s", v.Summary, text)
	}
	id := regexp.MustCompile("with request id ([0-9a-f]{16})").FindStringSubmatch(text)
	if id == nil {
		t.Fatalf("no request id: %s", text)
	}
	for _, n := range w.nodes() {
		for _, code := range []string{"not_in_map", "bad_signature", "no_certificate"} {
			w.audited(n, "noded", code, func(a auditLine) bool {
				return a.Act == "rpc_refused" && a.Code == code && a.RequestID == id[1]
			})
		}
		if log, err := os.ReadFile(auditLog(n, "noded")); err != nil || strings.Contains(string(log), "map_fork") {
			t.Errorf("%s: an attack is written down, %v", n.Name, err)
		}
	}
	if after := w.readMap(); after.Version != before.Version || after.Hash != before.Hash {
		t.Errorf("map %d became %d", before.Version, after.Version)
	}

	w.must(w.Signal(w.ctx, "node5", lab.SSHD, syscall.SIGSTOP))
	v = w.verify(1)
	w.must(w.Signal(w.ctx, "node5", lab.SSHD, syscall.SIGCONT))
	var from []string
	for _, e := range v.Errors {
		if e.Code != "ENODESSH" || !strings.HasPrefix(e.Text, "ssh communication with node '"+w.node("node5").Name+"'") {
			t.Errorf("%+v", e)
		}
		from = append(from, e.Name)
	}
	if len(from) != 3 {
		t.Errorf("reported by %q", from)
	}
	w.clean()
}
