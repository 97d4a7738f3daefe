package audit

// Act says what was done. docs/audit.rst lists each of them.
type Act string

// Acts of both daemons.
const (
	DaemonStarted Act = "daemon_started"
	DaemonStopped Act = "daemon_stopped"
	RPCRefused    Act = "rpc_refused"
	RPCServed     Act = "rpc_served" // a call that changes a node
	LinesLost     Act = "lines_lost"
)

// Acts of noded.
const (
	MapAccepted        Act = "map_accepted"
	MapFork            Act = "map_fork"
	MapStale           Act = "map_stale"
	MapFresh           Act = "map_fresh"
	MapTrusted         Act = "map_trusted"
	KeysCreated        Act = "keys_created"
	KeysDestroyed      Act = "keys_destroyed"
	KeysRepaired       Act = "authorized_keys_repaired"
	SessionsEnded      Act = "sessions_ended"
	HostKeysChanged    Act = "host_keys_changed"
	CertificateRenewed Act = "certificate_renewed"
	ClusterInit        Act = "cluster_init"
	ClusterJoin        Act = "cluster_join"
	ClusterLeave       Act = "cluster_leave"
	HookRun            Act = "hook_run"
	AddressTaken       Act = "address_taken"
	AddressReleased    Act = "address_released"
)

// Acts of masterd.
const (
	MasterBegan      Act = "master_began"
	MasterEnded      Act = "master_ended"
	ChangeCommitted  Act = "change_committed"
	JobSubmitted     Act = "job_submitted"
	JobEnded         Act = "job_ended"
	JobCanceled      Act = "job_canceled"
	AdmissionCreated Act = "admission_created"
	AdmissionUsed    Act = "admission_used"
	AdmissionSpent   Act = "admission_spent"
	AdmissionRefused Act = "admission_refused"
	AdmissionRevoked Act = "admission_revoked"
	RAPICalled       Act = "rapi_called"
	SignRefused      Act = "sign_refused"
	HostKeysRefused  Act = "host_keys_refused"
	ExpiredRenewed   Act = "expired_renewed" // a node that was away asks for certificates
	Evict            Act = "evict"
	Recover          Act = "recover"
	Failover         Act = "failover"
	Backup           Act = "backup"
	Restore          Act = "restore"
)

// Outcome says what became of an act.
type Outcome string

// Outcomes. The zero Outcome of an Event is OK, or Refused if it has a code.
const (
	OK      Outcome = "ok"
	Refused Outcome = "refused"
	Failed  Outcome = "failed"
)
