package state

import (
	"encoding/json"
	"net/netip"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
)

// The kinds of commands.
const (
	KindGenesis         = "genesis"
	KindSetMaster       = "set-master"
	KindSetVoters       = "set-voters"
	KindParamsChange    = "params-change"
	KindFeatureLevel    = "feature-raise" // no release of level 1 knows it: one that is left must stop, and not fall behind
	KindGossipChange    = "gossip-change"
	KindClusterChange   = "cluster-change"
	KindAdmissionCreate = "admission-create"
	KindAdmissionRevoke = "admission-revoke"
	KindAdmissionSpent  = "admission-spent"
	KindNodeAdmit       = "node-admit"
	KindNodeChange      = "node-change"
	KindNodeAddress     = "node-address"
	KindNodeCerts       = "node-certs"
	KindNodeRemove      = "node-remove"
	KindHostKeysClaim   = "host-keys-claim"
	KindHostKeysDecide  = "host-keys-decide"
	KindSSHKeys         = "ssh-keys"
	KindSharedKeys      = "shared-keys"
	KindCAChange        = "ca-change"
	KindNodesCerts      = "nodes-certs"
	KindGossipKeys      = "gossip-keys"
	KindRAPIUser        = "rapi-user"
	KindRAPIAdmin       = "rapi-admin"
	KindRAPICert        = "rapi-cert"
	KindJobSubmit       = "job-submit"
	KindJobUpdate       = "job-update"
	KindJobArchive      = "job-archive"
)

// kinds reads the body of each kind.
var kinds = map[string]func([]byte) (body, error){
	KindGenesis:         reader[genesisWire](),
	KindSetMaster:       reader[SetMaster](),
	KindSetVoters:       reader[SetVoters](),
	KindParamsChange:    reader[ParamsChange](),
	KindFeatureLevel:    reader[FeatureLevel](),
	KindGossipChange:    reader[gossipWire](),
	KindClusterChange:   reader[ClusterChange](),
	KindAdmissionCreate: reader[AdmissionCreate](),
	KindAdmissionRevoke: reader[AdmissionRevoke](),
	KindAdmissionSpent:  reader[AdmissionSpent](),
	KindNodeAdmit:       reader[NodeAdmit](),
	KindNodeChange:      reader[NodeChange](),
	KindNodeAddress:     reader[NodeAddress](),
	KindNodeCerts:       reader[NodeCerts](),
	KindNodeRemove:      reader[NodeRemove](),
	KindHostKeysClaim:   reader[HostKeysClaim](),
	KindHostKeysDecide:  reader[HostKeysDecision](),
	KindSSHKeys:         reader[SSHKeysChange](),
	KindSharedKeys:      reader[sharedWire](),
	KindCAChange:        reader[caWire](),
	KindNodesCerts:      reader[NodesCerts](),
	KindGossipKeys:      reader[gossipKeysWire](),
	KindRAPIUser:        reader[rapiUserWire](),
	KindRAPIAdmin:       reader[RAPIAdminChange](),
	KindRAPICert:        reader[rapiCertWire](),
	KindJobSubmit:       reader[JobSubmit](),
	KindJobUpdate:       reader[JobUpdate](),
	KindJobArchive:      reader[JobArchive](),
}

// AboutJobs reports whether commands of a kind read and write jobs and nothing
// else, so that no map can come of them.
func AboutJobs(kind string) bool {
	return kind == KindJobSubmit || kind == KindJobUpdate || kind == KindJobArchive
}

// Genesis founds the cluster: version 1 of the map, with the first node as
// master and only voter. Created, CTime, MTime, Serial, Voter and Joined are
// set by the command.
type Genesis struct {
	Cluster  Cluster          `json:"cluster"`
	Params   Params           `json:"params"`
	CA       CA               `json:"ca"`
	Gossip   cluster.Secret   `json:"-"`
	Recovery candmap.Recovery `json:"recovery"`
	Node     Node             `json:"node"`

	FeatureLevel int `json:"feature_level,omitempty"` // 0 means 1
}

type genesisWire struct {
	Genesis
	CAKey     []byte `json:"ca_key"`
	GossipKey []byte `json:"gossip_key"`
}

func (g Genesis) wire() any { return genesisWire{g, g.CA.Key.Reveal(), g.Gossip.Reveal()} }

// SetMaster is the first command of a new leader: it names itself.
type SetMaster struct {
	Node cluster.NodeID `json:"node"`
}

// SetVoters replaces the map's voters: an odd number of candidates.
type SetVoters struct {
	Voters []cluster.NodeID `json:"voters"`
}

// ParamsChange changes cluster parameters.
type ParamsChange struct {
	Params ParamsPatch `json:"params"`
	Job    *JobUpdate  `json:"job,omitempty"`
}

// ClusterChange changes what the cluster says of itself, and whether it takes
// new jobs. What is unset stays.
type ClusterChange struct {
	Name         *cluster.Name `json:"name,omitempty"`
	AddTags      []string      `json:"add_tags,omitempty"`
	DelTags      []string      `json:"del_tags,omitempty"`
	QueueDrained *bool         `json:"queue_drained,omitempty"`
	Job          *JobUpdate    `json:"job,omitempty"`
}

// FeatureLevel raises the level of features that may be emitted.
type FeatureLevel struct {
	Level int `json:"level"`
}

// GossipChange replaces the gossip key.
type GossipChange struct {
	Key cluster.Secret `json:"-"`
}

type gossipWire struct {
	Key []byte `json:"key"`
}

func (g GossipChange) wire() any { return gossipWire{g.Key.Reveal()} }

// AdmissionCreate files an admission record; earlier ones for the same name
// are revoked.
type AdmissionCreate struct {
	Record pki.Record `json:"record"`
}

// AdmissionRevoke makes an admission string worthless.
type AdmissionRevoke struct {
	ID cluster.UUID `json:"id"`
}

// AdmissionSpent notes the first use of a node's identity certificate.
type AdmissionSpent struct {
	ID       cluster.UUID   `json:"id"`
	Identity cluster.Digest `json:"identity"` // pin of the certificate that was used
}

// NodeAdmit binds an admission record to a key and adds its node, as a regular
// one. The same record with the same identity key again changes nothing.
type NodeAdmit struct {
	Record        cluster.UUID     `json:"record"`
	Remote        netip.Addr       `json:"remote"` // where the request came from
	Node          cluster.NodeID   `json:"node"`   // the record's
	Incarnation   uint64           `json:"incarnation"`
	Name          cluster.Name     `json:"name"`
	Addresses     []netip.Addr     `json:"addresses"`
	Ports         cluster.Ports    `json:"ports"`
	HostKeys      []cluster.SSHKey `json:"host_keys"`
	Server        cluster.Digest   `json:"server"` // pins
	Identity      cluster.Digest   `json:"identity"`
	ServerCert    []byte           `json:"server_cert"` // DER
	IdentityCert  []byte           `json:"identity_cert"`
	MasterCapable bool             `json:"master_capable"`
	VMCapable     bool             `json:"vm_capable"`
}

// NodeChange changes flags, candidate keys and tags of a node. A node that
// stops being a candidate loses keys and vote in the same entry; one that
// becomes a candidate needs Keys in it.
type NodeChange struct {
	Node      cluster.NodeID    `json:"node"`
	Flags     *FlagPatch        `json:"flags,omitempty"`
	Keys      *CandidateKeys    `json:"keys,omitempty"`
	Candidate []byte            `json:"candidate,omitempty"` // DER of the client certificate, with Keys
	Voters    *[]cluster.NodeID `json:"voters,omitempty"`    // the map's new voters, when they change
	AddTags   []string          `json:"add_tags,omitempty"`
	DelTags   []string          `json:"del_tags,omitempty"`
	Job       *JobUpdate        `json:"job,omitempty"`
}

// NodeAddress changes how a node is found.
type NodeAddress struct {
	Node      cluster.NodeID    `json:"node"`
	Name      *cluster.Name     `json:"name,omitempty"`
	Addresses []netip.Addr      `json:"addresses,omitempty"`
	Ports     *cluster.Ports    `json:"ports,omitempty"`
	HostKeys  *[]cluster.SSHKey `json:"host_keys,omitempty"`
	Job       *JobUpdate        `json:"job,omitempty"`
}

// Kinds of NodeCerts.
const (
	CertServer    = "server"
	CertIdentity  = "identity"
	CertCandidate = "candidate"
	CertSSH       = "ssh"     // the candidate's SSH keys
	CertSigning   = "signing" // the candidate's signing key
)

// NodeCerts is one phase of a renewal. Pins (SSH for CertSSH) is the new list:
// two while the renewal overlaps, one when the old key is retired; it must
// share an entry with the list before it, so that no phase locks a node out. A
// signing key is replaced at once.
type NodeCerts struct {
	Node    cluster.NodeID     `json:"node"`
	Kind    string             `json:"kind"`
	Cert    []byte             `json:"cert,omitempty"` // DER; empty: the certificate stays
	Pins    []cluster.Digest   `json:"pins,omitempty"`
	SSH     []cluster.SSHKey   `json:"ssh,omitempty"`
	Signing candmap.SigningKey `json:"signing,omitempty"`
	Job     *JobUpdate         `json:"job,omitempty"`

	Was []cluster.Digest `json:"-"` // the pins that Pins was computed from, for Current; nil: of no importance
}

// NodeRemove removes a node from the cluster.
type NodeRemove struct {
	Node   cluster.NodeID    `json:"node"`
	Voters *[]cluster.NodeID `json:"voters,omitempty"`
	Job    *JobUpdate        `json:"job,omitempty"`
}

// JobSubmit queues a job; Result.JobID is its number.
type JobSubmit struct {
	Ops     []json.RawMessage `json:"ops"` // objects with OP_ID, as Ganeti's
	Summary []string          `json:"summary"`
	Step    string            `json:"step,omitempty"`
	Data    json.RawMessage   `json:"data,omitempty"`
}

// JobUpdate changes a job that has not ended. What is unset stays.
type JobUpdate struct {
	ID          int64             `json:"id"`
	Status      JobStatus         `json:"status,omitempty"`    // also of every op that has not ended, unless OpStatus says otherwise
	OpStatus    []JobStatus       `json:"op_status,omitempty"` // one for each op
	OpResult    []json.RawMessage `json:"op_result,omitempty"` // one for each op
	Log         []LogLine         `json:"log,omitempty"`       // appended
	Progress    []string          `json:"progress,omitempty"`  // appended
	Unreachable *[]Unreachable    `json:"unreachable,omitempty"`
	Error       *string           `json:"error,omitempty"`
	Step        *string           `json:"step,omitempty"`
	Data        json.RawMessage   `json:"data,omitempty"`
}

// LogLine is a line to append to a job's log.
type LogLine struct {
	Op   int    `json:"op"`
	Type string `json:"type,omitempty"` // "" means "message"
	Text string `json:"text"`
}

// JobArchive forgets jobs that have ended; others and unknown ones stay.
type JobArchive struct {
	IDs []int64 `json:"ids"`
}
