package cli

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/rapi/rapitest"
	"rolekey/rpc"
)

// candidate makes a machine that is a candidate, and not the master, whose
// masterd answers a failover like this.
func candidate(t *testing.T, answer func(*rpc.FailoverRequest) (any, error)) *machine {
	t.Helper()
	m := newMachine(t)
	m.serveNoded(rpc.LocalStatusReply{State: "member", Role: "master-candidate", Name: "node2.lab.test", Master: "node1.lab.test"})
	mux := http.NewServeMux()
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalFailover, func(_ context.Context, r *rpc.FailoverRequest) (any, error) { return answer(r) })
	rapitest.ServeUnix(t, m.at.MasterdSock(), mux)
	return m
}

func TestMasterFailover(t *testing.T) {
	var asked []rpc.FailoverRequest
	m := candidate(t, func(r *rpc.FailoverRequest) (any, error) {
		asked = append(asked, *r)
		return rpc.FailoverReply{Master: "node2.lab.test", Previous: "node1.lab.test", Version: cluster.Version{Epoch: 1, Version: 8}, Steps: []string{"elected"}}, nil
	})
	for _, args := range [][]string{{"master-failover"}, {"master-failover", "--yes-do-it", "--ignore-offline-nodes"}} {
		r := m.run(Cluster, args...)
		if r.code != ExitOK || !strings.Contains(r.out, "Master: node2.lab.test\nPrevious master: node1.lab.test\nMap: 1.8\n") || r.err != "elected\n" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	var reply rpc.FailoverReply
	m.wantJSON(&reply, Cluster, "master-failover", "--json")
	m.want(Cluster, "master-failover", "--to", "node3")
	if reply.Master != "node2.lab.test" || len(asked) != 4 || asked[3].To != "node3" || asked[0].To != "" {
		t.Errorf("%+v %+v", reply, asked)
	}
}

func TestMasterFailoverIsRefused(t *testing.T) {
	m := candidate(t, func(r *rpc.FailoverRequest) (any, error) {
		if r.To == "" {
			return nil, cluster.Errorf(cluster.CodeNoQuorum, "no master has come into office")
		}
		e := cluster.Errorf(cluster.CodeNotMaster, "this node is not the master")
		e.Node = "node1.lab.test"
		return nil, e
	})
	m.fail(ExitNoQuorum, "no master has come into office", Cluster, "master-failover")
	m.fail(ExitNotMaster, "please connect to node 'node1.lab.test'", Cluster, "master-failover", "--to", "node3")
	m.fail(ExitFailed, "gnt-cluster evict", Cluster, "master-failover", "--no-voting")

	for _, c := range []struct {
		status rpc.LocalStatusReply
		code   int
		says   string
	}{
		{rpc.LocalStatusReply{State: "none"}, ExitNoCluster, "not initialized"},
		{rpc.LocalStatusReply{State: "member", Role: "regular", Name: "node4.lab.test", Master: "node1.lab.test"}, ExitFailed, "not among the nodes marked as master candidates"},
		{rpc.LocalStatusReply{State: "member", Role: "master", Name: "node1.lab.test", Master: "node1.lab.test"}, ExitFailed, "where you want the new master to be. node1.lab.test is already the master"},
		{rpc.LocalStatusReply{State: "member", Role: "master-candidate", Name: "node2.lab.test", Master: "node1.lab.test"}, ExitFailed, "Cannot communicate with the master daemon"},
	} {
		m := newMachine(t)
		m.serveNoded(c.status)
		m.fail(c.code, c.says, Cluster, "master-failover")
	}
}

func TestMasterPing(t *testing.T) {
	m := master(t, 2)
	for _, ready := range []bool{true, false} {
		want := ExitOK
		if !ready {
			m.b.Fail(nil, cluster.Errorf(cluster.CodeNoQuorum, "there is no master at present"))
			want = ExitFailed
		}
		if r := m.run(Cluster, "master-ping"); r.code != want || r.out != "" || r.err != "" {
			t.Errorf("ready %t: %+v", ready, r)
		}
	}
	if r := newMachine(t).run(Cluster, "master-ping"); r.code != ExitFailed || r.out+r.err != "" {
		t.Errorf("%+v", r)
	}
}
