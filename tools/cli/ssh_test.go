package cli

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"testing"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/rapitest"
	"rolekey/rpc"
)

func TestSSH(t *testing.T) {
	m := newMachine(t)
	way := rpc.SSHWay{
		Name: "node2.lab.test", Address: netip.MustParseAddr("10.77.0.2"), Port: 2222, User: "root", KnownHosts: "/a b/100%/hosts",
		Identities: []string{"/a b/id.next", "/a b/id"}, Bind: "10.77.0.1",
	}
	var refuse error
	var asked []string
	mux := http.NewServeMux()
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalSSH, func(_ context.Context, r *rpc.SSHWayRequest) (any, error) {
		asked = append(asked, r.Node)
		return way, refuse
	})
	rapitest.ServeUnix(t, m.at.NodedSock(), mux)
	var argv []string
	p := func(a *app) *cobra.Command {
		a.exec = func(_ string, args []string) error { argv = args; return nil }
		return Cluster(a)
	}
	m.want(p, "ssh", "-t", "node2", "--", "top", "-n", "1")
	for _, o := range []string{
		"HostName=10.77.0.2", "Port=2222", "User=root", "HostKeyAlias=node2.lab.test", `UserKnownHostsFile="/a b/100%%/hosts"`, "StrictHostKeyChecking=yes",
		"IdentitiesOnly=yes", "IdentityAgent=none", "BindAddress=10.77.0.1", `IdentityFile="/a b/id.next"`, `IdentityFile="/a b/id"`,
	} {
		if i := slices.Index(argv, o); i < 1 || argv[i-1] != "-o" {
			t.Errorf("%q is not in %q", o, argv)
		}
	}
	if slices.Index(argv, `IdentityFile="/a b/id.next"`) > slices.Index(argv, `IdentityFile="/a b/id"`) {
		t.Errorf("the older key is tried first: %q", argv)
	}
	if end := argv[len(argv)-6:]; !slices.Equal(end, []string{"-t", "--", "node2.lab.test", "top", "-n", "1"}) {
		t.Errorf("it ends with %q", end)
	}
	way.Agent, way.Identities = "/run/agent", nil
	m.want(p, "ssh", "node2", "uptime")
	if !slices.Contains(argv, `IdentityAgent="/run/agent"`) || slices.Contains(argv, "-t") || argv[len(argv)-1] != "uptime" {
		t.Errorf("%q", argv)
	}
	m.want(p, "ssh", "10.77.0.2")
	if argv[len(argv)-1] != "node2.lab.test" || !slices.Equal(asked, []string{"node2", "node2", "10.77.0.2"}) {
		t.Errorf("asked for %q, and %q", asked, argv)
	}
	notHere := cluster.Errorf(cluster.CodeNotMaster, "its key opens no other node")
	notHere.Node = "node1.lab.test"
	refuse = notHere
	m.fail(ExitNotMaster, "please connect to node 'node1.lab.test'", p, "ssh", "node2")
	refuse = cluster.Errorf(cluster.CodeNotFound, "Node 'x' not known")
	m.fail(ExitFailed, "Node 'x' not known", p, "ssh", "x")
	m.fail(ExitFailed, "usage:", p, "ssh")
}

func TestSSHWithoutNoded(t *testing.T) {
	m := newMachine(t)
	m.fail(ExitFailed, "Cannot communicate with the node daemon.", Cluster, "ssh", "node2")
}
