package wire

import (
	"encoding/json"

	"rolekey/cluster"
)

// Failover is the body of a request to make another candidate the master.
type Failover struct {
	To string `json:"to"`
}

// FailoverDone says who is master now.
type FailoverDone struct {
	Master     cluster.Name `json:"master"`
	Previous   cluster.Name `json:"previous"`
	MapEpoch   uint64       `json:"map_epoch"` // of the map that names it
	MapVersion uint64       `json:"map_version"`
	Steps      []string     `json:"steps"` // for people: what was done
}

// AuditLine is a line of an audit log, as docs/audit.rst describes it.
type AuditLine = json.RawMessage

// Audit is the end of a node's audit log, the oldest line first.
type Audit struct {
	Node  cluster.Name `json:"node"`
	Lines []AuditLine  `json:"lines"`
	More  bool         `json:"more"` // there are older ones
}
