package masterd

import (
	"testing"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// TestCommittedEvents checks what the audit says of commands.
func TestCommittedEvents(t *testing.T) {
	n := &state.Node{UUID: cluster.NewUUID(), Name: "node2.example.com", Flags: cluster.Flags{MasterCandidate: true, MasterCapable: true}, Voter: true}
	demoted := *n
	demoted.Flags.MasterCandidate, demoted.Voter = false, false
	before := &state.State{Nodes: map[cluster.NodeID]*state.Node{n.UUID: n}, Jobs: map[int64]*state.Job{7: {ID: 7, Summary: []string{"NODE_REMOVE(x)"}}}}
	after := &state.State{Nodes: map[cluster.NodeID]*state.Node{n.UUID: &demoted}}
	none := &state.State{}
	for name, c := range map[string]struct {
		in      committed
		want    audit.Event
		silent  bool
		was, is audit.Values
	}{
		"demotion": {
			in:   committed{before: before, after: after, kind: state.KindNodeChange, body: state.NodeChange{Node: n.UUID}},
			want: audit.Event{Act: audit.ChangeCommitted, Op: "node-change", Target: "node2.example.com"},
			was:  audit.Values{"role": "master-candidate", "master_candidate": "true", "voter": "true"},
			is:   audit.Values{"role": "regular", "master_candidate": "false", "voter": "false"},
		},
		"removal": {
			in:   committed{before: before, after: none, kind: state.KindNodeRemove, body: state.NodeRemove{Node: n.UUID}},
			want: audit.Event{Act: audit.ChangeCommitted, Op: "node-remove", Target: "node2.example.com"},
			was:  audit.Values{"role": "master-candidate", "name": "node2.example.com"},
		},
		"voters": {
			in:   committed{before: before, after: after, kind: state.KindSetVoters, body: state.SetVoters{}},
			want: audit.Event{Act: audit.ChangeCommitted, Op: "set-voters"},
			was:  audit.Values{"voters": "node2.example.com"}, is: audit.Values{"voters": ""},
		},
		"submitted": {
			in:   committed{before: before, after: after, body: state.JobSubmit{Summary: []string{"A", "B"}}, result: state.Result{JobID: 8}},
			want: audit.Event{Act: audit.JobSubmitted, Op: "A,B", Target: "job 8"},
		},
		"ended": {
			in:   committed{before: before, after: after, body: state.JobUpdate{ID: 7, Status: state.JobError}},
			want: audit.Event{Act: audit.JobEnded, Outcome: audit.Failed, Op: "NODE_REMOVE(x)", Target: "job 7"},
		},
		"canceled": {
			in:   committed{before: before, after: after, body: state.JobUpdate{ID: 7, Status: state.JobCanceled}},
			want: audit.Event{Act: audit.JobCanceled, Op: "NODE_REMOVE(x)", Target: "job 7"},
		},
		"progress": {in: committed{before: before, after: after, body: state.JobUpdate{ID: 7}}, silent: true},
	} {
		e, ok := c.in.event()
		if ok == c.silent {
			t.Errorf("%s: written %v", name, ok)
		}
		if ok && (e.Act != c.want.Act || e.Outcome != c.want.Outcome || e.Op != c.want.Op || e.Target != c.want.Target) {
			t.Errorf("%s: %+v", name, e)
		}
		for k, v := range c.was {
			if e.Before[k] != v {
				t.Errorf("%s: before %v", name, e.Before)
			}
		}
		for k, v := range c.is {
			if e.After[k] != v || e.After["name"] != "" {
				t.Errorf("%s: after %v", name, e.After)
			}
		}
	}
}

// The commands that hold secrets show none of them.
func TestCommittedEventsHoldNoSecrets(t *testing.T) {
	l := statetest.New(t)
	e, _ := committed{before: l.S, after: l.S, kind: state.KindGossipChange, body: state.GossipChange{Key: cluster.NewSecret([]byte("gossip secret"))}}.event()
	if len(e.Before)+len(e.After) != 0 || e.Target != "" {
		t.Errorf("a change of the gossip key shows %+v", e)
	}
}
