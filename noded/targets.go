package noded

import (
	"rolekey/cluster"
	"rolekey/rpc"
)

// nodedOf is the noded of a node.
func nodedOf(id cluster.NodeID) rpc.Target { return rpc.Target{Node: id, Daemon: rpc.Noded} }

// masterdOf is the masterd of a candidate.
func masterdOf(id cluster.NodeID) rpc.Target { return rpc.Target{Node: id, Daemon: rpc.Masterd} }
