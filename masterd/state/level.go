package state

import "rolekey/cluster"

// LevelSettings is the feature level from which on the roster carries settings
// and the commands and members of that level are emitted: every node can read
// them by then.
const LevelSettings = 2

// LevelSSH is the one from which on SSH keys may be shared, kept elsewhere, of
// another type, and changed for many nodes at once, and from which on nodes
// change their own host keys.
const LevelSSH = 3

// LevelRenew is the one from which on nodes follow the roster's authorities and
// gossip keys.
const LevelRenew = 3

// LevelRAPI is the one from which on the state has users of the remote API.
const LevelRAPI = 3

// LevelRepair is the one from which on nodes put their own files right when the
// master asks.
const LevelRepair = 3

// leveled is implemented by bodies that a replica of an earlier release would
// not understand.
type leveled interface {
	level() int
}

// raiser is implemented by bodies that raise the feature level: a replica that
// does not know the new one must stop.
type raiser interface {
	raises() int
}

// mayEmit refuses a command that some node could not read yet.
func (s *State) mayEmit(b body) error {
	l, ok := b.(leveled)
	if !ok || l.level() <= s.FeatureLevel {
		return nil
	}
	return cluster.Errorf(cluster.CodeConflict, "it needs feature level %d, and the cluster is at level %d", l.level(), s.FeatureLevel).
		WithHint("upgrade rolekey on all nodes; gnt-cluster info shows the level")
}

// MaxTags is how many tags an object may have now.
func (s *State) MaxTags() int {
	if s.FeatureLevel < LevelSettings {
		return MaxTagsLevel1
	}
	return MaxTags
}

func (c *ClusterChange) level() int { return LevelSettings }

func (c *AdmissionCreate) level() int {
	if c.Record.Any() {
		return LevelSettings
	}
	return 1
}

func (c *ParamsChange) level() int {
	p := c.Params
	if p.SSHKeyMode != nil || p.SSHKey != nil || p.SSHKeyStorage != nil || p.SSHAuthorize != nil {
		return LevelSSH
	}
	if c.Params.MasterAddress != nil || c.Params.NoMasterAddress {
		return LevelSettings
	}
	return 1
}

func (c *SSHKeysChange) level() int { return LevelSSH }

func (c *HostKeysClaim) level() int { return LevelSSH }

func (c *HostKeysDecision) level() int { return LevelSSH }

func (c *sharedWire) level() int { return LevelSSH }

func (c *caWire) level() int { return LevelRenew }

func (c *NodesCerts) level() int { return LevelRenew }

func (c *gossipKeysWire) level() int { return LevelRenew }

func (c *rapiUserWire) level() int { return LevelRAPI }

func (c *RAPIAdminChange) level() int { return LevelRAPI }

func (c *rapiCertWire) level() int { return LevelRAPI }

func (c *FeatureLevel) raises() int { return c.Level }

func (g *genesisWire) raises() int { return g.FeatureLevel }
