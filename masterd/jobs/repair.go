package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/masterd/verify"
	"rolekey/rpc"
)

// repair puts right what a report found and what can be put right without
// danger, says what it did, and says for the rest what the administrator has to
// do. It returns whether nothing is left. It commits nothing about itself: the
// next master verifies anew. Each repair may be done twice.
func (r *run) repair(ctx context.Context, report verify.Report) (bool, error) {
	r.say("* Repairing")
	m := mender{r: r, report: report, done: map[string]error{}}
	whole, put := true, 0
	for _, f := range report.Findings {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		cured := m.mend(ctx, f)
		whole = whole && (cured || !f.Error())
		if cured {
			put++
		}
		if err := r.flush(ctx); err != nil {
			return false, err
		}
	}
	if !r.dry {
		r.say("* Summary")
		r.say("  " + outcome(put, len(report.Findings)))
	}
	return whole, r.flush(ctx)
}

// outcome is what a repair comes to, for somebody who reads nothing else.
func outcome(put, all int) string {
	if put == all {
		return fmt.Sprintf("Put right: all of %d. gnt-cluster verify tells, once the jobs that follow have ended, whether all is well.", all)
	}
	return fmt.Sprintf("Put right: %d of %d. What is left to do by hand is said above.", put, all)
}

// mender does the repairs of one report, each once.
type mender struct {
	r      *run
	report verify.Report
	done   map[string]error // by repair and, where it is about one, node
}

// mend puts one finding right and reports whether that worked.
func (m *mender) mend(ctx context.Context, f *verify.Finding) bool {
	if f.Repair == verify.RepairNone {
		m.r.say(m.report.Line("NOTICE", f.Code, f.Kind, f.Name, "not repaired: "+f.Remedy))
		return false
	}
	what, do := m.way(f)
	key := string(f.Repair)
	if f.Repair != verify.RepairPush && f.Repair != verify.RepairPool && f.Repair != verify.RepairSSHKeys {
		key += " " + f.Name
	}
	err, again := m.done[key]
	if !again {
		if m.r.dry {
			m.r.wouldDo("see to it that " + what + " (" + subject(f) + ")")
		} else {
			err = do(ctx)
		}
		m.done[key] = err
	}
	switch {
	case m.r.dry:
		return false
	case err != nil:
		if !again {
			m.r.say(m.report.Line("WARNING", f.Code, f.Kind, f.Name, fmt.Sprintf("not repaired: %s: %v", what, err)))
		}
		return false
	case !again:
		m.r.say(m.report.Line("REPAIRED", f.Code, f.Kind, f.Name, what))
	}
	if f.Rest != "" {
		m.r.say(m.report.Line("NOTICE", f.Code, f.Kind, f.Name, "left to do by hand: "+f.Rest))
	}
	return true
}

func subject(f *verify.Finding) string {
	if f.Name == "" {
		return "the cluster"
	}
	return f.Name
}

// way returns what a repair does, and the means.
func (m *mender) way(f *verify.Finding) (string, func(context.Context) error) {
	c := m.r.c
	switch f.Repair {
	case verify.RepairPush:
		return "map and roster were delivered anew, and the files rewritten that follow from them", func(ctx context.Context) error { return m.push(ctx, f) }
	case verify.RepairNode:
		return "it put its own files right", func(ctx context.Context) error { return m.ofNode(ctx, f.Node) }
	case verify.RepairKeys:
		return "its keys of a master candidate were destroyed", func(ctx context.Context) error {
			reply, err := c.KeyDestroy(ctx, f.Node)
			return Remains(cluster.Name(f.Name), reply, err)
		}
	case verify.RepairRekey:
		return "a job that follows gives it new keys", func(ctx context.Context) error {
			return m.queue(ctx, "NODE_REKEY("+f.Name+")", map[string]string{"OP_ID": OpNodeRekey, "node_name": f.Name})
		}
	case verify.RepairSSHKeys:
		return "a job that follows gives it the SSH key that it should have", func(ctx context.Context) error {
			return m.queue(ctx, "CLUSTER_SSH_KEYS", map[string]string{"OP_ID": OpClusterKeys})
		}
	case verify.RepairPool:
		return "the candidate pool was filled", m.fill
	}
	return string(f.Repair), func(context.Context) error { return errors.New("this repair is not known") }
}

// push delivers everything to all nodes. It is done for this one, unless that
// does not answer; others say so for themselves.
func (m *mender) push(ctx context.Context, f *verify.Finding) error {
	spread, err := m.r.c.Redistribute(ctx)
	if err != nil {
		return err
	}
	m.r.report(spread)
	// What some sshd does is no matter of files, and a finding of its own.
	problems := slices.DeleteFunc(slices.Clone(spread.Problems), func(p string) bool { return strings.Contains(p, ": "+rpc.SSHDProblem) })
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	if slices.ContainsFunc(spread.Unreachable, func(u state.Unreachable) bool { return u.Node == f.Name }) {
		return errors.New("the node does not answer")
	}
	return nil
}

func (m *mender) ofNode(ctx context.Context, id cluster.NodeID) error {
	if m.r.c.State().FeatureLevel < state.LevelRepair {
		return fmt.Errorf("it needs feature level %d: upgrade rolekey on all nodes", state.LevelRepair)
	}
	reply, err := m.r.c.Repair(ctx, id)
	if err == nil && len(reply.Problems) > 0 {
		err = errors.New(strings.Join(reply.Problems, "; "))
	}
	return err
}

// queue submits a job that this one need not wait for, unless it is there.
func (m *mender) queue(ctx context.Context, summary string, op map[string]string) error {
	for j := range m.r.c.State().ActiveJobs() {
		if slices.Equal(j.Summary, []string{summary}) {
			return nil
		}
	}
	raw, err := json.Marshal(op)
	if err != nil {
		return err
	}
	body := state.JobSubmit{Ops: []json.RawMessage{raw}, Summary: []string{summary}}
	_, err = m.r.c.Change(ctx, state.KindJobSubmit, body, m.r.job.Actor, m.r.job.RequestID)
	return err
}

func (m *mender) fill(ctx context.Context) error {
	if err := m.r.fillPool(ctx, cluster.NodeID{}); err != nil {
		return err
	}
	if p := roles.Pool(m.r.c.State()); p.Now < p.Should {
		return fmt.Errorf("%d of %d", p.Now, p.Should)
	}
	return nil
}
