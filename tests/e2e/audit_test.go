package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// auditLog is the path of a daemon's audit log.
func auditLog(n lab.Node, daemon string) string {
	return filepath.Join(n.Root, "var/log/rolekey", daemon+"-audit.log")
}

// auditLine is what the tests look at; docs/audit.rst has all of it.
type auditLine struct {
	Node, Daemon, Act, Outcome, Code, Actor, Op, Target string
	PeerNode                                            string `json:"peer_node"`
	MapVersion                                          string `json:"map_version"`
	RequestID                                           string `json:"request_id"`
	Before, After                                       map[string]string
}

// audited waits for a line of a daemon that fits.
func (w *world) audited(n lab.Node, daemon, what string, fits func(auditLine) bool) (found auditLine) {
	w.t.Helper()
	w.until(what+" is in the audit log of "+daemon+" on "+n.Name, func(context.Context) error {
		text, err := os.ReadFile(auditLog(n, daemon))
		if err != nil {
			return err
		}
		for l := range strings.Lines(string(text)) {
			var a auditLine
			if err := json.Unmarshal([]byte(l), &a); err != nil {
				return fmt.Errorf("line %q: %w", l, err) // it may be half written
			}
			if fits(a) {
				found = a
				return nil
			}
		}
		return errors.New("no line fits")
	})
	return found
}

// TestAuditTellsADemotion: one request id leads from who asked to what it did
// on every node.
func TestAuditTellsADemotion(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	w.settle()
	thief := w.rob("node4")
	w.admin(0, "gnt-node", "modify", "-C", "no", "node4")
	w.settle()
	master, node4, version := w.node(w.master()), w.node("node4"), w.readMap()
	change := w.audited(master, lab.Masterd, "the change", func(a auditLine) bool {
		return a.Act == "change_committed" && a.Target == node4.Name && a.Before["role"] == "master-candidate" && a.After["role"] == "regular" &&
			a.MapVersion == fmt.Sprintf("%d.%d", version.Epoch, version.Version)
	})
	if change.Node != master.Name || change.Daemon != lab.Masterd || !strings.HasSuffix(change.Actor, "(local socket)") || change.RequestID == "" {
		t.Errorf("the change: %+v", change)
	}
	same := func(act string) func(auditLine) bool {
		return func(a auditLine) bool { return a.Act == act && a.RequestID == change.RequestID }
	}
	job := w.audited(master, lab.Masterd, "the job", same("job_submitted"))
	if job.Op != "NODE_SET_PARAMS("+node4.Name+")" || job.Actor != change.Actor {
		t.Errorf("the job: %+v", job)
	}
	w.audited(master, lab.Masterd, "the end of the job", same("job_ended"))
	order := w.audited(node4, lab.Noded, "the order to end its keys", same("rpc_served")) // the master's
	for _, n := range w.nodes() {
		a := w.audited(n, lab.Noded, "the map", func(a auditLine) bool { return a.Act == "map_accepted" && a.MapVersion == change.MapVersion })
		if a.Before["candidates_removed"] != node4.Name || a.After["master"] != master.Name || a.Node != n.Name {
			t.Errorf("the map on %s: %+v", n.Name, a)
		}
		// A rumour may be faster than the master's push, and leads to a pull; and so may
		// a candidate that was refused by a node with the map of before.
		if a.PeerNode == order.PeerNode && a.RequestID != change.RequestID {
			t.Errorf("the map on %s came of the request %s, not %s", n.Name, a.RequestID, change.RequestID)
		}
	}
	w.audited(node4, lab.Noded, "the end of its keys", func(a auditLine) bool { return a.Act == "keys_destroyed" && a.MapVersion == change.MapVersion })

	// It tries all the same.
	const id = "0123456789abcdef"
	other := w.node("node5")
	answer, err := thief.Caller(thief.Candidate).Call(w.ctx, w.Noded(other), http.MethodGet, "/v1/state", http.Header{"Rolekey-Request-Id": {id}}, nil)
	w.must(kit.Refused(answer, err, "not_in_map"))
	refused := w.audited(other, lab.Noded, "the refusal", func(a auditLine) bool { return a.RequestID == id })
	if refused.Act != "rpc_refused" || refused.Outcome != "refused" || refused.Code != "not_in_map" || refused.PeerNode != thief.ID.String() || refused.Op != "state" {
		t.Errorf("the refusal: %+v", refused)
	}
	if text := w.monitor(other, nodedMonitor, "/metrics"); !strings.Contains(text, `rolekey_rpc_refusals_total{reason="not_in_map"}`) {
		t.Errorf("the refusal is not counted:\n%s", text)
	}
}

// Ports of the monitoring pages.
const (
	nodedMonitor   = 1814
	masterdMonitor = 1815
)

// page asks a node, from its own address, for a page of a daemon.
func page(ctx context.Context, n lab.Node, port uint16, path string) (status int, text string, err error) {
	at := netip.AddrPortFrom(netip.MustParseAddr(n.Address), port)
	from := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), 0))}
	client := &http.Client{Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+path, nil)
	if err != nil {
		return 0, "", err
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return answer.StatusCode, string(b), err
}

// monitor returns a page that must be there.
func (w *world) monitor(n lab.Node, port uint16, path string) string {
	w.t.Helper()
	status, text, err := page(w.ctx, n, port, path)
	w.must(err)
	if status != http.StatusOK {
		w.t.Errorf("%s of %s: status %d: %s", path, n.Name, status, text)
	}
	return text
}

// TestMonitoring: every daemon says how it is, and a node that hears nothing
// for a lease says that it is not ready.
func TestMonitoring(t *testing.T) {
	w := rested(t)
	master, m := w.master(), w.readMap()
	for _, n := range w.nodes() {
		for _, port := range []uint16{nodedMonitor, masterdMonitor} {
			if text := w.monitor(n, port, "/healthz"); text != "ok\n" {
				t.Errorf("%s: healthz says %q", n.Name, text)
			}
			w.monitor(n, port, "/readyz")
			w.until(fmt.Sprintf("%s, port %d, tells the map", n.Name, port), func(context.Context) error { // a masterd that idles hears of it later
				text := w.monitor(n, port, "/metrics")
				for _, want := range []string{fmt.Sprintf("\nrolekey_map_version %d\n", m.Version), "\nrolekey_map_fresh 1\n", "\nrolekey_audit_lines_lost_total 0\n"} {
					if !strings.Contains(text, want) {
						return fmt.Errorf("without %q:\n%s", want, text)
					}
				}
				return nil
			})
		}
	}
	text := w.monitor(w.node(master), masterdMonitor, "/metrics")
	for _, want := range []string{
		"\nrolekey_master 1\n", "\nrolekey_raft_leader_known 1\n", "\nrolekey_raft_state{state=\"leader\"} 1\n", "\nrolekey_nodes_unacknowledged 0\n",
		"\nrolekey_nodes{role=\"regular\"} 2\n", "\nrolekey_nodes{role=\"master-candidate\"} 2\n", "\nrolekey_jobs{status=\"running\"} 0\n",
		"\nrolekey_certificate_expiry_timestamp_seconds{kind=\"candidate\"} ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the master says nothing of %q:\n%s", want, text)
		}
	}
	w.cutOff(w.node("node5"))
}

// cutOff takes a node away from the others until it says so, and back.
func (w *world) cutOff(n lab.Node) {
	w.t.Helper()
	if st, err := w.State(w.ctx); err != nil || !st.Namespaces {
		w.t.Skipf("no network namespaces here: %v", err)
	}
	ready := func(want int, word string) func(context.Context) error {
		return func(ctx context.Context) error {
			status, text, err := page(ctx, n, nodedMonitor, "/readyz")
			if err == nil && (status != want || !strings.Contains(text, word)) {
				err = fmt.Errorf("readyz: %d %s", status, text)
			}
			return err
		}
	}
	w.must(w.Partition(w.ctx, n.Name))
	w.until(n.Name+" is not ready", ready(http.StatusServiceUnavailable, "stale"))
	w.audited(n, lab.Noded, "that the map is stale", func(a auditLine) bool { return a.Act == "map_stale" })
	if text := w.monitor(n, nodedMonitor, "/healthz"); text != "ok\n" {
		w.t.Errorf("%s: healthz says %q", n.Name, text)
	}
	w.must(w.Heal(w.ctx))
	w.until(n.Name+" is ready", ready(http.StatusOK, "ok"))
}
