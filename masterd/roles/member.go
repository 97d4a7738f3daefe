package roles

import (
	"rolekey/cluster"
	"rolekey/masterd/state"
)

// PlanRemove plans the removal of a node: Ganeti's LUNodeRemove. The pool is
// filled up afterwards, so that the removal never waits for a promotion.
func PlanRemove(s *state.State, ref string) (Plan, error) {
	n, err := Find(s, ref)
	if err != nil {
		return Plan{}, err
	}
	if n.UUID == s.Master {
		return Plan{}, refuse(WrongInput, "Node is the master node, failover to another node is required")
	}
	p := Plan{
		Node: n.UUID, Name: n.Name, OldFlags: n.Flags, OldRole: s.Role(n.UUID), NewRole: cluster.RoleRegular,
		NewFlags: n.Flags, Remove: true, Results: []Flag{},
	}
	p.NewFlags.MasterCandidate = false
	p.setSteps(true)
	return p, nil
}

// PlanJoin plans what follows the first contact of an admitted node: it
// becomes a candidate if the pool has room. The plan of a node that stays
// regular has no steps.
func PlanJoin(s *state.State, id cluster.NodeID) (Plan, error) {
	n := s.Node(id)
	if n == nil {
		return Plan{}, refuse(UnknownEntity, "Node '%s' not known", id)
	}
	p := Plan{
		Node: n.UUID, Name: n.Name, OldFlags: n.Flags, NewFlags: n.Flags,
		OldRole: s.Role(id), NewRole: s.Role(id), Results: []Flag{},
	}
	if n.Flags.MasterCandidate || !eligible(n) || !roomForOne(s, id) {
		return p, nil
	}
	return promote(p), nil
}

// PlanPromote plans the promotion of a node that PlanPool chose. It is empty
// when the node is a candidate by now, or may not be one any more.
func PlanPromote(s *state.State, id cluster.NodeID) (Plan, error) {
	n := s.Node(id)
	if n == nil {
		return Plan{}, refuse(UnknownEntity, "Node '%s' not known", id)
	}
	p := Plan{
		Node: n.UUID, Name: n.Name, OldFlags: n.Flags, NewFlags: n.Flags,
		OldRole: s.Role(id), NewRole: s.Role(id), Results: []Flag{},
	}
	if n.Flags.MasterCandidate || !eligible(n) {
		return p, nil
	}
	return promote(p), nil
}

func promote(p Plan) Plan {
	p.NewFlags.MasterCandidate = true
	p.NewRole = cluster.RoleCandidate
	p.Messages = []Message{info("Auto-promoting node to master candidate")}
	p.setSteps(false)
	return p
}
