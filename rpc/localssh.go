package rpc

import (
	"net/netip"
	"time"

	"rolekey/cluster"
)

// LocalAuthorizedKeys is where sshd's AuthorizedKeysCommand asks noded:
// POST AuthorizedKeysRequest -> AuthorizedKeysReply.
const LocalAuthorizedKeys = "/local/v1/authorized-keys"

// AskTime is how long sshd's question waits for an answer, and AskRetry how
// long it looks for a noded that is being restarted. Nobody logs in meanwhile,
// with whatever key.
const (
	AskTime  = time.Second
	AskRetry = 2 * time.Second
)

// AuthorizedKeysRequest asks whether a key opens an account.
type AuthorizedKeysRequest struct {
	User string `json:"user"`
	Blob []byte `json:"blob"`
	SSHD int    `json:"sshd"` // the process that serves the connection
}

// AuthorizedKeysReply holds lines of authorized_keys, for this key alone.
type AuthorizedKeysReply struct {
	Lines string `json:"lines"`
}

// LocalSSH tells how root's ssh reaches a node: POST SSHWayRequest -> SSHWay.
const LocalSSH = "/local/v1/ssh"

// SSHWayRequest names a node by its name, the first label of it, an address or
// its UUID.
type SSHWayRequest struct {
	Node string `json:"node"`
}

// SSHWay is what ssh(1) needs to reach a node.
type SSHWay struct {
	Name       cluster.Name `json:"name"`
	Address    netip.Addr   `json:"address"`
	Port       uint16       `json:"port"`
	User       string       `json:"user"`
	KnownHosts string       `json:"known_hosts"`     // file with its host keys by its name
	Identities []string     `json:"identities"`      // files of this node's keys, to be tried in this order
	Agent      string       `json:"agent,omitempty"` // socket of the agent that holds them; "": the files do
	Bind       string       `json:"bind,omitempty"`  // address to connect from; "": any
}
