// Package wire is the JSON of RAPI as its clients read it: Ganeti's objects
// with what Rolekey adds, and Rolekey's own. Fields are only ever added.
//
// It holds types alone, so that the commands start fast.
package wire

import (
	"encoding/json"
	"net/netip"
	"time"

	"rolekey/cluster"
)

// Error is the body of a refusal. Message is HTML-escaped, as in Ganeti.
type Error struct {
	Code    int          `json:"code"` // the HTTP status
	Message string       `json:"message"`
	Explain string       `json:"explain"`
	Reason  cluster.Code `json:"reason"` // Rolekey's stable code
	Hint    string       `json:"hint"`
	Node    string       `json:"node"` // for not_master: which node is

	MasterURL string `json:"master_url,omitempty"` // where that serves RAPI, by its name
}

// Map is the candidate map, and how far it has spread.
type Map struct {
	Cluster      cluster.UUID     `json:"cluster"`
	Epoch        uint64           `json:"epoch"`
	Version      uint64           `json:"version"`
	Hash         cluster.Digest   `json:"hash"`
	Issued       time.Time        `json:"issued"`
	LeaseSeconds uint32           `json:"lease_seconds"`
	Policy       cluster.Policy   `json:"policy"`
	SSHReach     cluster.SSHReach `json:"ssh_reach"`
	Master       *cluster.NodeID  `json:"master"` // null: none
	Candidates   []MapCandidate   `json:"candidates"`
	Nodes        []MapNode        `json:"nodes"`
	ClusterName  cluster.Name     `json:"cluster_name"`
	MasterName   cluster.Name     `json:"master_name"`
	SSHLease     uint32           `json:"ssh_lease_seconds"`
	Previous     cluster.Digest   `json:"previous"`
	Roster       cluster.Digest   `json:"roster"`
	Recovery     MapRecovery      `json:"recovery"`
}

// MapCandidate is a node that may act.
type MapCandidate struct {
	UUID    cluster.NodeID   `json:"uuid"`
	Name    cluster.Name     `json:"name"`
	Address netip.Addr       `json:"address"`
	Voter   bool             `json:"voter"`
	Client  []cluster.Digest `json:"client"`
	Signing []byte           `json:"signing"` // Ed25519 public key
	SSH     []string         `json:"ssh"`     // as in authorized_keys: type and blob
}

// MapRecovery says which keys may replace a lost majority.
type MapRecovery struct {
	Threshold uint8    `json:"threshold"`
	Keys      [][]byte `json:"keys"`
}

// MapNode is what a node last confirmed to the master. A node that has
// confirmed nothing has version 0, no hash and no age.
type MapNode struct {
	UUID       cluster.NodeID `json:"uuid"`
	Name       cluster.Name   `json:"name"`
	Role       cluster.Role   `json:"role"`
	Version    uint64         `json:"version"`
	Hash       string         `json:"hash"`
	AgeSeconds *float64       `json:"age_seconds"` // since it was confirmed
	Fresh      bool           `json:"fresh"`
	Reachable  bool           `json:"reachable"`
	Epoch      uint64         `json:"epoch"`
	RPCUntil   *time.Time     `json:"rpc_until"` // end of its trust in the map without news
	SSHUntil   *time.Time     `json:"ssh_until"`
	Problem    string         `json:"problem,omitempty"` // why the master's last call to it failed
}

// Node is Ganeti's node object. What instances would need is null.
type Node struct {
	Name            cluster.Name   `json:"name"`
	Offline         bool           `json:"offline"`
	MasterCandidate bool           `json:"master_candidate"`
	Drained         bool           `json:"drained"`
	DTotal          *int           `json:"dtotal"`
	DFree           *int           `json:"dfree"`
	SpTotal         *int           `json:"sptotal"`
	SpFree          *int           `json:"spfree"`
	MTotal          *int           `json:"mtotal"`
	MNode           *int           `json:"mnode"`
	MFree           *int           `json:"mfree"`
	PInstCnt        int            `json:"pinst_cnt"`
	SInstCnt        int            `json:"sinst_cnt"`
	CTotal          *int           `json:"ctotal"`
	CNOS            *int           `json:"cnos"`
	CNodes          *int           `json:"cnodes"`
	CSockets        *int           `json:"csockets"`
	PIP             netip.Addr     `json:"pip"`
	SIP             netip.Addr     `json:"sip"`
	Role            string         `json:"role"` // M, C, R, D or O
	PInstList       []string       `json:"pinst_list"`
	SInstList       []string       `json:"sinst_list"`
	MasterCapable   bool           `json:"master_capable"`
	VMCapable       bool           `json:"vm_capable"`
	NDParams        map[string]any `json:"ndparams"`
	GroupUUID       *string        `json:"group.uuid"`
	CTime           float64        `json:"ctime"`
	MTime           float64        `json:"mtime"`
	UUID            cluster.NodeID `json:"uuid"`
	SerialNo        int            `json:"serial_no"`
	Tags            []string       `json:"tags"`

	RoleName    cluster.Role  `json:"role_name"` // in full
	Addresses   []netip.Addr  `json:"addresses"`
	Ports       cluster.Ports `json:"ports"`
	Voter       bool          `json:"voter"`
	Joined      bool          `json:"joined"`
	Incarnation uint64        `json:"incarnation"`
	MapEpoch    uint64        `json:"map_epoch"` // of the map it last confirmed
	MapVersion  uint64        `json:"map_version"`
	Fresh       bool          `json:"fresh"`
	Reachable   bool          `json:"reachable"`
	SecondaryIP *netip.Addr   `json:"secondary_ip,omitempty"` // not in lists
}

// Time is a moment in Ganeti's form: seconds and microseconds.
type Time [2]int64

// TimeOf converts a moment; the zero time is null.
func TimeOf(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return &Time{t.Unix(), int64(t.Nanosecond() / 1000)}
}

// Time converts it back.
func (t Time) Time() time.Time { return time.Unix(t[0], t[1]*1000).UTC() }

// JobHead is a job in a list.
type JobHead struct {
	ID         int64             `json:"id"`
	Ops        []json.RawMessage `json:"ops"`
	Status     string            `json:"status"`
	Summary    []string          `json:"summary"`
	OpStatus   []string          `json:"opstatus"`
	ReceivedTS *Time             `json:"received_ts"`
	StartTS    *Time             `json:"start_ts"`
	EndTS      *Time             `json:"end_ts"`
	Error      *string           `json:"error"`
	Actor      string            `json:"actor"`
	RequestID  string            `json:"request_id"`
}

// Job is a job with its logs and results.
type Job struct {
	JobHead
	OpLog       [][]LogEntry      `json:"oplog"`
	OpResult    []json.RawMessage `json:"opresult"`
	Progress    []Progress        `json:"progress"`
	Unreachable []Unreachable     `json:"unreachable"`
}

// Progress says how far a job has spread.
type Progress struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// Unreachable is a node that has not confirmed a change, with the ends of its
// old trust. Null means: no bound.
type Unreachable struct {
	Node     string     `json:"node"`
	RPCUntil *time.Time `json:"rpc_until"`
	SSHUntil *time.Time `json:"ssh_until"`
}

// WaitRequest asks to be told of a change of a job.
type WaitRequest struct {
	Fields            []string          `json:"fields"`
	PreviousJobInfo   []json.RawMessage `json:"previous_job_info"`
	PreviousLogSerial *int64            `json:"previous_log_serial"`
}

// WaitReply tells the fields that were asked for, in order, and the new lines
// of the log.
type WaitReply struct {
	JobInfo    []json.RawMessage `json:"job_info"`
	LogEntries []LogEntry        `json:"log_entries"`
}

// Archive is the body of a request to forget jobs that have ended: those with
// these numbers, or else all that ended so long ago.
type Archive struct {
	IDs        []int64 `json:"ids"`
	AgeSeconds *int64  `json:"age_seconds"`
}

// Archived says what a request to forget jobs has done.
type Archived struct {
	Archived []int64 `json:"archived"`
	Active   []int64 `json:"active"`  // have not ended, and stay
	Unknown  []int64 `json:"unknown"` // do not exist
}

// NodeModify is the body of a request to modify a node: Ganeti's
// OpNodeSetParams. What is null stays.
type NodeModify struct {
	MasterCandidate *bool `json:"master_candidate,omitempty"`
	Drained         *bool `json:"drained,omitempty"`
	Offline         *bool `json:"offline,omitempty"`
	MasterCapable   *bool `json:"master_capable,omitempty"`
	VMCapable       *bool `json:"vm_capable,omitempty"`
	AutoPromote     bool  `json:"auto_promote"`
	Force           bool  `json:"force"`

	// Where the node is; not together with the flags above.
	SecondaryIP *string        `json:"secondary_ip,omitempty"`
	NDParams    map[string]any `json:"ndparams,omitempty"`
	Addresses   []string       `json:"addresses,omitempty"` // Rolekey's own: all, the primary one first
}

// Moves reports whether the request is about where the node is.
func (m *NodeModify) Moves() bool {
	return m.SecondaryIP != nil || len(m.NDParams) > 0 || len(m.Addresses) > 0
}

// NodeRename is the body of a request to rename a node.
type NodeRename struct {
	NewName string `json:"new_name"`
}

// Tags are the fields of Ganeti's opcodes about tags.
type Tags struct {
	Kind string   `json:"kind"` // cluster or node
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

// Redistribute are the fields of the opcode that delivers everything again.
type Redistribute struct {
	EvenIfDrained bool `json:"even_if_drained,omitempty"` // the queue takes it in any case
}

// Admit is the body of a request for an admission string.
type Admit struct {
	Name       cluster.Name `json:"name"`
	Addresses  []netip.Addr `json:"addresses"`
	TTLSeconds int64        `json:"ttl_seconds"` // 0: the default

	Readd         bool        `json:"readd,omitempty"` // of a node that is in the cluster
	MasterCapable *bool       `json:"master_capable,omitempty"`
	VMCapable     *bool       `json:"vm_capable,omitempty"`
	SecondaryIP   *netip.Addr `json:"secondary_ip,omitempty"`
	SSHPort       uint16      `json:"ssh_port,omitempty"`
}

// Admitted carries an admission string, which is shown once.
type Admitted struct {
	Token     string       `json:"token"`
	Admission Admission    `json:"admission"`
	Outlook   VoterOutlook `json:"outlook"`
}

// VoterOutlook says what the next node means for the cluster's survival.
type VoterOutlook struct {
	Candidates int            `json:"candidates"` // when the node has joined
	Voters     []cluster.Name `json:"voters"`     // now
	Recovery   bool           `json:"recovery"`   // a recovery key exists

	LeaseSeconds uint32         `json:"lease_seconds"`
	Policy       cluster.Policy `json:"policy"`
}

// Admission is an admission record.
type Admission struct {
	ID        cluster.UUID   `json:"id"`
	Name      cluster.Name   `json:"name"`
	Node      cluster.NodeID `json:"node"`
	Addresses []netip.Addr   `json:"addresses"`
	State     string         `json:"state"`
	Created   time.Time      `json:"created"`
	Expires   time.Time      `json:"expires"`
	Actor     string         `json:"actor"`

	// What the administrator said of the node; absent: it is up to the node.
	MasterCapable *bool      `json:"master_capable,omitempty"`
	VMCapable     *bool      `json:"vm_capable,omitempty"`
	SecondaryIP   netip.Addr `json:"secondary_ip,omitzero"`
	SSHPort       uint16     `json:"ssh_port,omitempty"`
}
