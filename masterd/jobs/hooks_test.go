package jobs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/hooks"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

func bad(node, output string) hooks.Report {
	return hooks.Report{{Node: cluster.Name(node), HookResult: rpc.HookResult{Script: "check", Status: rpc.HookFailed, Reason: "exit code 1", Output: output}}}
}

// TestHooksVeto: nothing is changed, and no node is asked for anything.
func TestHooksVeto(t *testing.T) {
	for name, op := range map[string]string{
		"promote": modify(4, `"master_candidate":true`), "offline": modify(3, `"offline":true,"auto_promote":true`), "remove": remove(3),
		"move": modify(4, `"addresses":["10.77.1.4"]`), "rename": rename(4, "web.lab.test"), "readd": readd(3),
		"parameters": setCluster(`"candidate_pool_size":2`), "rename the cluster": `{"OP_ID":"OP_CLUSTER_RENAME","name":"other.test"}`,
	} {
		w := newWorld(t, 4, 3)
		before := w.State().Head().Hash
		w.scripts = func(c hooks.Call) hooks.Report {
			if c.Phase != rpc.HooksPre {
				t.Errorf("%s: phase %s after a veto", name, c.Phase)
			}
			return bad("node1.lab.test", "not today")
		}
		j := w.finish(w.submit(op))
		if j.Status != state.JobError || j.Error != "hooks execution failed:\n  node: node1.lab.test, script: check, output: not today" {
			t.Errorf("%s: job is %s: %s", name, j.Status, j.Error)
		}
		if got := string(j.OpResult[0]); got != `["HooksAbort",[[["node1.lab.test","check","not today"]]]]` {
			t.Errorf("%s: result %s", name, got)
		}
		if w.State().Head().Hash != before || len(w.calls) != 2 && name != "move" {
			t.Errorf("%s: something was done: %q", name, w.calls)
		}
	}
}

// TestHooksOfOperations: which hooks run where, with which variables.
func TestHooksOfOperations(t *testing.T) {
	id := statetest.ID
	for name, c := range map[string]struct {
		op    string
		nodes [2][]cluster.NodeID // pre, post
		vars  map[string]string
		after map[string]string
	}{
		"demote": {
			modify(3, `"master_candidate":false,"auto_promote":true`), both([]cluster.NodeID{id(1)}, []cluster.NodeID{id(1), id(3)}),
			with(at(3), "MASTER_CANDIDATE", "False"), now(3, "MASTER_CANDIDATE", "False"),
		},
		"offline": {
			modify(4, `"offline":true`), both([]cluster.NodeID{id(1)}, []cluster.NodeID{id(1), id(4)}),
			with(at(4), "OFFLINE", "True"), now(4, "OFFLINE", "True"),
		},
		"promote": {
			modify(4, `"master_candidate":true`), both([]cluster.NodeID{id(1), id(4)}, []cluster.NodeID{id(1), id(4)}),
			with(at(4), "MASTER_CANDIDATE", "True"), now(4, "MASTER_CANDIDATE", "True"),
		},
		"move": {
			modify(4, `"addresses":["10.77.1.4","10.78.1.4"]`), both([]cluster.NodeID{id(1), id(4)}, []cluster.NodeID{id(1), id(4)}),
			with(at(4), "NEW_PIP", "10.77.1.4", "NEW_SIP", "10.78.1.4"), now(4, "NODE_PIP", "10.77.1.4", "NODE_SIP", "10.78.1.4"),
		},
		"rename": {
			rename(4, "web.lab.test"), both([]cluster.NodeID{id(1), id(4)}, []cluster.NodeID{id(1), id(4)}),
			with(at(4), "NEW_NAME", "web.lab.test"), now(4, "NODE_NAME", "web.lab.test"),
		},
		"readd": {
			readd(3), both([]cluster.NodeID{id(1), id(2), id(4)}, nil), // post: when it has joined
			map[string]string{
				"OP_TARGET": "node3.lab.test", "NODE_NAME": "node3.lab.test", "NODE_PIP": "10.77.0.3", "NODE_SIP": "10.77.0.3",
				"MASTER_CAPABLE": "True", "VM_CAPABLE": "True",
			}, nil,
		},
		"add": {
			add(4), both(nil, []cluster.NodeID{id(1), id(2), id(3), id(4)}),
			map[string]string{
				"OP_TARGET": "node4.lab.test", "NODE_NAME": "node4.lab.test", "NODE_PIP": "10.77.0.4", "NODE_SIP": "10.77.0.4",
				"MASTER_CAPABLE": "True", "VM_CAPABLE": "True",
			},
			now(4),
		},
		"remove": {
			remove(3), both([]cluster.NodeID{id(1), id(2), id(4)}, []cluster.NodeID{id(1), id(2), id(4)}),
			map[string]string{"OP_TARGET": "node3.lab.test", "NODE_NAME": "node3.lab.test"},
			map[string]string{},
		},
		"parameters": {
			setCluster(`"candidate_pool_size":2`), both([]cluster.NodeID{id(1)}, []cluster.NodeID{id(1)}),
			map[string]string{"OP_TARGET": "lab.test"},
			map[string]string{},
		},
		"rehearsal":     {modify(4, `"master_candidate":true,"dry_run":true`), both(nil, nil), nil, nil},
		"rehearsal, 2":  {setCluster(`"candidate_pool_size":2,"dry_run":true`), both(nil, nil), nil, nil},
		"nothing to do": {modify(4, `"offline":false`), [2][]cluster.NodeID{}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4, 3)
			var calls []hooks.Call
			w.scripts = func(c hooks.Call) hooks.Report { calls = append(calls, c); return nil }
			if j := w.finish(w.submit(c.op)); j.Status != state.JobSuccess {
				t.Fatalf("job is %s: %s", j.Status, j.Error)
			}
			for i, phase := range []string{rpc.HooksPre, rpc.HooksPost} {
				if c.nodes[i] == nil {
					continue
				}
				if len(calls) == 0 {
					t.Fatalf("no %s phase", phase)
				}
				got := calls[0]
				calls = calls[1:]
				if got.Phase != phase || !slices.Equal(got.Nodes, c.nodes[i]) || !equal(got.Vars, c.vars) {
					t.Errorf("%s on %v with %v", got.Phase, got.Nodes, got.Vars)
				}
				if phase == rpc.HooksPost && !equal(got.After, c.after) {
					t.Errorf("afterwards %v", got.After)
				}
			}
			if len(calls) > 0 {
				t.Errorf("more calls: %+v", calls)
			}
		})
	}
}

func both(pre, post []cluster.NodeID) [2][]cluster.NodeID { return [2][]cluster.NodeID{pre, post} }

// with adds variables, name and value in turn.
func with(vars map[string]string, more ...string) map[string]string {
	for i := 0; i < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	return vars
}

// at are the variables of a change of a node that asks for nothing.
func at(i int) map[string]string {
	addr := fmt.Sprintf("10.77.0.%d", i)
	return map[string]string{
		"OP_TARGET": string(statetest.Name(i)), "NODE_NAME": string(statetest.Name(i)), "NODE_PIP": addr, "NODE_SIP": addr,
		"MASTER_CANDIDATE": "None", "OFFLINE": "None", "DRAINED": "None", "MASTER_CAPABLE": "None", "VM_CAPABLE": "None",
	}
}

// now is what a node is afterwards, but for what is named.
func now(i int, but ...string) map[string]string {
	vars := with(at(i), "MASTER_CANDIDATE", "False", "OFFLINE", "False", "DRAINED", "False", "MASTER_CAPABLE", "True", "VM_CAPABLE", "True")
	delete(vars, "OP_TARGET")
	return with(vars, but...)
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// TestG4HooksFollowTheRevocation: the pre phase alone comes before it.
func TestG4HooksFollowTheRevocation(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{CandidatePoolSize: new(2)}})
	w.scripts = func(c hooks.Call) hooks.Report {
		if c.Phase == rpc.HooksPost {
			return append(bad("node1.lab.test", "too late"), hooks.Result{Node: "node2.lab.test", Unasked: "no route to host"})
		}
		return hooks.Report{{Node: "node3.lab.test", Unasked: "no route to host"}}
	}
	j := w.finish(w.submit(modify(3, `"offline":true`)))
	want := []string{"hooks node-modify-pre", "change node-change", "destroy node3.lab.test", "hooks node-modify-post", "change job-update"}
	if j.Status != state.JobSuccess || !slices.Equal(w.calls, want) {
		t.Errorf("job is %s, calls %q", j.Status, w.calls)
	}
	for _, line := range []string{
		" - WARNING: Hooks were not run on node node3.lab.test: no route to host",
		" - WARNING: On node node1.lab.test hook script check failed (exit code 1), output: too late",
		" - WARNING: Hooks were not run on node node2.lab.test: no route to host",
	} {
		if !strings.Contains(logOf(j), line+"\n") {
			t.Errorf("log %q lacks %q", logOf(j), line)
		}
	}
}

// TestG7HooksRunAtLeastOnce: wherever the master dies, both phases of a job
// that succeeds have run to their end, the pre phase before the change.
func TestG7HooksRunAtLeastOnce(t *testing.T) {
	whole := newWorld(t, 4, 3)
	whole.scripts = func(hooks.Call) hooks.Report { return nil }
	whole.finish(whole.submit(modify(4, `"master_candidate":true`)))
	for i := range 2 * len(whole.calls) {
		w := newWorld(t, 4, 3)
		w.dieAt, w.after = i/2, i%2 == 1
		var pre, post int
		w.scripts = func(c hooks.Call) hooks.Report {
			is := w.lab.S.Node(statetest.ID(4)).Flags.MasterCandidate
			switch {
			case c.Phase == rpc.HooksPre && is:
				t.Errorf("crash %d: the pre phase after the change", i)
			case c.Phase == rpc.HooksPost && !is:
				t.Errorf("crash %d: the post phase before the change", i)
			case c.Phase == rpc.HooksPre:
				pre++
			default:
				post++
			}
			return nil
		}
		id := w.submit(modify(4, `"master_candidate":true`))
		if err := w.reign(id); err != nil && !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		w.dieAt = -1
		if j := w.finish(id); j.Status != state.JobSuccess || pre == 0 || post == 0 || pre > 2 || post > 2 {
			t.Errorf("crash %d: job is %s, phases ran %d and %d times (%q)", i, j.Status, pre, post, w.calls)
		}
	}
}

// TestHooksOfAClusterRename know both names.
func TestHooksOfAClusterRename(t *testing.T) {
	w := newWorld(t, 2, 2)
	var seen []string
	w.scripts = func(c hooks.Call) hooks.Report {
		seen = append(seen, fmt.Sprint(c.Hook, " ", c.Phase, " ", len(c.Nodes), " ", c.Vars["OP_TARGET"], " ", c.Vars["NEW_NAME"]))
		return nil
	}
	w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_RENAME","name":"other.test"}`))
	if want := []string{"cluster-rename pre 1 lab.test other.test", "cluster-rename post 1 other.test other.test"}; !slices.Equal(seen, want) {
		t.Errorf("%q", seen)
	}
}
