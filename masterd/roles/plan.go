package roles

import (
	"slices"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// StepKind says what a step does.
type StepKind string

// The kinds of steps, in the words that a job stores to be resumed.
const (
	StepProbe       StepKind = "probe"        // the node answers now, or the job fails with NoVersion before anything is changed
	StepKeysCreate  StepKind = "keys-create"  // the node makes candidate keys; their certificate is issued
	StepCommit      StepKind = "commit"       // one raft entry: Change (a node-change) or the removal, with the map that it yields
	StepPublish     StepKind = "publish"      // the map is signed and pushed; the report names who lacks it
	StepKeysInstall StepKind = "keys-install" // the node learns that it is a candidate: certificate and keys are in place
	StepKeysDestroy StepKind = "keys-destroy" // the node destroys its candidate keys, if it can be reached
	StepLeave       StepKind = "leave"        // the node is told that it is a member no more, if it can be reached
	StepPool        StepKind = "pool"         // other nodes are promoted: see PlanPool
)

// Step is one step of a plan, about one node.
type Step struct {
	Kind StepKind
	Node cluster.NodeID
	// MayFail marks an effect on a node that the map has cut off already: if
	// the node cannot be reached the job warns and goes on.
	MayFail bool
}

// Flag is an entry of a job's result: what was set, as Ganeti prints it.
type Flag struct {
	Name  string
	Value bool
}

// Pair returns the entry in the form of Ganeti's opresult.
func (f Flag) Pair() [2]string {
	if f.Value {
		return [2]string{f.Name, "True"}
	}
	return [2]string{f.Name, "False"}
}

// Plan is what to do about a node.
type Plan struct {
	Node     cluster.NodeID
	Name     cluster.Name
	OldRole  cluster.Role
	NewRole  cluster.Role // RoleRegular after a removal
	OldFlags cluster.Flags
	NewFlags cluster.Flags
	Remove   bool // the commit is a removal
	Steps    []Step
	Messages []Message // for the job's log
	Results  []Flag
}

// Promotes reports whether the node becomes a candidate.
func (p Plan) Promotes() bool {
	return p.NewFlags.MasterCandidate && !p.OldFlags.MasterCandidate
}

// Demotes reports whether the node stops being a candidate.
func (p Plan) Demotes() bool {
	return p.OldFlags.MasterCandidate && (p.Remove || !p.NewFlags.MasterCandidate)
}

// NoOp reports whether there is nothing to commit.
func (p Plan) NoOp() bool { return len(p.Steps) == 0 }

// Has reports whether the plan has a step of the kind.
func (p Plan) Has(kind StepKind) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Kind == kind })
}

// Change returns the node-change that the commit step proposes, but for the
// keys of a promotion and the job. newVoters is the map's new list of voters
// when the node is one of them (see VotersAfterLoss), else nil.
func (p Plan) Change(newVoters []cluster.NodeID) state.NodeChange {
	c := state.NodeChange{Node: p.Node, Flags: state.PatchTo(p.NewFlags)}
	if newVoters != nil {
		c.Voters = &newVoters
	}
	return c
}

// add appends a step about the plan's node.
func (p *Plan) add(kind StepKind) {
	mayFail := kind == StepKeysDestroy || kind == StepLeave
	p.Steps = append(p.Steps, Step{kind, p.Node, mayFail})
}

// setSteps orders the steps: whatever takes rights away is committed and
// published before anything else happens to any node.
func (p *Plan) setSteps(adjustPool bool) {
	if p.OldFlags.Offline && !p.NewFlags.Offline {
		p.add(StepProbe)
	}
	switch {
	case p.Remove:
		p.add(StepCommit)
		p.add(StepPublish)
		p.add(StepLeave)
	case p.Promotes():
		p.add(StepKeysCreate)
		p.add(StepCommit)
		p.add(StepPublish)
		p.add(StepKeysInstall)
	case p.Demotes():
		p.add(StepCommit)
		p.add(StepPublish)
		p.add(StepKeysDestroy)
	case p.NewFlags != p.OldFlags:
		p.add(StepCommit)
		p.add(StepPublish)
	}
	if adjustPool {
		p.add(StepPool)
	}
}

// NoVersion is what a job fails with whose StepProbe got no answer.
func (p Plan) NoVersion() *PrereqError {
	return refuse(WrongState, "Node %s is being de-offlined but fails to report its version", p.Name)
}

func contains(ids []cluster.NodeID, id cluster.NodeID) bool { return slices.Contains(ids, id) }
