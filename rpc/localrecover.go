package rpc

import (
	"net/netip"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

// Paths of what saves a cluster, on the daemons' unix sockets.
const (
	LocalRecover = "/local/v1/recover" // noded, POST RecoverRequest -> RecoverReply
	LocalRevive  = "/local/v1/revive"  // masterd, POST ReviveRequest -> ReviveReply
	LocalBackup  = "/local/v1/backup"  // masterd, POST BackupRequest -> stream, about it a BackupReply
)

// Paths of restoring a backup.
const (
	LocalRestore = "/local/v1/restore" // noded, POST RestoreRequest -> RecoverReply
	LocalRefound = "/local/v1/refound" // masterd, POST RefoundRequest -> RefoundReply
)

// RestoreRequest makes this machine, which is in no cluster, the first node of
// the cluster in a backup, in two calls as RecoverRequest. It says which node
// the machine will be: one of the backup, with its next incarnation, or a new one.
type RestoreRequest struct {
	Cluster     cluster.UUID       `json:"cluster"`
	Node        cluster.NodeID     `json:"node"`
	Incarnation uint64             `json:"incarnation"`
	Name        cluster.Name       `json:"name"`
	Addresses   []netip.Addr       `json:"addresses"` // empty: from noded.toml
	SSHSetup    bool               `json:"ssh_setup"`
	Backup      []byte             `json:"backup"` // in clear: it goes over this socket only
	Maps        []candmap.Envelope `json:"maps"`   // newer ones, from the disk of a node, oldest first
	Docs        [][]byte           `json:"docs"`   // of the newest one's roster
	IgnoreNewer bool               `json:"ignore_newer,omitempty"`
	NoRecovery  bool               `json:"no_recovery_key,omitempty"` // the cluster has no recovery key, and all nodes will be added again
	RecoverRequest
}

// RefoundRequest is RestoreRequest with what noded prepared.
type RefoundRequest struct {
	RestoreRequest
	Ports     cluster.Ports    `json:"ports"`
	ServerCSR []byte           `json:"server"`   // PKCS#10, DER
	NodeCSR   []byte           `json:"identity"` // PKCS#10, DER
	HostKeys  []cluster.SSHKey `json:"host_keys"`
	SSH       []cluster.SSHKey `json:"ssh"`
	Now       time.Time        `json:"now"`
}

// RefoundReply is the payload to sign, or what noded installs.
type RefoundReply struct {
	ReviveReply
	From     cluster.Version    `json:"from"`
	FromHash cluster.Digest     `json:"from_hash"`
	Recovery candmap.Recovery   `json:"recovery"`
	Nodes    []RecoverNode      `json:"nodes"`
	CA       []byte             `json:"ca"`
	Server   []byte             `json:"server_certificate"`
	Identity []byte             `json:"identity_certificate"`
	Gossip   []byte             `json:"gossip"`
	Chain    []candmap.Envelope `json:"chain"` // maps before the restored one
}

// BackupRequest asks for a backup that is encrypted to age or ssh public keys.
type BackupRequest struct {
	Recipients []string `json:"recipients"`
}

// BackupReply tells how new the backup is.
type BackupReply struct {
	Version cluster.Version `json:"version"`
	Hash    cluster.Digest  `json:"hash"`
	Index   uint64          `json:"index"`
	Fresh   bool            `json:"fresh"` // the candidate has heard of the master within the lease
}

// RecoverRequest asks for the map that would go on with this node alone, and,
// with that payload and the signatures of the recovery keys on it, puts it in
// force. The keys themselves never reach a daemon.
type RecoverRequest struct {
	DryRun     bool                `json:"dry_run,omitempty"` // only look: nothing may be signed
	Payload    []byte              `json:"payload,omitempty"`
	Signatures []candmap.Signature `json:"signatures,omitempty"`
}

// RecoverReply tells what is to become of the cluster, and afterwards what has.
type RecoverReply struct {
	Cluster  cluster.UUID     `json:"cluster"`
	Node     cluster.Name     `json:"node"`
	From     cluster.Version  `json:"from"` // the newest map that could be verified
	FromHash cluster.Digest   `json:"from_hash"`
	Version  cluster.Version  `json:"version"`
	Hash     cluster.Digest   `json:"hash"`
	Payload  []byte           `json:"payload"`
	Recovery candmap.Recovery `json:"recovery"` // who must sign it
	Nodes    []RecoverNode    `json:"nodes"`
	Revived
	Durable  bool     `json:"durable"`  // it is in force here, and on disk
	Problems []string `json:"problems"` // in force, but something else went wrong
}

// RecoverNode is what was learned from one node.
type RecoverNode struct {
	Name    cluster.Name    `json:"name"`
	UUID    cluster.NodeID  `json:"uuid"`
	Role    string          `json:"role"`
	Voter   bool            `json:"voter"`
	Version cluster.Version `json:"version"` // zero: it did not answer
	Problem string          `json:"problem"` // why it did not, or why its map was not taken
}

// Revived tells how the state differs from the one before.
type Revived struct {
	Behind  bool           `json:"behind"`  // the newest map overruled the state
	Removed []cluster.Name `json:"removed"` // nodes of the state that the newest roster does not have
	Again   []cluster.Name `json:"again"`   // candidates that will be promoted again
	Jobs    int            `json:"jobs"`    // that end with an error
	Strings int            `json:"strings"` // open admission strings that are revoked
}

// ReviveRequest is RecoverRequest with what noded knows: the newest map.
type ReviveRequest struct {
	View LocalViewReply `json:"view"`
	RecoverRequest
}

// ReviveReply is the payload to sign, or the map that is committed.
type ReviveReply struct {
	Payload []byte `json:"payload"`
	Revived
	Committed *MapDelivery `json:"committed,omitempty"`
}

// LocalViewAnswer is masterd's answer to a view. Recovered is a newer map that
// was committed by a recovery on this node, and that noded does not hold yet.
type LocalViewAnswer struct {
	Recovered *MapDelivery `json:"recovered,omitempty"`
}
