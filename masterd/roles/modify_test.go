package roles_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// world returns a cluster of the master, node 2 with these flags, and nodes 3
// up to the given number of candidates and idle nodes.
func world(t *testing.T, f cluster.Flags, candidates, idle, pool int) *state.State {
	t.Helper()
	return worldOf(t, f, false, candidates, idle, pool)
}

// worldOf is world, with node 2 a candidate before it got its flags, if was.
func worldOf(t *testing.T, f cluster.Flags, was bool, candidates, idle, pool int) *state.State {
	t.Helper()
	l := statetest.New(t)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSettings})
	for i := 2; i < 3+candidates+idle; i++ {
		l.Add(i)
	}
	for i := 3; i < 3+candidates; i++ {
		l.Promote(i)
	}
	if f.MasterCandidate || was {
		l.Promote(2)
	}
	l.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), Flags: state.PatchTo(f)})
	l.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{CandidatePoolSize: &pool}})
	return l.S
}

func tri(i int) *bool {
	switch i {
	case 1:
		return new(false)
	case 2:
		return new(true)
	}
	return nil
}

// outcome is what Ganeti's algorithm, written down again in its own order and
// terms, does with a request.
type outcome struct {
	class    roles.Class
	flags    cluster.Flags
	messages []string
}

// oracle follows lib/cmdlib/node.py step by step, with the three corrections
// that modify.go names.
func oracle(s *state.State, n *state.Node, r roles.Modify) outcome {
	is := func(b *bool, v bool) bool { return b != nil && *b == v }
	all := []*bool{r.Offline, r.MasterCandidate, r.Drained, r.MasterCapable, r.VMCapable}
	trues, nils := 0, 0
	for _, b := range all {
		if b == nil {
			nils++
		} else if *b {
			trues++
		}
	}
	if nils == len(all) || trues > 1 {
		return outcome{class: roles.WrongInput}
	}
	mightDemote := is(r.MasterCandidate, false) || is(r.Offline, true) || is(r.Drained, true) || is(r.MasterCapable, false)
	lockAll := r.AutoPromote && mightDemote
	master := n.UUID == s.Master
	if master && (r.MasterCandidate != nil || r.Drained != nil || r.Offline != nil) {
		return outcome{class: roles.WrongInput}
	}
	if is(r.MasterCandidate, true) && (!n.Flags.MasterCapable || is(r.MasterCapable, false)) {
		return outcome{class: roles.WrongState}
	}
	now, most := 0, 0
	nowAll, mostAll := 0, 0
	for id, m := range s.Nodes {
		can := m.Flags.MasterCapable && !m.Flags.Offline && !m.Flags.Drained
		if can {
			mostAll++
		}
		if m.Flags.MasterCandidate {
			nowAll++
		}
		if id != n.UUID && can {
			most++
		}
		if id != n.UUID && m.Flags.MasterCandidate {
			now++
		}
	}
	pool := s.Params.CandidatePoolSize
	if n.Flags.MasterCandidate && mightDemote && !lockAll && now < min(most, pool) {
		return outcome{class: roles.WrongState}
	}
	out := outcome{}
	mc, dr, off := r.MasterCandidate, r.Drained, r.Offline
	for _, f := range []struct {
		name string
		op   **bool
		have bool
	}{{"master_candidate", &mc, n.Flags.MasterCandidate}, {"drained", &dr, n.Flags.Drained}, {"offline", &off, n.Flags.Offline}} {
		if is(*f.op, false) && !f.have {
			out.messages = append(out.messages, "Ignoring request to unset flag "+f.name+", already unset")
			*f.op = nil
		}
	}
	again := is(off, false) && n.WasCandidate && !is(r.MasterCandidate, false)
	staysOut := is(dr, true) || is(off, true) || (n.Flags.Drained && !is(dr, false) && !is(off, true)) || (n.Flags.Offline && !is(off, false))
	if is(mc, true) {
		staysOut = false
	}
	capable := (n.Flags.MasterCapable || is(r.MasterCapable, true)) && !is(r.MasterCapable, false)
	if (is(dr, false) || is(off, false) || (is(r.MasterCapable, true) && !n.Flags.MasterCapable)) &&
		(nowAll < min(min(mostAll, pool)+1, pool) || again) && !staysOut && capable && !n.Flags.MasterCandidate {
		mc = new(true)
		out.messages = append(out.messages, "Auto-promoting node to master candidate")
		if nowAll >= min(min(mostAll, pool)+1, pool) {
			out.messages = append(out.messages, fmt.Sprintf(
				"The node was a candidate before it was set offline; now more nodes are candidates (%d) than desired (%d)", nowAll+1, pool))
		}
	}
	if is(r.MasterCapable, false) && n.Flags.MasterCandidate {
		if master {
			return outcome{class: roles.WrongState}
		}
		out.messages = append(out.messages, "Demoting from master candidate")
		mc = new(false)
	}
	f := n.Flags
	switch {
	case is(mc, true):
		f.MasterCandidate, f.Drained, f.Offline = true, false, false
	case is(dr, true):
		f.MasterCandidate, f.Drained, f.Offline = false, true, false
	case is(off, true):
		f.MasterCandidate, f.Drained, f.Offline = false, false, true
	case is(mc, false) || is(dr, false) || is(off, false):
		f.MasterCandidate, f.Drained, f.Offline = false, false, false
	}
	if r.MasterCapable != nil {
		f.MasterCapable = *r.MasterCapable
	}
	if r.VMCapable != nil {
		f.VMCapable = *r.VMCapable
	}
	out.flags = f
	if n.Flags.Offline && !f.Offline {
		out.messages = append(out.messages, "Transitioning node from offline to online state without using re-add. Please make sure the node is healthy!")
	}
	return out
}

// TestPlanModifyEveryRequest tries every request on every kind of node in
// pools with and without room, against the oracle.
func TestPlanModifyEveryRequest(t *testing.T) {
	worlds := 0
	for _, f := range nodeFlags() {
		for _, w := range []struct{ candidates, idle, pool int }{{0, 0, 5}, {1, 1, 2}, {1, 1, 5}, {2, 0, 1}} {
			s := world(t, f, w.candidates, w.idle, w.pool)
			worlds++
			if f.Offline && f.MasterCapable {
				again := worldOf(t, f, true, w.candidates, w.idle, w.pool)
				everyRequest(func(r roles.Modify) {
					r.Node = string(statetest.Name(2))
					compare(t, again, again.Node(statetest.ID(2)), r)
				})
			}
			for _, target := range []int{1, 2} {
				everyRequest(func(r roles.Modify) {
					r.Node = string(statetest.Name(target))
					compare(t, s, s.Node(statetest.ID(target)), r)
				})
			}
		}
	}
	if worlds != 28 {
		t.Fatalf("%d worlds", worlds)
	}
}

func nodeFlags() []cluster.Flags {
	return []cluster.Flags{
		{MasterCapable: true, VMCapable: true},
		{MasterCapable: true, MasterCandidate: true},
		{MasterCapable: true, Drained: true},
		{MasterCapable: true, Offline: true, VMCapable: true},
		{VMCapable: true},
		{Drained: true},
		{Offline: true},
	}
}

func everyRequest(try func(roles.Modify)) {
	for i := range 3 * 3 * 3 * 3 * 3 * 2 {
		k := i / 2
		try(roles.Modify{
			MasterCandidate: tri(k % 3), Drained: tri(k / 3 % 3), Offline: tri(k / 9 % 3),
			MasterCapable: tri(k / 27 % 3), VMCapable: tri(k / 81 % 3), AutoPromote: i%2 == 1,
		})
	}
}

func compare(t *testing.T, s *state.State, n *state.Node, r roles.Modify) {
	t.Helper()
	want := oracle(s, n, r)
	p, err := roles.PlanModify(s, r)
	var e *roles.PrereqError
	if errors.As(err, &e) || want.class != "" {
		if e == nil || e.Class != want.class {
			t.Fatalf("%s %+v: refused with %v, want class %q", describe(r), n.Flags, err, want.class)
		}
		return
	}
	var messages []string
	for _, m := range p.Messages {
		messages = append(messages, m.Text)
	}
	if p.NewFlags != want.flags || !slices.Equal(messages, want.messages) {
		t.Fatalf("%s on %+v: got %+v %q, want %+v %q", describe(r), n.Flags, p.NewFlags, messages, want.flags, want.messages)
	}
	checkPlan(t, p, r, n.UUID == s.Master)
}

// checkPlan holds every plan to what must never be broken.
func checkPlan(t *testing.T, p roles.Plan, r roles.Modify, master bool) {
	t.Helper()
	if !p.NewFlags.Valid() || master && !p.NewFlags.MasterCandidate {
		t.Fatalf("%s leads to %+v", describe(r), p.NewFlags)
	}
	var kinds []string
	for _, s := range p.Steps {
		kinds = append(kinds, string(s.Kind))
	}
	order := strings.Join(kinds, " ")
	for _, forbidden := range []string{"pool commit", "pool publish", "keys-destroy commit", "keys-destroy publish", "leave commit"} {
		if strings.Contains(order, forbidden) {
			t.Fatalf("%s: order %s", describe(r), order)
		}
	}
	if p.Promotes() != strings.Contains(order, "keys-create commit publish keys-install") ||
		p.Demotes() != strings.Contains(order, "commit publish keys-destroy") ||
		(p.NewFlags != p.OldFlags) != strings.Contains(order, "commit publish") ||
		(p.OldFlags.Offline && !p.NewFlags.Offline) != strings.HasPrefix(order, "probe") {
		t.Fatalf("%s from %+v to %+v: order %s", describe(r), p.OldFlags, p.NewFlags, order)
	}
}

func describe(r roles.Modify) string {
	out := []string{}
	for name, b := range map[string]*bool{"mc": r.MasterCandidate, "D": r.Drained, "O": r.Offline, "cap": r.MasterCapable, "vm": r.VMCapable} {
		if b != nil {
			out = append(out, fmt.Sprintf("%s=%t", name, *b))
		}
	}
	slices.Sort(out)
	return fmt.Sprintf("[%s auto=%t]", strings.Join(out, " "), r.AutoPromote)
}

func TestPlanModifyTexts(t *testing.T) {
	regular := cluster.Flags{MasterCapable: true, VMCapable: true}
	candidate := cluster.Flags{MasterCapable: true, MasterCandidate: true}
	for _, c := range []struct {
		name  string
		flags cluster.Flags
		req   roles.Modify
		class roles.Class
		text  string
	}{
		{"nothing", regular, roles.Modify{}, roles.WrongInput, "Please pass at least one modification"},
		{"two states", regular, roles.Modify{Offline: new(true), Drained: new(true)}, roles.WrongInput, "Can't set the node into more than one state at the same time"},
		{"master", regular, roles.Modify{Node: "node1.lab.test", Offline: new(true)}, roles.WrongInput, "The master role can be changed only via master-failover"},
		{"incapable", cluster.Flags{}, roles.Modify{MasterCandidate: new(true)}, roles.WrongState, "Node node2.lab.test is not master capable, cannot make it a master candidate"},
		{"pool", candidate, roles.Modify{MasterCandidate: new(false)}, roles.WrongState, "Not enough master candidates, please pass auto promote option to allow promotion (--auto-promote or RAPI auto_promote=True)"},
		{"master incapable", regular, roles.Modify{Node: "node1.lab.test", MasterCapable: new(false), AutoPromote: true}, roles.WrongState, "Master must remain master capable"},
		{"unknown", regular, roles.Modify{Node: "nosuch", Offline: new(true)}, roles.UnknownEntity, "Node 'nosuch' not known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.req.Node == "" {
				c.req.Node = statetest.ID(2).String()
			}
			_, err := roles.PlanModify(world(t, c.flags, 0, 1, 5), c.req)
			var e *roles.PrereqError
			if !errors.As(err, &e) || e.Class != c.class || e.Msg != c.text {
				t.Fatalf("got %#v, want %s: %s", err, c.class, c.text)
			}
		})
	}
}

// TestPlanModifyAsRecorded replays the answer of a real Ganeti: job 101 of the
// samples, the role of a candidate set to regular.
func TestPlanModifyAsRecorded(t *testing.T) {
	s := world(t, cluster.Flags{MasterCapable: true, MasterCandidate: true}, 1, 0, 2)
	p, err := roles.PlanModify(s, roles.Modify{
		Node: "node2.lab.test", MasterCandidate: new(false), Drained: new(false), Offline: new(false),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{" - INFO: Ignoring request to unset flag drained, already unset", " - INFO: Ignoring request to unset flag offline, already unset"}
	for i, m := range p.Messages {
		if i >= len(want) || m.String() != want[i] {
			t.Fatalf("messages %v, want %v", p.Messages, want)
		}
	}
	if len(p.Results) != 1 || p.Results[0].Pair() != [2]string{"master_candidate", "False"} {
		t.Fatalf("results %v", p.Results)
	}
}

// TestOnlineAgain: a node that was a candidate when it was set offline is one
// again, also where the pool has filled up meanwhile, but not against the word
// of the request, nor when it lost the capability, nor over RAPI that may not
// promote.
func TestOnlineAgain(t *testing.T) {
	offline := cluster.Flags{MasterCapable: true, Offline: true}
	for _, c := range []struct {
		name  string
		flags cluster.Flags
		req   roles.Modify
		want  bool
	}{
		{"online", offline, roles.Modify{}, true},
		{"and no candidate", offline, roles.Modify{MasterCandidate: new(false)}, false},
		{"drained", offline, roles.Modify{Drained: new(true)}, false},
		{"not capable any more", offline, roles.Modify{MasterCapable: new(false)}, false},
		{"was not capable meanwhile", cluster.Flags{Offline: true}, roles.Modify{MasterCapable: new(true)}, false},
	} {
		s := worldOf(t, c.flags, true, 1, 0, 2)
		c.req.Node, c.req.Offline = "node2.lab.test", new(false)
		p, err := roles.PlanModify(s, c.req)
		if err != nil || p.Promotes() != c.want {
			t.Errorf("%s: promotes %t, %v", c.name, p.Promotes(), err)
		}
	}
	s := *worldOf(t, offline, true, 1, 0, 2)
	s.Params.RAPIMayPromote = false
	p, err := roles.PlanModify(&s, roles.Modify{Node: "node2.lab.test", Offline: new(false), RAPI: true})
	if err != nil || p.Promotes() {
		t.Errorf("RAPI promotes it: %v", err)
	}
}

func TestRAPIMayNotPromoteWhenForbidden(t *testing.T) {
	s := world(t, cluster.Flags{MasterCapable: true, Drained: true}, 0, 1, 5)
	open, err := roles.PlanModify(s, roles.Modify{Node: "node2.lab.test", MasterCandidate: new(true), RAPI: true})
	if err != nil || !open.Promotes() {
		t.Fatalf("by default RAPI may promote: %v", err)
	}
	closed := *s
	closed.Params.RAPIMayPromote = false
	for _, r := range []roles.Modify{
		{Node: "node2.lab.test", MasterCandidate: new(true), RAPI: true},
		{Node: "node3.lab.test", Offline: new(true), AutoPromote: true, RAPI: true},
		{Node: "node2.lab.test", MasterCapable: new(false), RAPI: true},
	} {
		if p, err := roles.PlanModify(&closed, r); err == nil {
			t.Errorf("%s over RAPI gives %+v", describe(r), p.Steps)
		}
	}
	p, err := roles.PlanModify(&closed, roles.Modify{Node: "node2.lab.test", Drained: new(false), RAPI: true})
	if err != nil || p.Promotes() {
		t.Errorf("undraining over RAPI: %v, promotes: %t", err, p.Promotes())
	}
	if p, err := roles.PlanModify(&closed, roles.Modify{Node: "node2.lab.test", Drained: new(false)}); err != nil || !p.Promotes() {
		t.Errorf("undraining on the local socket: %v, promotes: %t", err, p.Promotes())
	}
}

func TestPlanRemove(t *testing.T) {
	s := world(t, cluster.Flags{MasterCapable: true, MasterCandidate: true}, 0, 1, 2)
	var e *roles.PrereqError
	if _, err := roles.PlanRemove(s, "node1.lab.test"); !errors.As(err, &e) || e.Class != roles.WrongInput ||
		e.Msg != "Node is the master node, failover to another node is required" {
		t.Fatalf("removing the master: %v", err)
	}
	p, err := roles.PlanRemove(s, "node2.lab.test")
	if err != nil || !p.Demotes() || !p.Remove {
		t.Fatalf("%+v, %v", p, err)
	}
	kinds := []roles.StepKind{}
	for _, st := range p.Steps {
		kinds = append(kinds, st.Kind)
	}
	if want := []roles.StepKind{roles.StepCommit, roles.StepPublish, roles.StepLeave, roles.StepPool}; !slices.Equal(kinds, want) {
		t.Fatalf("steps %v, want %v", kinds, want)
	}
	if list, want := roles.PlanPool(s, statetest.ID(2)); want != 1 || len(list) != 1 || list[0] != statetest.ID(3) {
		t.Fatalf("the pool takes %d of %v", want, list)
	}
}

func TestPlanJoinFillsThePool(t *testing.T) {
	for _, c := range []struct {
		name       string
		flags      cluster.Flags
		candidates int
		pool       int
		want       bool
	}{
		{"room", cluster.Flags{MasterCapable: true}, 0, 5, true},
		{"full", cluster.Flags{MasterCapable: true}, 1, 2, false},
		{"incapable", cluster.Flags{}, 0, 5, false},
		{"drained", cluster.Flags{MasterCapable: true, Drained: true}, 0, 5, false},
		{"candidate already", cluster.Flags{MasterCapable: true, MasterCandidate: true}, 0, 5, false},
	} {
		s := world(t, c.flags, c.candidates, 0, c.pool)
		p, err := roles.PlanJoin(s, statetest.ID(2))
		if err != nil || p.Promotes() != c.want || p.NoOp() == c.want {
			t.Errorf("%s: promotes %t, want %t (%v)", c.name, p.Promotes(), c.want, err)
		}
		if q, err := roles.PlanPromote(s, statetest.ID(2)); err != nil || q.Promotes() != (c.want || c.name == "full") {
			t.Errorf("%s: PlanPromote %+v, %v", c.name, q.Steps, err)
		}
	}
}

func TestPoolNeverShrinksByItself(t *testing.T) {
	s := world(t, cluster.Flags{MasterCapable: true, MasterCandidate: true}, 2, 1, 1)
	if list, want := roles.PlanPool(s); want != 0 || list != nil {
		t.Fatalf("a pool of 4 that should be 1 takes %d of %v", want, list)
	}
	m, ok := roles.SurplusNotice(s)
	if !ok || m.Text != "Note: more nodes are candidates (4) than desired (1)" {
		t.Fatalf("%q, %t", m.Text, ok)
	}
	if got := roles.PromotedNotice([]cluster.Name{"a.b", "c.d"}).String(); got != " - INFO: Promoted nodes to master candidate role: a.b, c.d" {
		t.Fatal(got)
	}
}

// TestPlannedChangeApplies commits what is planned: the state accepts every
// demotion plan as it is.
func TestPlannedChangeApplies(t *testing.T) {
	l := statetest.New(t)
	for i := 2; i <= 4; i++ {
		l.Add(i)
		l.Promote(i)
	}
	l.Do(state.KindSetVoters, state.SetVoters{Voters: ids(1, 2, 3)})
	p, err := roles.PlanModify(l.S, roles.Modify{Node: "node3.lab.test", Offline: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	l.Do(state.KindNodeChange, p.Change(roles.VotersAfterLoss(l.S.Voters(), p.Node, l.S.Master, nil)))
	if got := l.S.Voters(); !slices.Equal(got, ids(1)) || l.S.Role(p.Node) != p.NewRole {
		t.Fatalf("voters %v, role %s", got, l.S.Role(p.Node))
	}
}
