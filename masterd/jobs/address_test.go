package jobs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func rename(i int, to string) string {
	return fmt.Sprintf(`{"OP_ID":"%s","node_name":"%s","new_name":"%s"}`, OpNodeRename, statetest.Name(i), to)
}

func TestRename(t *testing.T) {
	w := newWorld(t, 3, 2)
	wantSuccess(t, w.finish(w.submit(rename(2, "web.lab.test"))), `[["name","web.lab.test"]]`)
	if n := w.node(2); n.Name != "web.lab.test" || entry(w, n).Name != n.Name || w.State().Roster().Node(n.UUID).Name != n.Name {
		t.Errorf("it is called %s", n.Name)
	}
	j := w.finish(w.submit(rename(3, "three.lab.test")))
	if j.Status != state.JobSuccess || len(j.Progress) != 1 || j.Progress[0].Text != "effective on 3 of 3 nodes" {
		t.Errorf("job is %s, %v", j.Status, j.Progress)
	}
	for op, want := range map[string]string{
		rename(1, "web.lab.test"): `["OpPrereqError",["Node web.lab.test is already in the configuration","already_exists"]]`,
		rename(1, "-"):            "wrong_input",
		rename(9, "x.lab.test"):   "unknown_entity",
	} {
		if j := w.finish(w.submit(op)); j.Status != state.JobError || !strings.Contains(string(j.OpResult[0]), want) {
			t.Errorf("%s: %s %s, want %s", op, j.Status, j.OpResult[0], want)
		}
	}
}

// TestRenameAndAdmission: a string for the old name must not bring it back, and
// a name for which there is a string is not free.
func TestRenameAndAdmission(t *testing.T) {
	w := newWorld(t, 2, 1)
	again := w.lab.Record(2)
	w.do(state.KindAdmissionCreate, state.AdmissionCreate{Record: again})
	wanted := w.lab.Record(7)
	w.do(state.KindAdmissionCreate, state.AdmissionCreate{Record: wanted})
	if j := w.finish(w.submit(rename(2, string(wanted.Name)))); j.Status != state.JobError || !strings.Contains(j.Error, "tokens revoke "+wanted.ID.String()) {
		t.Errorf("job is %s: %s", j.Status, j.Error)
	}
	w.finish(w.submit(rename(2, "web.lab.test")))
	for _, r := range w.State().LiveAdmissions(w.Now()) {
		if r.ID == again.ID {
			t.Error("the string for the old name is still good")
		}
	}
}

func TestSetAddresses(t *testing.T) {
	a := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	for _, c := range []struct {
		fields string
		want   []netip.Addr
		result string
	}{
		{`"addresses":["10.78.0.2","10.77.0.2"]`, []netip.Addr{a("10.78.0.2"), a("10.77.0.2")}, `[["primary_ip","10.78.0.2"]]`},
		{`"secondary_ip":"10.78.0.2"`, []netip.Addr{a("10.77.0.2"), a("10.78.0.2")}, `[["secondary_ip","10.78.0.2"]]`},
		{`"secondary_ip":"10.77.0.2"`, []netip.Addr{a("10.77.0.2")}, `[]`},
		{`"addresses":["2001:db8::2"]`, []netip.Addr{a("2001:db8::2")}, `[["primary_ip","2001:db8::2"],["secondary_ip","2001:db8::2"]]`},
		{`"addresses":["10.77.0.2"]`, []netip.Addr{a("10.77.0.2")}, `[]`},
	} {
		w := newWorld(t, 2, 2)
		wantSuccess(t, w.finish(w.submit(modify(2, c.fields))), c.result)
		n := w.node(2)
		if !slices.Equal(n.Addresses, c.want) || !slices.Equal(entry(w, n).Addresses, c.want) {
			t.Errorf("%s: addresses %v", c.fields, n.Addresses)
		}
		if from := entry(w, n).From; len(from) != len(c.want) {
			t.Errorf("%s: keys are good from %v", c.fields, from)
		}
	}
	w := newWorld(t, 2, 1)
	wantSuccess(t, w.finish(w.submit(modify(2, `"ndparams":{"ssh_port":2222}`))), `[["ndparams/ssh_port","2222"]]`)
	if w.node(2).Ports.SSH != 2222 {
		t.Error("the port of sshd is not changed")
	}
	wantSuccess(t, w.finish(w.submit(modify(2, `"secondary_ip":"10.78.0.2","dry_run":true`))), `[["secondary_ip","10.78.0.2"]]`)
	if len(w.node(2).Addresses) != 1 {
		t.Error("a dry run did it")
	}
}

func TestAddressRefusals(t *testing.T) {
	for fields, want := range map[string]string{
		`"addresses":["x"]`:                             "wrong_input",
		`"addresses":["10.77.0.1"]`:                     `["New node ip address(es) conflict with existing node node1.lab.test","resource_not_unique"]`,
		`"secondary_ip":"10.77.0.1"`:                    "resource_not_unique",
		`"addresses":["127.0.0.1"]`:                     "other nodes do not reach it there",
		`"addresses":["10.78.0.2","10.78.0.2"]`:         "named twice",
		`"addresses":["10.78.0.9"]`:                     "environment_error",
		`"ndparams":{"ssh_port":0}`:                     "wrong_input",
		`"ndparams":{"ssh_port":70000}`:                 "wrong_input",
		`"ndparams":{"cpu_speed":1}`:                    "Node parameter 'cpu_speed' is not known",
		`"secondary_ip":"10.78.0.2","offline":true`:     "in two steps",
		`"addresses":["` + many("10.78.1.%d", 9) + `"]`: "the limit is 8",
	} {
		w := newWorld(t, 2, 1)
		w.at(2).nowhere = []netip.Addr{netip.MustParseAddr("10.78.0.9")}
		before := w.State().Head()
		j := w.finish(w.submit(modify(2, fields)))
		if j.Status != state.JobError || !strings.Contains(string(j.OpResult[0]), want) {
			t.Errorf("%s: %s %s, want %s", fields, j.Status, j.OpResult[0], want)
		}
		if w.State().Head().Hash != before.Hash {
			t.Errorf("%s: the map has changed", fields)
		}
	}
	w := newWorld(t, 2, 1)
	w.at(2).nowhere = []netip.Addr{netip.MustParseAddr("10.78.0.9")}
	wantSuccess(t, w.finish(w.submit(modify(2, `"addresses":["10.78.0.9"],"force":true`))), `[["primary_ip","10.78.0.9"],["secondary_ip","10.78.0.9"]]`)
}

func many(pattern string, n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(pattern, i+1))
	}
	return strings.Join(list, `","`)
}

// TestMovedNodesAreNamed: who has not heard of it is named with both bounds.
func TestMovedNodesAreNamed(t *testing.T) {
	w := newWorld(t, 3, 1)
	w.at(3).up = false
	j := w.finish(w.submit(rename(2, "web.lab.test")))
	if j.Status != state.JobSuccess || len(j.Unreachable) != 1 || cluster.Name(j.Unreachable[0].Node) != statetest.Name(3) {
		t.Errorf("job is %s, unreachable %v", j.Status, j.Unreachable)
	}
}

// entry is the node's entry in the newest map.
func entry(w *world, n *state.Node) candmap.Candidate {
	for _, c := range w.State().HeadMap().Candidates {
		if c.UUID == n.UUID {
			return c
		}
	}
	return candmap.Candidate{}
}
