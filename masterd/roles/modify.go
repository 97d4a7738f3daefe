package roles

import (
	"rolekey/cluster"
	"rolekey/masterd/state"
)

// Modify is a request to change a node: Ganeti's OpNodeSetParams. A nil flag
// stays as it is.
type Modify struct {
	Node            string // name or UUID
	MasterCandidate *bool
	Drained         *bool
	Offline         *bool
	MasterCapable   *bool
	VMCapable       *bool
	AutoPromote     bool
	Force           bool // accepted as in Ganeti; it overrides nothing that the planner checks
	RAPI            bool // the request came over RAPI alone, which must not raise privileges unless the cluster allows it
}

// Find returns a node by name or UUID.
func Find(s *state.State, ref string) (*state.Node, error) {
	if id, err := cluster.ParseUUID(ref); err == nil {
		if n := s.Node(id); n != nil {
			return n, nil
		}
	}
	if name, err := cluster.ParseName(ref); err == nil {
		if n := s.NodeByName(name); n != nil {
			return n, nil
		}
	}
	if len(ref) > 64 {
		ref = ref[:64] + "…"
	}
	return nil, refuse(UnknownEntity, "Node '%s' not known", ref)
}

// PlanModify plans a change of flags, with the semantics of Ganeti's
// LUNodeSetParams. The error is a *PrereqError.
func PlanModify(s *state.State, req Modify) (Plan, error) {
	if err := req.checkArguments(); err != nil {
		return Plan{}, err
	}
	n, err := Find(s, req.Node)
	if err != nil {
		return Plan{}, err
	}
	m := modification{s: s, n: n, req: req, notAgain: is(req.MasterCandidate, false)}
	if err := m.checkPrereq(); err != nil {
		return Plan{}, err
	}
	m.ignoreUnset()
	m.promoteSelf()
	if err := m.demoteIncapable(); err != nil {
		return Plan{}, err
	}
	return m.plan()
}

// flags returns the five flags of the request, by Ganeti's names.
func (r Modify) flags() []*bool {
	return []*bool{r.Offline, r.MasterCandidate, r.Drained, r.MasterCapable, r.VMCapable}
}

func (r Modify) checkArguments() error {
	given, on := 0, 0
	for _, f := range r.flags() {
		if f != nil {
			given++
		}
		if is(f, true) {
			on++
		}
	}
	if given == 0 {
		return refuse(WrongInput, "Please pass at least one modification")
	}
	if on > 1 { // Ganeti counts the capabilities too
		return refuse(WrongInput, "Can't set the node into more than one state at the same time")
	}
	return nil
}

// mightDemote reports whether the request can take a candidate out of the pool.
func (r Modify) mightDemote() bool {
	return is(r.MasterCandidate, false) || is(r.Offline, true) || is(r.Drained, true) || is(r.MasterCapable, false)
}

// adjustsPool reports whether other nodes may be promoted to make up for it.
func (r Modify) adjustsPool() bool { return r.AutoPromote && r.mightDemote() }

// modification is a request on its way to a plan; req loses what has no effect.
type modification struct {
	s        *state.State
	n        *state.Node
	req      Modify
	notAgain bool // the request says that the node is to be no candidate
	messages []Message
}

func (m *modification) checkPrereq() error {
	r, n := m.req, m.n
	if (r.MasterCandidate != nil || r.Drained != nil || r.Offline != nil) && n.UUID == m.s.Master {
		return refuse(WrongInput, "The master role can be changed only via master-failover")
	}
	// Ganeti forgets the second case and makes a candidate that is not capable.
	if is(r.MasterCandidate, true) && (!n.Flags.MasterCapable || is(r.MasterCapable, false)) {
		return refuse(WrongState, "Node %s is not master capable, cannot make it a master candidate", n.Name)
	}
	if err := m.checkRAPI(); err != nil {
		return err
	}
	if n.Flags.MasterCandidate && r.mightDemote() && !r.adjustsPool() {
		if p := Pool(m.s, n.UUID); p.Now < p.Should {
			return refuse(WrongState, "Not enough master candidates, please pass auto promote option to allow promotion (--auto-promote or RAPI auto_promote=True)")
		}
	}
	return nil
}

// checkRAPI refuses what a RAPI user may not do alone, because it hands root's
// keys of the whole cluster to another machine.
func (m *modification) checkRAPI() error {
	r, p := m.req, m.s.Params
	switch {
	case !r.RAPI:
		return nil
	case r.MasterCapable != nil && *r.MasterCapable != m.n.Flags.MasterCapable && !p.MasterCapabilityRAPIModifiable:
		return refuse(WrongState, "The master_capable flag cannot be changed over RAPI in this cluster").
			withHint("On the master, as root: gnt-node modify --master-capable, or gnt-cluster modify --master-capability-rapi-modifiable=yes")
	case MayPromote(m.s, true):
		return nil
	case is(r.MasterCandidate, true) && !m.n.Flags.MasterCandidate, r.adjustsPool():
		return refuse(WrongState, "RAPI may not promote nodes to master candidates in this cluster").
			withHint("On the master, as root: gnt-node modify --master-candidate=yes, or gnt-cluster modify --rapi-may-promote=yes")
	}
	return nil
}

// ignoreUnset drops requests to unset what is not set, so that from here on a
// False means a way out of that state.
func (m *modification) ignoreUnset() {
	f := m.n.Flags
	for _, flag := range []struct {
		name string
		want **bool
		have bool
	}{
		{"master_candidate", &m.req.MasterCandidate, f.MasterCandidate},
		{"drained", &m.req.Drained, f.Drained},
		{"offline", &m.req.Offline, f.Offline},
	} {
		if is(*flag.want, false) && !flag.have {
			m.messages = append(m.messages, info("Ignoring request to unset flag %s, already unset", flag.name))
			*flag.want = nil
		}
	}
}

// promoteSelf makes a node that comes back, or becomes capable, a candidate if
// the pool has room, and one that was a candidate when it was set offline in
// any case. Unlike Ganeti (issue 1682) it leaves alone what is not master
// capable, or stays drained or offline, or is sent to another state by the same
// request.
func (m *modification) promoteSelf() {
	r, f := &m.req, m.n.Flags
	back := is(r.Drained, false) || is(r.Offline, false)
	capable := is(r.MasterCapable, true) && !f.MasterCapable
	again := is(r.Offline, false) && m.n.WasCandidate && !m.notAgain
	if !back && !capable || f.MasterCandidate || !again && !roomForOne(m.s) {
		return
	}
	after := m.target()
	if !after.MasterCapable || after.Drained || after.Offline {
		return
	}
	if !MayPromote(m.s, r.RAPI) {
		m.messages = append(m.messages, info("Not promoting the node to master candidate: RAPI may not promote nodes in this cluster"))
		return
	}
	r.MasterCandidate = new(true)
	m.messages = append(m.messages, info("Auto-promoting node to master candidate"))
	if again && !roomForOne(m.s) {
		p := Pool(m.s)
		m.messages = append(m.messages, info("The node was a candidate before it was set offline; now more nodes are candidates (%d) than desired (%d)",
			p.Now+1, m.s.Params.CandidatePoolSize))
	}
}

func (m *modification) demoteIncapable() error {
	if !is(m.req.MasterCapable, false) || !m.n.Flags.MasterCandidate {
		return nil
	}
	if m.n.UUID == m.s.Master {
		return refuse(WrongState, "Master must remain master capable")
	}
	m.messages = append(m.messages, info("Demoting from master candidate"))
	m.req.MasterCandidate = new(false)
	return nil
}

// target returns the flags that the request leads to. At most one of the three
// states is asked for, and setting one unsets the others.
func (m *modification) target() cluster.Flags {
	r, f := m.req, m.n.Flags
	set(&f.MasterCapable, r.MasterCapable)
	set(&f.VMCapable, r.VMCapable)
	if is(r.MasterCandidate, true) || is(r.Drained, true) || is(r.Offline, true) {
		f.MasterCandidate, f.Drained, f.Offline = is(r.MasterCandidate, true), is(r.Drained, true), is(r.Offline, true)
		return f
	}
	set(&f.MasterCandidate, r.MasterCandidate)
	set(&f.Drained, r.Drained)
	set(&f.Offline, r.Offline)
	return f
}

func (m *modification) plan() (Plan, error) {
	n := m.n
	isMaster := n.UUID == m.s.Master
	p := Plan{
		Node: n.UUID, Name: n.Name, OldFlags: n.Flags, NewFlags: m.target(), Messages: m.messages,
	}
	p.OldRole, p.NewRole = p.OldFlags.Role(isMaster), p.NewFlags.Role(isMaster)
	if p.OldFlags.Offline && !p.NewFlags.Offline {
		p.Messages = append(p.Messages, warning("Transitioning node from offline to online state without using re-add. Please make sure the node is healthy!"))
	}
	p.Results = results(m.req, p.OldFlags, p.NewFlags)
	p.setSteps(m.req.adjustsPool())
	return p, nil
}

// results lists what was set, in Ganeti's order: the capabilities when they
// were asked for, the states when they changed.
func results(r Modify, old, flags cluster.Flags) []Flag {
	out := []Flag{}
	if r.MasterCapable != nil {
		out = append(out, Flag{"master_capable", *r.MasterCapable})
	}
	if r.VMCapable != nil {
		out = append(out, Flag{"vm_capable", *r.VMCapable})
	}
	for _, f := range []struct {
		name     string
		old, new bool
	}{
		{"master_candidate", old.MasterCandidate, flags.MasterCandidate},
		{"drained", old.Drained, flags.Drained},
		{"offline", old.Offline, flags.Offline},
	} {
		if f.old != f.new {
			out = append(out, Flag{f.name, f.new})
		}
	}
	return out
}

func is(b *bool, want bool) bool { return b != nil && *b == want }

func set(to, from *bool) {
	if from != nil {
		*to = *from
	}
}
