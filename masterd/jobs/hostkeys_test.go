package jobs

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/sshkeys"
)

// claimed is a cluster whose node 2, a candidate, has other host keys.
func claimed(t *testing.T) (*world, string) {
	t.Helper()
	w := newWorld(t, 3, 2)
	n := w.State().Node(statetest.ID(2))
	w.do(state.KindHostKeysClaim, state.HostKeysClaim{
		Node: n.UUID, Incarnation: 1, Issued: w.lab.Now, Keys: []cluster.SSHKey{statetest.SSHKey(2, "new")}, Port: 2222,
	})
	digest, err := w.State().Node(n.UUID).PendingHostKeys.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return w, digest.String()
}

func acceptHostKeys(digest, fields string) string {
	return fmt.Sprintf(`{"OP_ID":"OP_NODE_ACCEPT_HOST_KEYS","node_name":"node2.lab.test","digest":%q%s}`, digest, fields)
}

func TestAcceptHostKeys(t *testing.T) {
	w, digest := claimed(t)
	print := sshkeys.Fingerprint(statetest.SSHKey(2, "new"))
	j := w.finish(w.submit(acceptHostKeys(digest, "")))
	wantSuccess(t, j, fmt.Sprintf(`[["host_keys",%q],["ndparams/ssh_port","2222"]]`, print))
	n := w.State().Node(statetest.ID(2))
	if n.PendingHostKeys != nil || n.Ports.SSH != 2222 || sshkeys.Fingerprint(n.HostKeys[0]) != print {
		t.Errorf("%+v", n)
	}
	again := w.finish(w.submit(acceptHostKeys(digest, "")))
	if again.Status != state.JobError || !strings.Contains(again.Error, "no host keys that wait") {
		t.Errorf("job is %s: %s", again.Status, again.Error)
	}
}

func TestRejectHostKeys(t *testing.T) {
	w, digest := claimed(t)
	before := w.State().Head().Hash
	wantSuccess(t, w.finish(w.submit(acceptHostKeys(digest, `,"reject":true`))),
		fmt.Sprintf(`[["rejected_host_keys",%q]]`, sshkeys.Fingerprint(statetest.SSHKey(2, "new"))))
	if p := w.State().Node(statetest.ID(2)).PendingHostKeys; p == nil || !p.Rejected || w.State().Head().Hash != before {
		t.Errorf("%+v", p)
	}
}

// TestAcceptHostKeysRefused: nobody accepts what he did not see, nor from afar.
func TestAcceptHostKeysRefused(t *testing.T) {
	for name, c := range map[string]struct {
		fields, says string
		other        bool
	}{
		"over RAPI":   {fields: `,"rapi":true`, says: "over RAPI"},
		"other keys":  {says: "something else of its host keys meanwhile", other: true},
		"a trial run": {fields: `,"dry_run":true`},
	} {
		w, digest := claimed(t)
		if c.other {
			digest = strings.Repeat("ab", 32)
		}
		j := w.finish(w.submit(acceptHostKeys(digest, c.fields)))
		if (j.Status == state.JobSuccess) != (c.says == "") || !strings.Contains(j.Error, c.says) {
			t.Errorf("%s: job is %s: %s", name, j.Status, j.Error)
		}
		if w.State().Node(statetest.ID(2)).PendingHostKeys == nil {
			t.Errorf("%s: it is decided", name)
		}
	}
}

// TestAcceptHostKeysSurvivesTheMaster: wherever it dies, the next one ends it.
func TestAcceptHostKeysSurvivesTheMaster(t *testing.T) {
	whole, digest := claimed(t)
	want := whole.finish(whole.submit(acceptHostKeys(digest, "")))
	for i := range 2 * len(whole.calls) {
		w, digest := claimed(t)
		w.dieAt, w.after = i/2, i%2 == 1
		id := w.submit(acceptHostKeys(digest, ""))
		if err := w.reign(id); err != nil && !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		w.dieAt = -1
		j := w.finish(id)
		if j.Status != state.JobSuccess || string(j.OpResult[0]) != string(want.OpResult[0]) || w.State().Node(statetest.ID(2)).PendingHostKeys != nil {
			t.Errorf("crash %d: job is %s: %s %s", i, j.Status, j.Error, j.OpResult)
		}
	}
}
