package wire

import "rolekey/cluster"

// Info is Ganeti's description of the cluster. What belongs to instances,
// disks and operating systems is null.
type Info struct {
	SoftwareVersion string         `json:"software_version"`
	ProtocolVersion any            `json:"protocol_version"`
	ConfigVersion   any            `json:"config_version"`
	OSAPIVersion    any            `json:"os_api_version"`
	ExportVersion   any            `json:"export_version"`
	VCSVersion      string         `json:"vcs_version"`
	Architecture    []string       `json:"architecture"`
	Name            cluster.Name   `json:"name"`
	Master          cluster.Name   `json:"master"`
	DefaultHV       any            `json:"default_hypervisor"`
	EnabledHV       []string       `json:"enabled_hypervisors"`
	HVParams        any            `json:"hvparams"`
	OSHVP           any            `json:"os_hvp"`
	BEParams        any            `json:"beparams"`
	OSParams        any            `json:"osparams"`
	IPolicy         any            `json:"ipolicy"`
	NICParams       any            `json:"nicparams"`
	NDParams        map[string]any `json:"ndparams"`
	DiskParams      any            `json:"diskparams"`
	PoolSize        int            `json:"candidate_pool_size"`
	MaxRunningJobs  any            `json:"max_running_jobs"`
	MaxTrackedJobs  any            `json:"max_tracked_jobs"`
	MACPrefix       any            `json:"mac_prefix"`
	MasterNetdev    any            `json:"master_netdev"`
	MasterNetmask   any            `json:"master_netmask"`
	ExternalMIP     bool           `json:"use_external_mip_script"`
	VolumeGroup     any            `json:"volume_group_name"`
	DRBDHelper      any            `json:"drbd_usermode_helper"`
	FileDir         any            `json:"file_storage_dir"`
	SharedFileDir   any            `json:"shared_file_storage_dir"`
	GlusterDir      any            `json:"gluster_storage_dir"`
	NodeHealth      bool           `json:"maintain_node_health"`
	CTime           float64        `json:"ctime"`
	MTime           float64        `json:"mtime"`
	UUID            cluster.UUID   `json:"uuid"`
	Tags            []string       `json:"tags"`
	UIDPool         []int          `json:"uid_pool"`
	Iallocator      any            `json:"default_iallocator"`
	IallocatorArgs  any            `json:"default_iallocator_params"`
	ReservedLVs     []string       `json:"reserved_lvs"`
	IPVersion       int            `json:"primary_ip_version"`
	PreallocWipe    bool           `json:"prealloc_wipe_disks"`
	HiddenOS        []string       `json:"hidden_os"`
	BlacklistedOS   []string       `json:"blacklisted_os"`
	DiskTemplates   []string       `json:"enabled_disk_templates"`
	InstallImage    any            `json:"install_image"`
	InstanceNet     any            `json:"instance_communication_network"`
	ZeroingImage    any            `json:"zeroing_image"`
	Compression     []string       `json:"compression_tools"`
	UserShutdown    bool           `json:"enabled_user_shutdown"`
	Collectors      any            `json:"enabled_data_collectors"`
	CollectorEvery  any            `json:"data_collector_interval"`
	ModifySSHSetup  bool           `json:"modify_ssh_setup"`
	SSHKeyType      string         `json:"ssh_key_type"`
	SSHKeyBits      int            `json:"ssh_key_bits"`
	VGName          any            `json:"vg_name"`
	DRBD            any            `json:"drbd_helper"`

	Rolekey RolekeyInfo `json:"rolekey"`
}

// RolekeyInfo is what Ganeti does not know.
type RolekeyInfo struct {
	Self            cluster.Name     `json:"self"`  // the node that answers
	Ready           bool             `json:"ready"` // it is the master in office
	MapEpoch        uint64           `json:"map_epoch"`
	MapVersion      uint64           `json:"map_version"`
	MapHash         cluster.Digest   `json:"map_hash"`
	LeaseSeconds    uint32           `json:"lease_seconds"`
	SSHLeaseSeconds uint32           `json:"ssh_lease_seconds"`
	Policy          cluster.Policy   `json:"policy"`
	SSHReach        cluster.SSHReach `json:"ssh_reach"`
	SSHKeyMode      string           `json:"ssh_key_mode"`
	SSHAuthorize    string           `json:"ssh_authorize"`
	SSHKeyStorage   string           `json:"ssh_key_storage"`
	RAPIMayPromote  bool             `json:"rapi_may_promote"`
	RAPIMayCapable  bool             `json:"master_capability_rapi_modifiable"`
	FeatureLevel    int              `json:"feature_level"`
	RecoveryKeys    int              `json:"recovery_keys"`
	Nodes           int              `json:"nodes"`
	Candidates      []cluster.Name   `json:"candidates"`
	Voters          []cluster.Name   `json:"voters"`
	QueueDrained    bool             `json:"queue_drained"`
	MasterIP        string           `json:"master_ip"` // with its prefix; "": the cluster has no address
}
