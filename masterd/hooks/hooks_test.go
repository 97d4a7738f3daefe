package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// nodes is a cluster of nodes as hooks meet it.
type nodes struct {
	answer map[int]func(ctx context.Context) (rpc.HooksReply, error) // by number; none: no scripts
	dead   map[int]bool
	asked  chan rpc.HooksRequest
}

func number(id cluster.NodeID) int { return int(id[7]) }

func (n *nodes) Hooks(ctx context.Context, node cluster.NodeID, r rpc.HooksRequest) (rpc.HooksReply, error) {
	if err := r.Check(); err != nil {
		return rpc.HooksReply{}, err
	}
	n.asked <- r
	if f := n.answer[number(node)]; f != nil {
		return f(ctx)
	}
	return rpc.HooksReply{}, nil
}

func (n *nodes) Pulse(ctx context.Context, node cluster.NodeID) error {
	if n.dead[number(node)] {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func result(status rpc.HookStatus, reason, output string) func(context.Context) (rpc.HooksReply, error) {
	return func(context.Context) (rpc.HooksReply, error) {
		return rpc.HooksReply{Results: []rpc.HookResult{{Script: "s", Status: status, Reason: reason, Output: output}}}, nil
	}
}

func hang(ctx context.Context) (rpc.HooksReply, error) {
	<-ctx.Done()
	return rpc.HooksReply{}, ctx.Err()
}

func lab(t *testing.T) *state.State {
	l := statetest.New(t)
	for i := 2; i <= 6; i++ {
		l.Add(i)
	}
	l.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(5), Flags: &state.FlagPatch{Offline: new(true)}})
	return l.S
}

// TestOnlyAnswersVeto: neither an offline node, nor one that does not answer or
// is of an older build, nor a script that must not be run.
func TestOnlyAnswersVeto(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := lab(t)
		n := &nodes{asked: make(chan rpc.HooksRequest, 10), dead: map[int]bool{3: true, 6: true}, answer: map[int]func(context.Context) (rpc.HooksReply, error){
			1: result(rpc.HookSucceeded, "", "fine"),
			2: result(rpc.HookRefused, "is writable by others than its owner", ""),
			3: hang,
			4: func(context.Context) (rpc.HooksReply, error) {
				return rpc.HooksReply{}, cluster.Errorf(cluster.CodeNotFound, "no such call")
			},
			5: result(rpc.HookFailed, "exit code 1", "offline nodes are not asked"),
			6: result(rpc.HookFailed, "exit code 1", "nor is who is away"),
		}}
		began := time.Now()
		r := Run(t.Context(), n, s, Call{Op: Verify(s), Phase: rpc.HooksPre}, func(id cluster.NodeID) bool { return number(id) == 6 })
		if err := r.Veto(); err != nil {
			t.Error(err)
		}
		want := []string{
			"On node node2.lab.test hook script s was not run: is writable by others than its owner",
			"Hooks were not run on node node3.lab.test: it does not answer: context deadline exceeded",
			"Hooks were not run on node node6.lab.test: it does not answer",
		}
		if got := r.Warnings(); !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
		if took := time.Since(began); took != pulsePause+pulseLimit {
			t.Errorf("a dead node cost %s", took)
		}
		if len(n.asked) != 4 {
			t.Errorf("%d nodes were asked", len(n.asked))
		}
		n.dead[6] = false
		if err := Run(t.Context(), n, s, Call{Op: Verify(s), Phase: rpc.HooksPre}, func(id cluster.NodeID) bool { return number(id) == 6 }).Veto(); err == nil {
			t.Error("a node that is back does not veto")
		}
	})
}

// TestPhaseIsBounded: a node that lives and never ends its scripts.
func TestPhaseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := lab(t)
		n := &nodes{asked: make(chan rpc.HooksRequest, 10), answer: map[int]func(context.Context) (rpc.HooksReply, error){2: hang}}
		began := time.Now()
		r := Run(t.Context(), n, s, Call{Op: Verify(s), Phase: rpc.HooksPost}, nil)
		if took := time.Since(began); took != Limit || len(r) != 1 || r[0].Unasked == "" {
			t.Errorf("%v after %s", r, took)
		}
	})
}

func TestVetoIsBounded(t *testing.T) {
	s := lab(t)
	n := &nodes{asked: make(chan rpc.HooksRequest, 10), answer: map[int]func(context.Context) (rpc.HooksReply, error){}}
	many := rpc.HooksReply{}
	for i := range 1000 {
		many.Results = append(many.Results, rpc.HookResult{Script: fmt.Sprintf("s%d\x1b[2J", i), Status: "unheard of", Output: strings.Repeat("ü", 100000)})
	}
	for i := 1; i <= 6; i++ {
		n.answer[i] = func(context.Context) (rpc.HooksReply, error) { return many, nil }
	}
	err := Run(t.Context(), n, s, Call{Op: Verify(s), Phase: rpc.HooksPre}, nil).Veto()
	var veto *Abort
	if !errors.As(err, &veto) || len(err.Error()) > state.MaxError || strings.Contains(err.Error(), "\x1b") || len(veto.Failed) != 5*maxScripts {
		t.Fatalf("%d bytes: %v", len(err.Error()), err)
	}
	if !strings.HasPrefix(err.Error(), "hooks execution failed:\n  node: node1.lab.test, script: s0?[2J, output: üü") {
		t.Errorf("%.200s", err)
	}
}

func TestVariables(t *testing.T) {
	s := lab(t)
	n := &nodes{asked: make(chan rpc.HooksRequest, 10)}
	op := OnMaster(s, rpc.HookClusterModify)
	op.Code = "OP_CLUSTER_SET_PARAMS"
	Run(t.Context(), n, s, Call{Op: op, Phase: rpc.HooksPost, After: map[string]string{"OFFLINE": "True"}}, nil)
	got := (<-n.asked).Vars
	want := map[string]string{
		"CLUSTER": "lab.test", "MASTER": "node1.lab.test", "OP_CODE": "OP_CLUSTER_SET_PARAMS", "OP_TARGET": "lab.test", "POST_OFFLINE": "True",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v", got)
	}
	if len(op.Vars) != 1 {
		t.Error("the operation's own variables were changed")
	}
	f := Failover(s, "node2.lab.test")
	if r := request(s, Call{Op: f, Phase: rpc.HooksPost}); r.Check() != nil || r.Vars["OLD_MASTER"] != "node2.lab.test" {
		t.Errorf("%+v: %v", r, r.Check())
	}
}

// TestIdleNodesAreNotAskedAgain: who has no scripts for the post phase.
func TestIdleNodesAreNotAskedAgain(t *testing.T) {
	s := lab(t)
	idle := func(context.Context) (rpc.HooksReply, error) { return rpc.HooksReply{NoPost: true}, nil }
	n := &nodes{asked: make(chan rpc.HooksRequest, 20), answer: map[int]func(context.Context) (rpc.HooksReply, error){1: idle, 2: idle, 3: idle, 6: idle}}
	op := NodeAdd("node7.lab.test", nil, cluster.Flags{})
	op.Nodes = All(s)
	known := new(Idle)
	Run(t.Context(), n, s, Call{Op: op, Phase: rpc.HooksPre, Idle: known}, nil)
	before := len(n.asked)
	Run(t.Context(), n, s, Call{Op: op, Phase: rpc.HooksPost, Idle: known}, nil)
	if asked := len(n.asked) - before; before != 5 || asked != 1 {
		t.Errorf("%d nodes were asked before and %d after, want all 5 and the one that may have scripts", before, asked)
	}
}
