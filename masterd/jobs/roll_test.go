package jobs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

const (
	toShared = `"ssh_key_mode":"shared"`
	toOwn    = `"ssh_key_mode":"per-candidate"`
)

// setUp makes the changes of parameters, which must succeed.
func (w *world) setUp(fields ...string) *world {
	w.t.Helper()
	for _, f := range fields {
		if j := w.finish(w.submit(setCluster(f))); j.Status != state.JobSuccess {
			w.t.Fatalf("%s: %s", f, j.Error)
		}
	}
	w.calls = nil
	return w
}

func (w *world) sharedKeys() []cluster.SSHKey { return roles.SharedSSHKeys(w.State()) }

// rollCases are changes after which nothing may be left of what was before.
var rollCases = map[string]struct {
	before []string // parameters
	ops    []string
}{
	"to shared":                 {nil, []string{setCluster(toShared)}},
	"to per-candidate":          {[]string{toShared}, []string{setCluster(toOwn)}},
	"there and back":            {nil, []string{setCluster(toShared), setCluster(toOwn)}},
	"type":                      {nil, []string{setCluster(`"ssh_key_type":"ecdsa"`)}},
	"type of the shared key":    {[]string{toShared}, []string{setCluster(`"ssh_key_type":"ecdsa","ssh_key_bits":384`)}},
	"storage":                   {nil, []string{setCluster(`"ssh_key_storage":"agent"`)}},
	"storage of the shared key": {[]string{toShared, `"ssh_key_storage":"agent"`}, []string{setCluster(`"ssh_key_storage":"file"`)}},
	"no SSH":                    {nil, []string{setCluster(`"modify_ssh_setup":false`)}},
	"no SSH, shared":            {[]string{toShared}, []string{setCluster(`"modify_ssh_setup":false`)}},
	"SSH again":                 {[]string{`"modify_ssh_setup":false`}, []string{setCluster(`"modify_ssh_setup":true`)}},
	"SSH again, shared":         {[]string{`"modify_ssh_setup":false`}, []string{setCluster(`"modify_ssh_setup":true,` + toShared)}},
	"demote":                    {[]string{toShared}, []string{modify(3, `"master_candidate":false,"auto_promote":true`)}},
	"offline":                   {[]string{toShared}, []string{modify(3, `"offline":true,"auto_promote":true`)}},
	"remove":                    {[]string{toShared}, []string{remove(3)}},
	"readd":                     {[]string{toShared}, []string{readd(3)}},
	"rekey":                     {[]string{toShared}, []string{rekey(3)}},
	"promote":                   {[]string{toShared}, []string{modify(4, `"master_candidate":true`)}},
	"two promotions":            {[]string{toShared}, []string{modify(4, `"master_candidate":true`), modify(5, `"master_candidate":true`)}},
	"all at once":               {nil, []string{setCluster(toShared + `,"ssh_key_type":"ecdsa","ssh_key_storage":"agent","candidate_pool_size":5`)}},
}

// TestG7RollSurvivesItsMaster kills the master before and after each of its
// calls. The next one always arrives at what was wanted, and at no moment can
// the master not log in: see spreadMap.
func TestG7RollSurvivesItsMaster(t *testing.T) {
	for name, c := range rollCases {
		synctest.Test(t, func(t *testing.T) {
			whole := newWorld(t, 5, 3).setUp(c.before...)
			old := whole.sharedKeys()
			if j := whole.finish(whole.submit(c.ops...)); j.Status != state.JobSuccess {
				t.Fatalf("%s, without a crash: %s", name, j.Error)
			}
			if err := whole.rolled(); err != nil {
				t.Fatalf("%s, without a crash: %v", name, err)
			}
			if _, loses := map[string]bool{"demote": true, "offline": true, "remove": true, "readd": true, "rekey": true}[name]; loses && roles.HasSSHKey(whole.sharedKeys(), old[0]) {
				t.Errorf("%s: the shared key is not replaced", name)
			}
			for i := range 2 * len(whole.calls) {
				w := newWorld(t, 5, 3).setUp(c.before...)
				w.dieAt, w.after = i/2, i%2 == 1
				id := w.submit(c.ops...)
				if err := w.reign(id); err != nil && !errors.Is(err, errDead) {
					t.Fatalf("%s, crash %d: the master stopped: %v", name, i, err)
				}
				w.dieAt = -1
				j := w.finish(id)
				if j.Status != state.JobSuccess {
					t.Errorf("%s, crash %d: job is %s: %s", name, i, j.Status, j.Error)
				}
				w.ensure()
				if err := errors.Join(w.rolled(), w.settled()); err != nil {
					t.Errorf("%s, crash %d: %v (%s)", name, i, err, strings.Join(w.calls, ", "))
				}
			}
		})
	}
}

// TestRollWaitsForNobody: a candidate that goes away at any moment of a roll
// does not hold it up, and gets its key when it is back. Meanwhile nothing that
// it holds opens a node that it should not.
func TestRollWaitsForNobody(t *testing.T) {
	for name, c := range rollCases {
		synctest.Test(t, func(t *testing.T) {
			for at := range 12 {
				w := newWorld(t, 5, 3).setUp(c.before...)
				calls := 0
				w.onCall = func(string) {
					w.mu.Lock()
					defer w.mu.Unlock()
					if calls == at {
						w.at(2).up = false
					}
					calls++
				}
				j := w.finish(w.submit(c.ops...))
				w.onCall = nil
				if calls <= at {
					break
				}
				if j.Status != state.JobSuccess && name != "two promotions" && name != "promote" {
					t.Errorf("%s, away from call %d: %s", name, at, j.Error)
				}
				if err := w.rolled(); err != nil && !w.node(2).Flags.MasterCandidate {
					t.Errorf("%s, away from call %d: %v", name, at, err)
				}
				w.back(2)
				if err := w.rolled(); err != nil {
					t.Errorf("%s, back after call %d: %v", name, at, err)
				}
			}
		})
	}
}

// back brings a machine back: it hears the map, and the master finds what it
// lacks.
func (w *world) back(i int) {
	w.t.Helper()
	w.mu.Lock()
	w.at(i).up = true
	w.at(i).accept(w.lab.S.HeadMap(), w.lab.S.Nodes[w.id(i)].UUID)
	w.mu.Unlock()
	n := w.node(i)
	if n.Keys == nil {
		return
	}
	keys, err := AskKeys(w.t.Context(), w, w.State(), n, KeyRequest(w.State(), n, n.Certs.Candidate))
	if err != nil {
		w.t.Error(err)
	}
	behind, any := roles.SSHBehind(w.State())
	if any || len(n.Keys.SSH) > 0 && !roles.HasSSHKey(n.Keys.SSH, keys.SSH[0]) {
		if j := w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_SSH_KEYS"}`)); j.Status != state.JobSuccess {
			w.t.Errorf("%d behind: %s", len(behind), j.Error)
		}
	}
}

func (w *world) id(i int) cluster.NodeID {
	for id, m := range w.machines {
		if m == w.at(i) {
			return id
		}
	}
	return cluster.NodeID{}
}

// TestG4SharedKeyIsReplaced at every loss of the role, before the job's end;
// what the former candidate kept opens no node that can be reached.
func TestG4SharedKeyIsReplaced(t *testing.T) { synctest.Test(t, g4SharedKeyIsReplaced) }

func g4SharedKeyIsReplaced(t *testing.T) {
	for name, op := range map[string]string{
		"demote": modify(3, `"master_candidate":false,"auto_promote":true`), "drain": modify(3, `"drained":true,"auto_promote":true`),
		"offline": modify(3, `"offline":true,"auto_promote":true`), "remove": remove(3), "readd": readd(3),
		"incapable": modify(3, `"master_capable":false,"auto_promote":true`),
	} {
		for _, dead := range []bool{false, true} {
			w := newWorld(t, 5, 3).setUp(toShared)
			old := w.sharedKeys()[0]
			if len(w.opens(old)) != 5 {
				t.Fatalf("the shared key opens %v", w.opens(old))
			}
			w.at(3).up = !dead
			j := w.finish(w.submit(op))
			if j.Status != state.JobSuccess || len(w.opens(old)) > 0 || roles.HasSSHKey(w.sharedKeys(), old) {
				t.Errorf("%s, dead %v: job is %s; the old key opens %v", name, dead, j.Status, w.opens(old))
			}
			if err := w.rolled(); err != nil {
				t.Errorf("%s, dead %v: %v", name, dead, err)
			}
			if at := slices.IndexFunc(w.calls, func(c string) bool { return c == "change ssh-keys" }); at > slices.IndexFunc(append(w.calls, "destroy"), func(c string) bool {
				return strings.HasPrefix(c, "destroy") || strings.HasPrefix(c, "dismiss")
			}) {
				t.Errorf("%s: the node is asked for something before its key is worthless: %q", name, w.calls)
			}
		}
	}
}

// TestNoRotate warns, and is refused where there is nothing to rotate.
func TestNoRotate(t *testing.T) { synctest.Test(t, noRotate) }

func noRotate(t *testing.T) {
	w := newWorld(t, 4, 3)
	want := `["OpPrereqError",["There is nothing to be left unrotated: every master candidate has an SSH key of its own","wrong_input"]]`
	if j := w.finish(w.submit(modify(3, `"master_candidate":false,"auto_promote":true,"no_rotate":true`))); string(j.OpResult[0]) != want || !w.node(3).Flags.MasterCandidate {
		t.Errorf("job is %s, result %s", j.Status, j.OpResult[0])
	}
	w.setUp(toShared)
	old := w.sharedKeys()[0]
	j := w.finish(w.submit(modify(3, `"master_candidate":false,"auto_promote":true,"no_rotate":true`)))
	if j.Status != state.JobSuccess || !roles.HasSSHKey(w.sharedKeys(), old) || !strings.Contains(logOf(j), "so that G4 does not hold") {
		t.Errorf("job is %s, log %q", j.Status, logOf(j))
	}
}

// TestMasterIsNotLockedOut: where the master's own node cannot hold a new key
// nothing is switched, and the job says that it is not done.
func TestMasterIsNotLockedOut(t *testing.T) { synctest.Test(t, masterIsNotLockedOut) }

func masterIsNotLockedOut(t *testing.T) {
	for name, c := range rollCases {
		if strings.HasPrefix(name, "no SSH") || strings.Contains(name, "promot") || name == "SSH again" {
			continue
		}
		w := newWorld(t, 5, 3).setUp(c.before...)
		before := w.State().Node(w.State().Master).Keys.SSH
		w.at(1).ssh.full = true
		j := w.finish(w.submit(c.ops[0]))
		if j.Status != state.JobError || !strings.Contains(j.Error, "not replaced yet") {
			t.Errorf("%s: job is %s: %s", name, j.Status, j.Error)
		}
		if now := w.State().Node(w.State().Master).Keys.SSH; !slices.EqualFunc(now, before, roles.SameSSHKey) {
			t.Errorf("%s: the master's entry has changed", name)
		}
		w.at(1).ssh.full = false
		w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_SSH_KEYS"}`))
		if err := w.rolled(); err != nil {
			t.Errorf("%s, later: %v", name, err)
		}
	}
}

// TestRollRefusals: what a node answers is not taken for granted.
func TestRollRefusals(t *testing.T) { synctest.Test(t, rollRefusals) }

func rollRefusals(t *testing.T) {
	for _, c := range []struct{ fields, result string }{
		{`"ssh_key_type":"dsa"`, `ssh key type "dsa": want ed25519, ecdsa or rsa`},
		{`"ssh_key_type":"rsa","ssh_key_bits":2048`, `ssh key of 2048 bits: rsa keys have 3072 to 8192 here`},
		{`"ssh_key_bits":521`, `ssh key of 521 bits: ed25519 keys have 256`},
		{`"ssh_key_mode":"shared","rapi":true`, "cannot be changed over RAPI"},
		{`"modify_ssh_setup":false,"rapi":true`, "cannot be changed over RAPI"},
		{`"ssh_key_storage":"agent","rapi":true`, "cannot be changed over RAPI"},
		{`"ssh_key_type":"ecdsa","rapi":true`, "cannot be changed over RAPI"},
	} {
		w := newWorld(t, 3, 2)
		before := w.State().Head().Hash
		if j := w.finish(w.submit(setCluster(c.fields))); j.Status != state.JobError || !strings.Contains(j.Error, c.result) || w.State().Head().Hash != before {
			t.Errorf("%s: job is %s: %s", c.fields, j.Status, j.Error)
		}
	}
	w := newWorld(t, 3, 2).setUp(`"ssh_key_type":"ecdsa","ssh_key_bits":384`, `"ssh_key_type":"ecdsa"`)
	if bits := w.State().Params.SSHKeyBits; bits != 384 {
		t.Errorf("the type that there was has %d bits now", bits)
	}
}

// TestRollDryRun says what it would do.
func TestRollDryRun(t *testing.T) { synctest.Test(t, rollDryRun) }

func rollDryRun(t *testing.T) {
	w := newWorld(t, 3, 2)
	before := w.State().Head().Hash
	j := w.finish(w.submit(setCluster(toShared + `,"dry_run":true`)))
	if j.Status != state.JobSuccess || w.State().Head().Hash != before || !strings.Contains(logOf(j), "would replace the SSH keys") {
		t.Errorf("job is %s, log %q", j.Status, logOf(j))
	}
}

// TestRecoveredRolls: a recovered state has no shared key, whatever its one
// candidate lists; the others know it, so it is not used again.
func TestRecoveredRolls(t *testing.T) { synctest.Test(t, recoveredRolls) }

func recoveredRolls(t *testing.T) {
	w := newWorld(t, 1, 1).setUp(toShared)
	old := w.sharedKeys()[0]
	w.do(state.KindSharedKeys, state.SharedKeysChange{})
	if _, any := roles.SSHBehind(w.State()); !any {
		t.Fatal("nobody notices")
	}
	wantSuccess(t, w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_SSH_KEYS"}`)), `[]`)
	if err := w.rolled(); err != nil || len(w.opens(old)) > 0 {
		t.Errorf("%v; the old key opens %v", err, w.opens(old))
	}
}

// TestG5PromotionThatFails leaves no shared key on a normal node: it is handed
// out only when the promotion is committed.
func TestG5PromotionThatFails(t *testing.T) { synctest.Test(t, g5PromotionThatFails) }

func g5PromotionThatFails(t *testing.T) {
	w := newWorld(t, 4, 2).setUp(toShared)
	w.onCall = func(what string) {
		if what == "change node-change" && w.State().Node(w.id(4)) != nil {
			w.do(state.KindNodeRemove, state.NodeRemove{Node: w.id(4)}) // another master was faster
		}
	}
	j := w.finish(w.submit(modify(4, `"master_candidate":true`)))
	if j.Status != state.JobError || len(w.at(4).ssh.ever) > 0 {
		t.Errorf("job is %s, and the node holds %d SSH keys", j.Status, len(w.at(4).ssh.ever))
	}
	w.onCall = nil
	w.finish(w.submit(modify(3, `"master_candidate":true`)))
	if err := w.rolled(); err != nil {
		t.Error(err)
	}
}

// TestNobodyTakesAnothersKey: a candidate that claims the key of another one
// gets none, and holds up nobody.
func TestNobodyTakesAnothersKey(t *testing.T) { synctest.Test(t, nobodyTakesAnothersKey) }

func nobodyTakesAnothersKey(t *testing.T) {
	w := newWorld(t, 4, 3)
	var first cluster.SSHKey
	w.at(1).spoil = func(k *rpc.CandidateKeys) { first = k.SSH[0] }
	w.at(2).spoil = func(k *rpc.CandidateKeys) { k.SSH = []cluster.SSHKey{w.lab.S.Nodes[w.id(3)].Keys.SSH[0]} }
	j := w.finish(w.submit(setCluster(`"ssh_key_storage":"agent"`)))
	if j.Status != state.JobSuccess || !strings.Contains(logOf(j), "it claims the SSH key") || !roles.HasSSHKey(w.node(1).Keys.SSH, first) {
		t.Errorf("job is %s: %s, log %q", j.Status, j.Error, logOf(j))
	}
	if len(w.node(3).Keys.SSH) != 1 || roles.HasSSHKey(w.node(2).Keys.SSH, w.node(3).Keys.SSH[0]) {
		t.Error("a key is in two entries")
	}
}

// TestRSAKeys are made once here, because that takes its time.
func TestRSAKeys(t *testing.T) { synctest.Test(t, rSAKeys) }

func rSAKeys(t *testing.T) {
	w := newWorld(t, 1, 1).setUp(`"ssh_key_type":"rsa"`)
	if err := w.rolled(); err != nil {
		t.Error(err)
	}
	fmt.Fprintln(t.Output(), w.State().Params.SSH().KeySpec())
}
