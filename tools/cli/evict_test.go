package cli

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/rapi/rapitest"
	"rolekey/rpc"
)

// evictingVoters makes node2 of so many voters, of whom those numbered have evicted
// node1; the last one does not answer if silent.
func evictingVoters(t *testing.T, count int, silent bool, others ...int) *machine {
	t.Helper()
	m := newMachine(t)
	id := func(i int) cluster.NodeID { return cluster.NodeID{15: byte(i)} }
	name := func(i int) cluster.Name { return cluster.Name("node" + string(rune('0'+i)) + ".lab.test") }
	var here []rpc.Eviction
	noded := http.NewServeMux()
	rpc.HandleLocal(noded, http.MethodGet, rpc.LocalEvict, func(context.Context, *struct{}) (any, error) { return rpc.EvictReply{Evicted: here}, nil })
	rpc.HandleLocal(noded, http.MethodPost, rpc.LocalEvict, func(_ context.Context, r *rpc.EvictRequest) (any, error) {
		if r.Node != "node1" && r.Node != string(name(1)) {
			return nil, cluster.Errorf(cluster.CodeNotFound, "'%s' is not a master candidate", r.Node)
		}
		here = nil
		if !r.Undo {
			here = []rpc.Eviction{{Node: id(1), Incarnation: 1, Name: name(1), Since: time.Unix(1795000000, 0).UTC()}}
		}
		return rpc.EvictReply{Evicted: here, Changed: true}, nil
	})
	rapitest.ServeUnix(t, m.at.NodedSock(), noded)
	masterd := http.NewServeMux()
	rpc.HandleLocal(masterd, http.MethodGet, rpc.LocalEvictions, func(context.Context, *struct{}) (any, error) {
		var r rpc.EvictionsReply
		for i := 1; i <= count; i++ {
			v := rpc.VoterEvictions{Node: id(i), Name: name(i), Self: i == 2}
			if slices.Contains(others, i) || i == 2 && len(here) > 0 {
				v.Evicted = []cluster.NodeID{id(1)}
			}
			if i == count && silent {
				v.Problem = "no answer"
			}
			r.Voters = append(r.Voters, v)
		}
		return r, nil
	})
	rapitest.ServeUnix(t, m.at.MasterdSock(), masterd)
	return m
}

func TestEvict(t *testing.T) {
	for _, c := range []struct {
		voters int
		silent bool
		others []int
		says   []string
		not    string
	}{
		{3, false, nil, []string{"no majority", "Run the same command on: node3.lab.test"}, "modify"},
		{3, false, []int{3}, []string{"That is a majority", "gnt-node modify --offline=yes --auto-promote node1.lab.test"}, "Before that"},
		{5, false, []int{3, 4}, []string{"That is a majority", "Before that, evict it on the other voters too, or it can disturb them: node5.lab.test"}, "no majority"},
		{3, true, nil, []string{"Run the same command on: node3.lab.test (no answer)"}, "modify"},
		{1, false, nil, []string{"cannot be deposed by eviction", "gnt-cluster recover"}, "modify"},
	} {
		m := evictingVoters(t, c.voters, c.silent, c.others...)
		r := m.run(Cluster, "evict", "node1")
		if r.code != ExitOK || !strings.Contains(r.out, "Node: node1.lab.test\nEvicted on this node: yes\n") {
			t.Errorf("%+v: %+v", c, r)
		}
		for _, want := range c.says {
			if !strings.Contains(r.err, want) {
				t.Errorf("%+v: %q is missing in:\n%s", c, want, r.err)
			}
		}
		if strings.Contains(r.err, c.not) {
			t.Errorf("%+v: %q is said:\n%s", c, c.not, r.err)
		}
	}
}

func TestEvictListAndUndo(t *testing.T) {
	m := evictingVoters(t, 3, true)
	if r := m.run(Cluster, "evict", "--list"); r.code != ExitOK || r.out != "" || !strings.Contains(r.err, "No node is evicted") {
		t.Errorf("%+v", r)
	}
	m.fail(ExitFailed, "not a master candidate", Cluster, "evict", "node9")
	var one evictReport
	m.wantJSON(&one, Cluster, "evict", "node1.lab.test", "--json")
	if one.Node != "node1.lab.test" || !one.Evicted || one.Count != 1 || one.Needed != 2 || one.Deposed || len(one.Voters) != 2 || one.Voters[1].Evicted != nil || !*one.Voters[0].Evicted {
		t.Errorf("%+v", one)
	}
	var list []evictReport
	m.wantJSON(&list, Cluster, "evict", "--list", "--json")
	if len(list) != 1 || list[0].Since != "2026-11-18T11:06:40Z" {
		t.Errorf("%+v", list)
	}
	if out := m.want(Cluster, "evict", "--list"); !strings.Contains(out, "- Node: node1.lab.test\n") || !strings.Contains(out, "  Evicted by voters:\n    - node2.lab.test\n  Needed to depose it: 2\n") {
		t.Error(out)
	}
	if out := m.want(Cluster, "evict", "--undo", "node1"); !strings.Contains(out, "Evicted on this node: no\n") {
		t.Error(out)
	}
	for _, args := range [][]string{{"evict"}, {"evict", "--list", "node1"}, {"evict", "--list", "--undo"}} {
		m.fail(ExitFailed, "usage", Cluster, args...)
	}
	m.fail(ExitFailed, "", Cluster, "evict", "a", "b")
}
