package hooks

import (
	"maps"
	"net/netip"
	"slices"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// Flag is a flag as Ganeti's scripts know it: what was asked for, or None.
func Flag(b *bool) string {
	switch {
	case b == nil:
		return "None"
	case *b:
		return "True"
	}
	return "False"
}

// All are the nodes of the cluster, in their order, but for those left out.
func All(s *state.State, but ...cluster.NodeID) []cluster.NodeID {
	var out []cluster.NodeID
	for _, n := range s.SortedNodes() {
		if !slices.Contains(but, n.UUID) {
			out = append(out, n.UUID)
		}
	}
	return out
}

// NodeNow are the variables of a node as it is.
func NodeNow(n *state.Node) map[string]string {
	f := n.Flags
	vars := map[string]string{
		"NODE_NAME": string(n.Name), "MASTER_CANDIDATE": Flag(&f.MasterCandidate), "OFFLINE": Flag(&f.Offline), "DRAINED": Flag(&f.Drained),
		"MASTER_CAPABLE": Flag(&f.MasterCapable), "VM_CAPABLE": Flag(&f.VMCapable),
	}
	maps.Copy(vars, Place("NODE_", n.Addresses))
	return vars
}

// Place are the variables of a node's primary and secondary address, which may
// be one, or not known; prefix is what their names begin with.
func Place(prefix string, addresses []netip.Addr) map[string]string {
	vars := map[string]string{prefix + "PIP": "", prefix + "SIP": ""}
	if len(addresses) > 0 {
		vars[prefix+"PIP"], vars[prefix+"SIP"] = addresses[0].String(), addresses[min(1, len(addresses)-1)].String()
	}
	return vars
}

// Verify is the operation of gnt-cluster verify.
func Verify(s *state.State) Op {
	return Op{Hook: rpc.HookClusterVerify, Code: "OP_CLUSTER_VERIFY", Vars: map[string]string{"OP_TARGET": string(s.Cluster.Name)}, Nodes: All(s)}
}

// Failover is the change of master, seen by the one that has taken office.
func Failover(s *state.State, old cluster.Name) Op {
	vars := map[string]string{"OP_TARGET": string(s.Cluster.Name)}
	if old != "" {
		vars["OLD_MASTER"] = string(old)
	}
	return Op{Hook: rpc.HookMasterFailover, Code: "OP_CLUSTER_MASTER_FAILOVER", Vars: vars, Nodes: []cluster.NodeID{s.Master}}
}

// OnMaster is an operation on the whole cluster whose scripts run on the master
// only, such as cluster-modify.
func OnMaster(s *state.State, hook string) Op {
	return Op{Hook: hook, Vars: map[string]string{"OP_TARGET": string(s.Cluster.Name)}, Nodes: []cluster.NodeID{s.Master}}
}

// NodeAdd is the admission of a node. Where it is may not be known yet.
func NodeAdd(name cluster.Name, addresses []netip.Addr, f cluster.Flags) Op {
	op := Op{Hook: rpc.HookNodeAdd, Code: "OP_NODE_ADD", Vars: map[string]string{
		"OP_TARGET": string(name), "NODE_NAME": string(name),
		"MASTER_CAPABLE": Flag(&f.MasterCapable), "VM_CAPABLE": Flag(&f.VMCapable),
	}}
	maps.Copy(op.Vars, Place("NODE_", addresses))
	return op
}
