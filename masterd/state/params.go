package state

import (
	"cmp"
	"fmt"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

// Params are the replicated settings of the cluster.
type Params struct {
	CandidatePoolSize int                `json:"candidate_pool_size"`
	LeaseSeconds      uint32             `json:"lease_seconds"`
	SSHLeaseSeconds   uint32             `json:"ssh_lease_seconds"`
	Policy            cluster.Policy     `json:"policy"`
	SSHReach          cluster.SSHReach   `json:"ssh_reach"`
	SSHKeyMode        cluster.SSHKeyMode `json:"ssh_key_mode"`
	SSHSetup          bool               `json:"ssh_setup"` // Ganeti's modify_ssh_setup

	// Empty ones are those of cluster.DefaultSSHSettings, so that a replica of an
	// earlier feature level reads them.
	SSHKeyType    string                `json:"ssh_key_type,omitempty"`
	SSHKeyBits    int                   `json:"ssh_key_bits,omitempty"`
	SSHKeyStorage cluster.SSHKeyStorage `json:"ssh_key_storage,omitempty"`
	SSHAuthorize  cluster.SSHAuthorize  `json:"ssh_authorize,omitempty"`

	MasterAddress *cluster.MasterAddress `json:"master_address,omitempty"` // nil: the cluster has none

	// RAPI alone must not raise privileges; both change on the local socket only.
	RAPIMayPromote                 bool `json:"rapi_may_promote"`
	MasterCapabilityRAPIModifiable bool `json:"master_capability_rapi_modifiable"`
}

// DefaultParams are the settings of a cluster that says nothing else.
var DefaultParams = Params{
	CandidatePoolSize: 5,
	LeaseSeconds:      120,
	SSHLeaseSeconds:   24 * 60 * 60,
	Policy:            cluster.PolicyStrict,
	SSHReach:          cluster.ReachCandidates,
	SSHKeyMode:        cluster.KeyPerCandidate,
	SSHSetup:          true,
	RAPIMayPromote:    true,
}

func (p Params) check() error {
	lease, sshLease := time.Duration(p.LeaseSeconds)*time.Second, time.Duration(p.SSHLeaseSeconds)*time.Second
	switch {
	case p.CandidatePoolSize < 1 || p.CandidatePoolSize > MaxPool:
		return fmt.Errorf("candidate pool size %d: want 1 to %d", p.CandidatePoolSize, MaxPool)
	case lease < candmap.MinLease || lease > candmap.MaxLease:
		return fmt.Errorf("map lease %s: want %s to %s", lease, candmap.MinLease, candmap.MaxLease)
	case sshLease < candmap.MinSSHLease || sshLease > candmap.MaxSSHLease:
		return fmt.Errorf("ssh lease %s: want %s to %s", sshLease, candmap.MinSSHLease, candmap.MaxSSHLease)
	}
	if err := p.SSH().Check(); err != nil {
		return err
	}
	if p.MasterAddress != nil {
		if err := p.MasterAddress.Check(); err != nil {
			return err
		}
	}
	if _, err := cluster.ParsePolicy(string(p.Policy)); err != nil {
		return err
	}
	_, err := cluster.ParseSSHReach(string(p.SSHReach))
	return err
}

// SSH returns how SSH keys are handled.
func (p Params) SSH() cluster.SSHSettings {
	s := cluster.SSHSettings{KeyMode: p.SSHKeyMode, KeyType: p.SSHKeyType, KeyBits: p.SSHKeyBits, Storage: p.SSHKeyStorage, Authorize: p.SSHAuthorize}
	d := cluster.DefaultSSHSettings
	s.KeyType, s.Storage, s.Authorize = cmp.Or(s.KeyType, d.KeyType), cmp.Or(s.Storage, d.Storage), cmp.Or(s.Authorize, d.Authorize)
	return s
}

// ParamsPatch changes the fields that are set.
type ParamsPatch struct {
	CandidatePoolSize *int              `json:"candidate_pool_size,omitempty"`
	LeaseSeconds      *uint32           `json:"lease_seconds,omitempty"`
	SSHLeaseSeconds   *uint32           `json:"ssh_lease_seconds,omitempty"`
	Policy            *cluster.Policy   `json:"policy,omitempty"`
	SSHReach          *cluster.SSHReach `json:"ssh_reach,omitempty"`
	SSHSetup          *bool             `json:"ssh_setup,omitempty"`

	SSHKeyMode    *cluster.SSHKeyMode    `json:"ssh_key_mode,omitempty"`
	SSHKey        *cluster.SSHKeySpec    `json:"ssh_key,omitempty"` // type and bits change together
	SSHKeyStorage *cluster.SSHKeyStorage `json:"ssh_key_storage,omitempty"`
	SSHAuthorize  *cluster.SSHAuthorize  `json:"ssh_authorize,omitempty"`

	RAPIMayPromote                 *bool `json:"rapi_may_promote,omitempty"`
	MasterCapabilityRAPIModifiable *bool `json:"master_capability_rapi_modifiable,omitempty"`

	MasterAddress   *cluster.MasterAddress `json:"master_address,omitempty"`
	NoMasterAddress bool                   `json:"no_master_address,omitempty"` // take it away
}

// Patch returns the parameters with the patch applied.
func (p Params) Patch(c ParamsPatch) Params {
	set(&p.CandidatePoolSize, c.CandidatePoolSize)
	set(&p.LeaseSeconds, c.LeaseSeconds)
	set(&p.SSHLeaseSeconds, c.SSHLeaseSeconds)
	set(&p.Policy, c.Policy)
	set(&p.SSHReach, c.SSHReach)
	set(&p.SSHSetup, c.SSHSetup)
	set(&p.SSHKeyMode, c.SSHKeyMode)
	if c.SSHKey != nil {
		p.SSHKeyType, p.SSHKeyBits = c.SSHKey.Type, c.SSHKey.Bits
	}
	set(&p.SSHKeyStorage, c.SSHKeyStorage)
	set(&p.SSHAuthorize, c.SSHAuthorize)
	set(&p.RAPIMayPromote, c.RAPIMayPromote)
	set(&p.MasterCapabilityRAPIModifiable, c.MasterCapabilityRAPIModifiable)
	if c.MasterAddress != nil || c.NoMasterAddress {
		p.MasterAddress = c.MasterAddress
	}
	return p
}

// FlagPatch changes the flags that are set.
type FlagPatch struct {
	MasterCandidate *bool `json:"master_candidate,omitempty"`
	Drained         *bool `json:"drained,omitempty"`
	Offline         *bool `json:"offline,omitempty"`
	MasterCapable   *bool `json:"master_capable,omitempty"`
	VMCapable       *bool `json:"vm_capable,omitempty"`
}

// Apply returns the flags with the patch applied.
func (c FlagPatch) Apply(f cluster.Flags) cluster.Flags {
	set(&f.MasterCandidate, c.MasterCandidate)
	set(&f.Drained, c.Drained)
	set(&f.Offline, c.Offline)
	set(&f.MasterCapable, c.MasterCapable)
	set(&f.VMCapable, c.VMCapable)
	return f
}

// PatchTo returns the patch that sets every flag.
func PatchTo(f cluster.Flags) *FlagPatch {
	return &FlagPatch{&f.MasterCandidate, &f.Drained, &f.Offline, &f.MasterCapable, &f.VMCapable}
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}
