package verify

import (
	"slices"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// TestFactsOfNodes: what lies on a node's disk and around it is reported, each
// thing by its code and node, and nothing else.
func TestFactsOfNodes(t *testing.T) {
	all := func(f *field) (ids []cluster.NodeID) {
		for _, n := range f.lab.S.SortedNodes() {
			ids = append(ids, n.UUID)
		}
		return ids
	}
	files := map[string]cluster.Digest{"ssconf_master_node": {1}}
	for what, c := range map[string]struct {
		spoil func(f *field) rpc.NodeFacts
		want  string
	}{
		"a mode": {func(f *field) rpc.NodeFacts {
			return rpc.NodeFacts{Files: files, Gossip: all(f), Modes: []string{"/x has mode 0644, want at most 0600"}}
		}, "ERROR:ENODEFILECHECK:node:node4.lab.test:/x has mode 0644"},
		"a copy": {func(f *field) rpc.NodeFacts {
			return rpc.NodeFacts{Files: files, Gossip: all(f), Copies: []rpc.KeyCopy{{Path: "/root/key", Key: f.node(2).Keys.SSH[0]}}}
		}, "ERROR:ENODEKEY:node:node4.lab.test:A copy of the private SSH key of node2.lab.test"},
		"gossip": {func(f *field) rpc.NodeFacts {
			return rpc.NodeFacts{Files: files, Gossip: slices.DeleteFunc(all(f), func(id cluster.NodeID) bool { return id == statetest.ID(2) })}
		}, "WARNING:ENODENET:node:node4.lab.test:gossip does not reach node2.lab.test"},
		"a full disk": {func(f *field) rpc.NodeFacts {
			return rpc.NodeFacts{Files: files, Gossip: all(f), Unsaved: []string{"no space left on device"}}
		}, "ERROR:ENODEMAP:node:node4.lab.test:follows its candidate map, and cannot save it: no space left on device"},
		"a missing file": {
			func(f *field) rpc.NodeFacts { return rpc.NodeFacts{Gossip: all(f)} },
			"ERROR:ECLUSTERFILECHECK:cluster:None:File ssconf_master_node is missing from node(s) node4.lab.test",
		},
		"another file": {func(f *field) rpc.NodeFacts {
			return rpc.NodeFacts{Files: map[string]cluster.Digest{"ssconf_master_node": {2}}, Gossip: all(f)}
		}, "ERROR:ECLUSTERFILECHECK:cluster:None:File ssconf_master_node found with 2 different checksums (variant 1 on node1.lab.test"},
	} {
		f := newField(t)
		f.facts = map[cluster.NodeID]rpc.NodeFacts{statetest.ID(4): c.spoil(f)}
		ok, bad := f.run()
		if len(bad) != 1 || !strings.HasPrefix(strings.TrimPrefix(bad[0], "  - "), c.want) || ok != strings.HasPrefix(c.want, "WARNING") {
			t.Errorf("%s: %v %q", what, ok, bad)
		}
	}
}

// TestLinkIsNotRepaired: nobody is told to have repaired what no repair touches.
func TestLinkIsNotRepaired(t *testing.T) {
	f := newField(t)
	f.facts = map[cluster.NodeID]rpc.NodeFacts{statetest.ID(4): f.told(rpc.NodeFacts{Modes: []string{"/x" + rpc.SymbolicLink, "/y has mode 0644"}})}
	if _, got := f.run(); len(got) != 2 || f.report.Findings[0].Repair != RepairNone || f.report.Findings[1].Repair != RepairNode {
		t.Errorf("%q", got)
	}
}

// TestSoftwareDiffers: an upgrade that is not finished is no error.
func TestSoftwareDiffers(t *testing.T) {
	f := newField(t)
	f.at(4).Software = "2.0"
	if ok, bad := f.run(); !ok || len(bad) != 1 || !strings.Contains(bad[0], "WARNING:ENODEVERSION:node:node4.lab.test") {
		t.Errorf("%v %q", ok, bad)
	}
}

// TestVotersDiffer: raft and the map must mean the same nodes.
func TestVotersDiffer(t *testing.T) {
	for what, c := range map[string]struct {
		spoil func(v *roles.View)
		want  string
	}{
		"a voter of the map alone": {func(v *roles.View) {
			v.RaftVoters, v.RaftNonvoters = slices.DeleteFunc(v.RaftVoters, func(id cluster.NodeID) bool { return id == statetest.ID(1) }), append(v.RaftNonvoters, statetest.ID(1))
		}, "ERROR:ECLUSTERCFG:node:node1.lab.test"},
		"no member": {func(v *roles.View) {
			v.RaftNonvoters = slices.DeleteFunc(v.RaftNonvoters, func(id cluster.NodeID) bool { return id == statetest.ID(3) })
		}, "ERROR:ECLUSTERCFG:node:node3.lab.test"},
		"a member too many": {func(v *roles.View) { v.RaftNonvoters = append(v.RaftNonvoters, statetest.ID(4)) }, "ERROR:ECLUSTERCFG:node:node4.lab.test"},
		"behind":            {func(v *roles.View) { v.CaughtUp = func(id cluster.NodeID) bool { return id != statetest.ID(2) } }, "WARNING:ECLUSTERCFG:node:node2.lab.test"},
		"silent":            {func(v *roles.View) { v.Reachable = func(id cluster.NodeID) bool { return id != statetest.ID(2) } }, "WARNING:ECLUSTERCFG:node:node2.lab.test"},
	} {
		f := newField(t)
		f.voting = c.spoil
		if _, bad := f.run(); len(bad) != 1 || !strings.HasPrefix(strings.TrimPrefix(bad[0], "  - "), c.want) {
			t.Errorf("%s: %q", what, bad)
		}
	}
}
