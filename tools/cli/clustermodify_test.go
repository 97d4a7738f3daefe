package cli

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// upgraded is a cluster none of whose nodes is of an earlier release.
func upgraded(t *testing.T, nodes int) *machine {
	m := master(t, nodes)
	m.b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: cluster.FeatureLevel})
	return m
}

func TestModifyCluster(t *testing.T) {
	for _, c := range []struct {
		args string
		want map[string]any
	}{
		{"-C 7 --map-lease=1m --ssh-lease 12h", map[string]any{"candidate_pool_size": 7.0, "lease_seconds": 60.0, "ssh_lease_seconds": 43200.0}},
		{"--map-policy=best_effort --ssh-reach=master", map[string]any{"policy": "best_effort", "ssh_reach": "master"}},
		{"--ssh-authorize=command", map[string]any{"ssh_authorize": "command"}},
		{"--rapi-may-promote=no", map[string]any{"rapi_may_promote": false}},
		{"--master-netdev=eth0 --master-ip=192.0.2.9/24", map[string]any{"master_address": map[string]any{"address": "192.0.2.9/24", "netdev": "eth0"}}},
		{"--master-netdev=eth0 --master-ip=2001:db8::9", map[string]any{"master_address": map[string]any{"address": "2001:db8::9/128", "netdev": "eth0"}}},
		{"--ssh-key-mode=shared --ssh-key-storage=agent", map[string]any{"ssh_key_mode": "shared", "ssh_key_storage": "agent"}},
		{"--ssh-key-type=ecdsa --ssh-key-bits=384", map[string]any{"ssh_key_type": "ecdsa", "ssh_key_bits": 384.0}},
		{"--ssh-key-bits=521 --ssh-setup=no", map[string]any{"ssh_key_bits": 521.0, "modify_ssh_setup": false}},
		{"--no-master-ip", map[string]any{"no_master_address": true}},
	} {
		m := upgraded(t, 1)
		var got map[string]any
		m.b.OnSubmit = func(id int64, op map[string]any) {
			got = op
			u := succeeds(`[]`)
			u.ID = id
			m.b.Do(state.KindJobUpdate, u)
		}
		if out := m.want(Cluster, append([]string{"modify"}, strings.Fields(c.args)...)...); out != "" {
			t.Errorf("%s prints %q", c.args, out)
		}
		c.want["OP_ID"] = "OP_CLUSTER_SET_PARAMS"
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: opcode %v", c.args, got)
		}
	}
}

func TestModifyClusterRefusesNonsense(t *testing.T) {
	m := master(t, 1)
	m.b.OnSubmit = func(int64, map[string]any) { t.Error("a job was made") }
	for args, says := range map[string]string{
		"":                                      "Please give at least one of the parameters.",
		"--map-lease=0":                         "want whole seconds",
		"--map-lease=1500ms":                    "want whole seconds",
		"--map-policy=lax":                      "want strict or best_effort",
		"--ssh-reach=all":                       "want candidates or master",
		"--ssh-authorize=both":                  "want file or command",
		"--ssh-key-type=dsa":                    `ssh key type "dsa": want ed25519, ecdsa or rsa`,
		"--ssh-key-type=rsa --ssh-key-bits=512": "rsa keys have 3072 to 8192 here",
		"--ssh-key-mode=own":                    "want per-candidate or shared",
		"--ssh-key-storage=tpm":                 "want file or agent",
		"--ssh-setup=maybe":                     "yes or no",
		"--master-ip=192.0.2.9/24":              "together",
		"--master-netdev=eth0":                  "together",
		"--master-netdev=eth0 --master-ip=x":    "want an address, with or without",
		"--master-netdev=e/0 --master-ip=::1/8": "network device",
		"--rapi-may-promote=perhaps":            "want yes or no",
	} {
		m.fail(ExitFailed, says, Cluster, append([]string{"modify"}, strings.Fields(args)...)...)
	}
}

func TestQueue(t *testing.T) {
	m := upgraded(t, 2)
	info := func(want string) {
		t.Helper()
		if out := m.want(Cluster, "queue", "info"); out != want {
			t.Errorf("%q, want %q", out, want)
		}
	}
	info("The drain flag is unset\n")
	m.want(Cluster, "queue", "drain")
	info("The drain flag is set\n")
	m.b.SubmitErr, m.b.OnRefuse = cluster.Errorf(cluster.CodeQueueDrained, "Job queue is drained, cannot submit"), func() {}
	m.fail(ExitFailed, "Failure: the job queue is marked for drain and doesn't accept new requests", Node, "modify", "-D", "yes", "node2")
	m.want(Cluster, "queue", "undrain")
	info("The drain flag is unset\n")
	m.fail(ExitFailed, "Want drain, undrain or info", Cluster, "queue", "flush")
}

func TestRenameClusterAsks(t *testing.T) {
	m := upgraded(t, 1)
	var names []any
	m.b.OnSubmit = func(id int64, op map[string]any) {
		names = append(names, op["name"])
		u := succeeds(`"other.test"`)
		u.ID = id
		m.b.Do(state.KindJobUpdate, u)
	}
	for answer, want := range map[string]int{"": ExitDeclined, "n\n": ExitDeclined, "yess\n": ExitDeclined, "y\n": ExitOK, "YES": ExitOK} {
		var out, errs bytes.Buffer
		a := func(a *app) { a.in = strings.NewReader(answer) }
		if code := m.runAs(a, &out, &errs, Cluster, "rename", "other.test"); code != want {
			t.Errorf("%q: exit code %d\n%s", answer, code, errs.String())
		}
	}
	m.want(Cluster, "rename", "-f", "other.test")
	if !slices.Equal(names, []any{"other.test", "other.test", "other.test"}) {
		t.Errorf("renamed to %v", names)
	}
	m.fail(ExitFailed, "host name", Cluster, "rename", "-f", "*")
}

func TestDestroy(t *testing.T) {
	m := master(t, 2)
	m.fail(ExitFailed, "There are still 1 node(s) in this cluster.", Cluster, "destroy", "--yes-do-it")
	m = master(t, 1)
	m.serveNoded(rpc.LocalStatusReply{State: "member"})
	m.fail(ExitFailed, "give --yes-do-it", Cluster, "destroy")
	if m.left != 0 {
		t.Fatal("it was destroyed without the word")
	}
	m.want(Cluster, "destroy", "--yes-do-it")
	if m.left != 1 {
		t.Error("the node daemon was not told")
	}
}
