package consensus

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"

	"rolekey/cluster"
)

// ServerID names a raft server: the node and its incarnation, so that a node
// that was admitted again is another server and never votes with an old log.
func ServerID(node cluster.NodeID, incarnation uint64) raft.ServerID {
	return raft.ServerID(node.String() + "/" + strconv.FormatUint(incarnation, 10))
}

// ParseServerID reads what ServerID returns.
func ParseServerID(id raft.ServerID) (cluster.NodeID, uint64, error) {
	text, number, ok := strings.Cut(string(id), "/")
	node, err1 := cluster.ParseUUID(text)
	incarnation, err2 := strconv.ParseUint(number, 10, 64)
	if !ok || err1 != nil || err2 != nil || ServerID(node, incarnation) != id {
		return cluster.NodeID{}, 0, fmt.Errorf("parse raft server id %q: want UUID/INCARNATION", clip([]byte(id)))
	}
	return node, incarnation, nil
}
