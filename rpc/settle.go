package rpc

import (
	"time"

	"rolekey/cluster"
)

// MaxSettleWait bounds how long a node waits for logins by SSH.
const MaxSettleWait = 5 * time.Second

// SSHSettleRequest asks a node to wait until the logins by SSH are decided that
// are under way when it is asked. The node must enforce the map, and go by it in
// SSH's files.
type SSHSettleRequest struct {
	Version cluster.Version `json:"version"` // of the map, or a newer one
	// Clients asks for the ssh processes of the node itself that have not
	// connected yet, instead of for the logins to its own sshd.
	Clients bool  `json:"clients,omitempty"`
	WaitMS  int64 `json:"wait_ms"` // at most so long; MaxSettleWait bounds it
}

// SSHSettleReply tells whether none of them is under way any more.
type SSHSettleReply struct {
	Settled bool `json:"settled"`
}
