package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/hashicorp/raft"
)

// errNoVote is why a node cannot be elected.
var errNoVote = errors.New("ask for leadership: this node has no vote")

// AskLeader asks the leader for its vote, with the mark that raft's leaders give
// their successors. A leader that gets it hands leadership over in order: it
// accepts no more commands, sends the rest of the log, and then lets this node
// be elected. So nothing is asked that a voter could not bring about by itself,
// with a gap, by a campaign. It returns when the leader has begun.
func (n *Node) AskLeader(ctx context.Context, leader raft.ServerID) error {
	if !n.Votes(n.id) {
		return errNoVote
	}
	last, term := n.lastEntry()
	ask := raft.RequestVoteRequest{
		RPCHeader: n.header(), Term: n.Term() + 1, LastLogIndex: last, LastLogTerm: term, LeadershipTransfer: true,
	}
	ended := make(chan error, 1)
	go func() { // ends with the call, which has a limit
		ended <- n.transport.call(leader, MessageRequestVote, messageTimeout, wire{Message: &ask}, new(raft.RequestVoteResponse))
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Campaign makes this voter ask the others to elect it now, although there is a
// leader: it tells its own raft what a leader says to its successor. It uses no
// right but its vote, and safety does not rest on it: whoever holds more of the
// log than this node refuses. The election has begun when it returns.
func (n *Node) Campaign(ctx context.Context) error {
	if n.Leads() {
		return errors.New("ask for leadership: this node leads")
	}
	if !n.Votes(n.id) {
		return errNoVote
	}
	_, err := n.transport.Handle(ctx, &Message{name: MessageTimeoutNow, cmd: &raft.TimeoutNowRequest{RPCHeader: n.header()}})
	return err
}

// Campaigns reports whether this node asks for votes at present.
func (n *Node) Campaigns() bool { return n.raft.State() == raft.Candidate }

// yield answers a voter that wants to follow this leader in office, and begins
// to hand over; ok is false if the request is raft's business. During a handover
// it is: then the successor asks for the vote that it is to get.
func (n *Node) yield(v *raft.RequestVoteRequest) (answer []byte, ok bool, err error) {
	to := raft.ServerID(v.ID)
	if !v.LeadershipTransfer || !n.Leads() || !n.Votes(to) || !n.handing.CompareAndSwap(0, 1) {
		return nil, false, nil
	}
	n.watchdog.Go(func() {
		defer n.handing.Add(-1)
		if err := n.raft.LeadershipTransferToServer(to, raft.ServerAddress(to)).Error(); err != nil {
			n.log.Info("raft: leadership was not handed over", "to", to, "error", err)
		}
	})
	answer, err = json.Marshal(raft.RequestVoteResponse{RPCHeader: n.header(), Term: n.Term()})
	return answer, true, err
}

// Transfer hands leadership to a server.
func (n *Node) Transfer(ctx context.Context, to raft.ServerID) error {
	n.handing.Add(1)
	defer n.handing.Add(-1)
	return noQuorum("transfer leadership", wait(ctx, n.raft.LeadershipTransferToServer(to, raft.ServerAddress(to))))
}

// Resign hands leadership to whichever voter is furthest.
func (n *Node) Resign(ctx context.Context) error {
	n.handing.Add(1)
	defer n.handing.Add(-1)
	return noQuorum("transfer leadership", wait(ctx, n.raft.LeadershipTransfer()))
}

func (n *Node) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id), Addr: []byte(n.id)}
}

// lastEntry returns index and term of the newest entry on disk; zeros if raft
// does not tell, which makes others refuse.
func (n *Node) lastEntry() (index, term uint64) {
	s := n.raft.Stats()
	index, err := strconv.ParseUint(s["last_log_index"], 10, 64)
	if err != nil {
		return 0, 0
	}
	if term, err = strconv.ParseUint(s["last_log_term"], 10, 64); err != nil {
		return 0, 0
	}
	return index, term
}

// Timing returns raft's times.
func (n *Node) Timing() Timing { return n.timing }
