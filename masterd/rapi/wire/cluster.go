package wire

import "rolekey/cluster"

// ClusterModify is the body of a request to change the cluster's parameters:
// the part of Ganeti's OpClusterSetParams that there is here, and Rolekey's own.
// What is null stays.
type ClusterModify struct {
	CandidatePoolSize              *int              `json:"candidate_pool_size,omitempty"`
	LeaseSeconds                   *uint32           `json:"lease_seconds,omitempty"`
	SSHLeaseSeconds                *uint32           `json:"ssh_lease_seconds,omitempty"`
	Policy                         *cluster.Policy   `json:"policy,omitempty"`
	SSHReach                       *cluster.SSHReach `json:"ssh_reach,omitempty"`
	RAPIMayPromote                 *bool             `json:"rapi_may_promote,omitempty"`
	MasterCapabilityRAPIModifiable *bool             `json:"master_capability_rapi_modifiable,omitempty"`

	SSHAuthorize *cluster.SSHAuthorize `json:"ssh_authorize,omitempty"`

	MasterAddress   *cluster.MasterAddress `json:"master_address,omitempty"`
	NoMasterAddress bool                   `json:"no_master_address,omitempty"`

	// How root's SSH keys are handled. Ganeti has the first three as parameters,
	// and sets them at init alone.
	ModifySSHSetup *bool                  `json:"modify_ssh_setup,omitempty"`
	SSHKeyType     *string                `json:"ssh_key_type,omitempty"`
	SSHKeyBits     *int                   `json:"ssh_key_bits,omitempty"`
	SSHKeyMode     *cluster.SSHKeyMode    `json:"ssh_key_mode,omitempty"`
	SSHKeyStorage  *cluster.SSHKeyStorage `json:"ssh_key_storage,omitempty"`
}

// SSHKeys reports whether the request is about SSH keys, and so needs the level
// of these.
func (m ClusterModify) SSHKeys() bool {
	return m.ModifySSHSetup != nil || m.SSHAuthorize != nil || m.SSHKeyType != nil || m.SSHKeyBits != nil || m.SSHKeyMode != nil || m.SSHKeyStorage != nil
}

// ClusterRename is the body of a request to rename the cluster.
type ClusterRename struct {
	Name cluster.Name `json:"name"`
}

// Queue says whether the queue of jobs refuses new ones.
type Queue struct {
	Drained bool `json:"drained"`
}
