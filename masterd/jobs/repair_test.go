package jobs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/masterd/verify"
	"rolekey/rpc"
)

const repairOp = `{"OP_ID":"OP_CLUSTER_VERIFY","repair":true}`

// Repair implements Cluster.
func (w *world) Repair(ctx context.Context, node cluster.NodeID) (reply rpc.RepairReply, err error) {
	err = w.call(ctx, "repair "+w.name(node), func() error {
		m := w.machines[node]
		if !m.up {
			return errors.New("no route to host")
		}
		reply.Problems = m.problems
		return nil
	})
	return reply, err
}

// fault is a finding about node i, or about the cluster.
func fault(i int, severity string, r verify.Repair) *verify.Finding {
	f := &verify.Finding{Severity: severity, Code: "EX", Kind: "cluster", Text: "x", Remedy: "do it", Repair: r}
	if i > 0 {
		f.Kind, f.Name, f.Node = "node", string(statetest.Name(i)), statetest.ID(i)
	}
	return f
}

// TestRepair: each kind is carried out once, said, and what is left makes the
// job's result false.
func TestRepair(t *testing.T) {
	name := func(i int) string { return string(statetest.Name(i)) }
	for what, c := range map[string]struct {
		findings []*verify.Finding
		spoil    func(w *world)
		ok       string
		calls    []string // that must have been made, in this order and as often
		says     []string
	}{
		"push": {
			[]*verify.Finding{fault(2, "ERROR", verify.RepairPush), fault(0, "ERROR", verify.RepairPush)},
			nil, `true`,
			[]string{"redistribute"},
			[]string{"  - REPAIRED: node " + name(2) + ": map and roster were delivered anew"},
		},
		"node": {
			[]*verify.Finding{fault(2, "ERROR", verify.RepairNode), fault(2, "ERROR", verify.RepairNode), fault(3, "WARNING", verify.RepairNode)},
			nil, `true`,
			[]string{"repair " + name(2), "repair " + name(3)},
			[]string{"  - REPAIRED: node " + name(2) + ": it put", "  - REPAIRED: node " + name(3) + ": it put"},
		},
		"a node fails": {
			[]*verify.Finding{fault(2, "ERROR", verify.RepairNode), fault(3, "ERROR", verify.RepairNode)},
			func(w *world) { w.at(3).up = false; w.at(2).problems = []string{"read-only"} }, `false`,
			[]string{"repair " + name(2), "repair " + name(3)},
			[]string{name(2) + ": not repaired: it put its own files right: read-only", name(3) + ": not repaired"},
		},
		"keys": {
			[]*verify.Finding{fault(4, "ERROR", verify.RepairKeys)},
			nil, `true`,
			[]string{"destroy " + name(4)},
			[]string{"  - REPAIRED: node " + name(4) + ": its keys"},
		},
		"pool": {
			[]*verify.Finding{fault(0, "ERROR", verify.RepairPool)}, func(w *world) {
				w.lab.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{CandidatePoolSize: new(4)}})
			}, `true`, nil, []string{"the candidate pool was filled"},
		},
		"only a warning is left": {[]*verify.Finding{fault(2, "WARNING", verify.RepairNone)}, nil, `true`, nil, []string{"  - NOTICE: node " + name(2) + ": not repaired: do it"}},
		"not safe":               {[]*verify.Finding{fault(2, "ERROR", verify.RepairNone)}, nil, `false`, nil, []string{"  - NOTICE: node " + name(2) + ": not repaired: do it"}},
		"an unknown one":         {[]*verify.Finding{fault(2, "ERROR", "magic")}, nil, `false`, nil, []string{"not known"}},
	} {
		w := newWorld(t, 4, 3)
		w.findings = c.findings
		if c.spoil != nil {
			c.spoil(w)
		}
		j := w.finish(w.submit(repairOp))
		wantSuccess(t, j, c.ok)
		for _, s := range c.says {
			if !strings.Contains(logOf(j), s) {
				t.Errorf("%s: log %q lacks %q", what, logOf(j), s)
			}
		}
		got := slices.DeleteFunc(slices.Clone(w.calls), func(s string) bool {
			return !strings.HasPrefix(s, "repair") && !strings.HasPrefix(s, "redistribute") && !strings.HasPrefix(s, "destroy")
		})
		if !slices.Equal(got, c.calls) && len(got)+len(c.calls) > 0 {
			t.Errorf("%s: calls %q, want %q", what, got, c.calls)
		}
	}
}

// TestRepairSaysWhatItComesTo: and what a repair leaves to do by hand.
func TestRepairSaysWhatItComesTo(t *testing.T) {
	rest := fault(2, "ERROR", verify.RepairNode)
	rest.Rest = "replace the key"
	for want, findings := range map[string][]*verify.Finding{
		"Put right: all of 1.":        {fault(2, "ERROR", verify.RepairNode)},
		"Put right: 1 of 2.":          {fault(2, "ERROR", verify.RepairNode), fault(3, "ERROR", verify.RepairNone)},
		"left to do by hand: replace": {rest},
	} {
		w := newWorld(t, 4, 3)
		w.findings = findings
		if j := w.finish(w.submit(repairOp)); !strings.Contains(logOf(j), want) {
			t.Errorf("log %q lacks %q", logOf(j), want)
		}
	}
}

// TestRepairQueuesJobs: what takes a job of its own is queued once, and done.
func TestRepairQueuesJobs(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.findings = []*verify.Finding{fault(2, "ERROR", verify.RepairRekey), fault(2, "ERROR", verify.RepairRekey), fault(3, "ERROR", verify.RepairSSHKeys)}
	before := w.node(2).Keys.Client
	id := w.submit(repairOp)
	wantSuccess(t, w.finish(id), `true`)
	var summaries []string
	for next := id + 1; w.lab.S.Jobs[next] != nil; next++ {
		summaries = append(summaries, w.lab.S.Jobs[next].Summary...)
		w.finish(next)
	}
	if want := []string{"NODE_REKEY(" + string(statetest.Name(2)) + ")", "CLUSTER_SSH_KEYS"}; !slices.Equal(summaries, want) {
		t.Errorf("jobs %q, want %q", summaries, want)
	}
	if slices.Equal(before, w.node(2).Keys.Client) {
		t.Error("the candidate has its old keys")
	}
}

// TestRepairDryRun says what would be done, and does nothing.
func TestRepairDryRun(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.findings = []*verify.Finding{fault(4, "ERROR", verify.RepairKeys)}
	j := w.finish(w.submit(`{"OP_ID":"OP_CLUSTER_VERIFY","repair":true,"dry_run":true}`))
	wantSuccess(t, j, `false`)
	if !strings.Contains(logOf(j), "Dry run: would see to it that its keys") || slices.ContainsFunc(w.calls, func(s string) bool { return strings.HasPrefix(s, "destroy") }) {
		t.Errorf("log %q, calls %q", logOf(j), w.calls)
	}
}

// TestRepairNeedsTheLevel: a node of an earlier release is not asked.
func TestRepairNeedsTheLevel(t *testing.T) {
	w := newWorld(t, 2, 2)
	w.lab.S.FeatureLevel = state.LevelRepair - 1
	w.findings = []*verify.Finding{fault(2, "ERROR", verify.RepairNode)}
	j := w.finish(w.submit(repairOp))
	wantSuccess(t, j, `false`)
	if !strings.Contains(logOf(j), "feature level") || slices.ContainsFunc(w.calls, func(s string) bool { return strings.HasPrefix(s, "repair") }) {
		t.Errorf("log %q, calls %q", logOf(j), w.calls)
	}
}
