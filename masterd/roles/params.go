package roles

import (
	"rolekey/cluster"
	"rolekey/masterd/state"
)

// CheckParams checks a request to change the cluster's parameters. What raises
// privileges is refused over RAPI: a user of RAPI could hand root's keys to any
// machine with it, or claim any address of the network.
func CheckParams(s *state.State, c state.ParamsPatch, rapi bool) error {
	if c == (state.ParamsPatch{}) {
		return refuse(WrongInput, "Please pass at least one modification")
	}
	if c.MasterAddress != nil && c.NoMasterAddress {
		return refuse(WrongInput, "Can't set the cluster address and take it away at the same time")
	}
	if c.CandidatePoolSize != nil && (*c.CandidatePoolSize < 1 || *c.CandidatePoolSize > state.MaxPool) {
		return refuse(WrongInput, "Candidate pool size %d is not valid: want 1 to %d", *c.CandidatePoolSize, state.MaxPool)
	}
	ssh := c.SSHSetup != nil || c.SSHKeyMode != nil || c.SSHKey != nil || c.SSHKeyStorage != nil || c.SSHAuthorize != nil
	if rapi && (c.RAPIMayPromote != nil || c.MasterCapabilityRAPIModifiable != nil || c.SSHReach != nil || c.Policy != nil ||
		c.MasterAddress != nil || c.NoMasterAddress || ssh) {
		return refuse(WrongState, "rapi_may_promote, master_capability_rapi_modifiable, ssh_reach and the other settings of SSH, policy and the cluster address cannot be changed over RAPI").
			withHint("On the master, as root: gnt-cluster modify")
	}
	if rapi && raisesPower(s, c) {
		return refuse(WrongState, "Over RAPI the leases cannot be made longer, and the candidate pool not larger where RAPI may not promote nodes").
			withHint("On the master, as root: gnt-cluster modify")
	}
	if ssh && s.FeatureLevel < state.LevelSSH {
		return refuse(WrongState, "Changing the settings of SSH needs feature level %d, and the cluster is at level %d", state.LevelSSH, s.FeatureLevel).
			withHint("Upgrade rolekey on all nodes; gnt-cluster info shows the level")
	}
	return nil
}

// raisesPower reports whether a change lets a node that loses its role keep its
// power for longer, or makes nodes candidates that RAPI may not promote.
func raisesPower(s *state.State, c state.ParamsPatch) bool {
	p := s.Params
	return c.LeaseSeconds != nil && *c.LeaseSeconds > p.LeaseSeconds || c.SSHLeaseSeconds != nil && *c.SSHLeaseSeconds > p.SSHLeaseSeconds ||
		c.CandidatePoolSize != nil && *c.CandidatePoolSize > p.CandidatePoolSize && !MayPromote(s, true)
}

// ParamsNotices say what a change of parameters means for the cluster's
// security, in a job's log.
func ParamsNotices(old, next state.Params) []Message {
	var out []Message
	if old.Policy != next.Policy && next.Policy == cluster.PolicyBestEffort {
		out = append(out, warning("Nodes that hear nothing will serve on with an old map: revoking a node that is cut off has no bound any more"))
	}
	if old.SSHReach != next.SSHReach && next.SSHReach == cluster.ReachCandidates {
		out = append(out, warning("Every candidate's SSH key will open every node: root on a candidate is root on all"))
	}
	if o, n := old.SSH().Authorize, next.SSH().Authorize; o != n && n == cluster.AuthorizeCommand {
		out = append(out, warning("Logins with the cluster's SSH keys will end with the map lease: a node that is cut off from the cluster for longer lets in nobody but the holders of the administrator's own keys"))
	}
	out = append(out, sshNotices(old, next)...)
	if !old.RAPIMayPromote && next.RAPIMayPromote {
		out = append(out, warning("A RAPI user who may write can make any master capable node a candidate, which holds root's keys"))
	}
	if old.RAPIMayPromote && !next.RAPIMayPromote {
		out = append(out, info("Admission strings that were made over RAPI so far may still lead to a candidate: gnt-node tokens list, gnt-node tokens revoke"))
	}
	if !old.MasterCapabilityRAPIModifiable && next.MasterCapabilityRAPIModifiable {
		out = append(out, warning("A RAPI user who may write can make any node master capable"))
	}
	return out
}

// sshNotices say what a change means for the SSH keys of the candidates.
func sshNotices(old, next state.Params) []Message {
	var out []Message
	shared := next.SSHSetup && next.SSHKeyMode == cluster.KeyShared
	if shared && (old.SSHKeyMode != next.SSHKeyMode || !old.SSHSetup) {
		out = append(out, warning("All master candidates will hold one SSH key. What a former candidate keeps of it is worth nothing only once it is replaced, "+
			"which happens at every loss of the role, unless --no-rotate forbids it"))
	}
	if shared && next.SSHReach == cluster.ReachMaster && (old.SSHReach != next.SSHReach || old.SSHKeyMode != next.SSHKeyMode) {
		out = append(out, warning("With a shared key it is only by its addresses that a node tells the master from the other candidates"))
	}
	if next.SSHSetup && next.SSHKeyStorage == cluster.StorageAgent && old.SSHKeyStorage != next.SSHKeyStorage {
		out = append(out, info("Keys will be in noded's memory alone: a candidate whose noded was restarted has none until the master has given it a new one"))
	}
	if old.SSHSetup && !next.SSHSetup {
		out = append(out, warning("The nodes will take the cluster's keys and entries out of root's SSH files. What you need to reach them by SSH must be in these files without them"))
	}
	return out
}
