package rpc

import "time"

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
