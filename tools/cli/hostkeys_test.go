package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/sshkeys"
)

func TestAcceptHostKeys(t *testing.T) {
	m := master(t, 2)
	m.b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
	m.fail(ExitFailed, "no host keys that wait for a decision", Node, "accept-host-keys", "-f", "node1")
	m.fail(ExitFailed, "Node 'node9' not known", Node, "accept-host-keys", "node9")
	m.b.Do(state.KindHostKeysClaim, state.HostKeysClaim{
		Node: statetest.ID(1), Incarnation: 1, Issued: statetest.Epoch.Add(time.Hour), Keys: []cluster.SSHKey{statetest.SSHKey(1, "new")}, Port: 2222,
	})
	var ops []map[string]any
	m.b.OnSubmit = func(id int64, op map[string]any) {
		ops = append(ops, op)
		u := succeeds(`[["host_keys","SHA256:x"]]`)
		u.ID = id
		m.b.Do(state.KindJobUpdate, u)
	}
	for answer, want := range map[string]int{"\n": ExitDeclined, "no\n": ExitDeclined, "yes\n": ExitOK} {
		var out, errs bytes.Buffer
		code := m.runAs(func(a *app) { a.in = strings.NewReader(answer) }, &out, &errs, Node, "accept-host-keys", "node1")
		if code != want || (out.String() != "") != (want == ExitOK) {
			t.Errorf("%q: exit code %d, %q", answer, code, out.String())
		}
		for _, says := range []string{
			"It had:\n  " + sshkeys.Fingerprint(statetest.SSHKey(1, "host")) + "\nIt has:\n  " + sshkeys.Fingerprint(statetest.SSHKey(1, "new")) + "\n  port 2222\n",
			"Accept them on all nodes?",
		} {
			if !strings.Contains(errs.String(), says) {
				t.Errorf("%q lacks %q", errs.String(), says)
			}
		}
	}
	if got := m.want(Node, "accept-host-keys", "-f", "--reject", "node1"); got != " - host_keys -> SHA256:x\n" {
		t.Errorf("%q", got)
	}
	if len(ops) != 2 || ops[0]["OP_ID"] != "OP_NODE_ACCEPT_HOST_KEYS" || ops[0]["reject"] != nil || ops[1]["reject"] != true || len(ops[1]["digest"].(string)) != 64 || ops[1]["rapi"] != nil {
		t.Errorf("opcodes %v", ops)
	}
	info := m.want(Node, "info", "node1")
	for _, want := range []string{"pending ssh host keys:", "to be accepted or rejected", "ssh port: 2222", "wait for gnt-node accept-host-keys"} {
		if !strings.Contains(info, want) {
			t.Errorf("info lacks %q:\n%s", want, info)
		}
	}
}
