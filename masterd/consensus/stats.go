package consensus

import (
	"strings"

	"github.com/hashicorp/raft"
)

// Stats says where raft stands on this node.
type Stats struct {
	State                                      string // see States
	Term, LastIndex, CommitIndex, AppliedIndex uint64
	Voters                                     int  // in the newest configuration known
	Leader                                     bool // one is known
}

// States are what Stats.State may be.
var States = []string{"follower", "candidate", "leader", "shutdown"}

// Stats asks raft.
func (n *Node) Stats() Stats {
	s := Stats{
		State: strings.ToLower(n.raft.State().String()), Term: n.Term(), LastIndex: n.LastIndex(),
		CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.raft.AppliedIndex(), Leader: n.Leader() != "",
	}
	servers, _ := n.Servers() // it is read from memory
	for _, server := range servers {
		if server.Suffrage == raft.Voter {
			s.Voters++
		}
	}
	return s
}
