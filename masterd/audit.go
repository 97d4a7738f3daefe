package masterd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/masterd/state"
	"rolekey/sshkeys"
)

// Reload opens the audit log anew: it may have been renamed.
func (d *Daemon) Reload() { d.audit.Reopen() }

// Audit implements rapi.Backend.
func (d *Daemon) Audit(lines int, since time.Time) ([]json.RawMessage, bool, error) {
	return audit.Tail(d.cfg.Paths.MasterdAudit(), lines, since)
}

// nodeName is what the audit calls this machine: the node's name, or the
// machine's own when it is in no cluster.
func (d *Daemon) nodeName() string {
	if s := d.standing(); s != nil {
		return string(s.name())
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

func (d *Daemon) heldVersion() cluster.Version {
	if s := d.standing(); s != nil {
		return s.keeper.View().At()
	}
	return cluster.Version{}
}

// auditOffice writes down that this node is master now, and at the end that it
// no longer is.
func (l *leader) auditOffice() (end func()) {
	term := fmt.Sprintf("term %d", l.node.Term())
	l.audit.Write(audit.Event{Act: audit.MasterBegan, Op: term})
	return func() { l.audit.Write(audit.Event{Act: audit.MasterEnded, Op: term}) }
}

// commit proposes a command and writes down who asked and what came of it.
func (l *leader) commit(ctx context.Context, kind string, body any, meta state.Meta) (state.Result, error) {
	before := l.node.State()
	result, err := l.propose(ctx, kind, body, meta)
	if err == nil || meta.Actor != selfActor { // what masterd wants by itself it tries again and again
		c := committed{before: before, after: l.node.State(), kind: kind, body: body, result: result}
		if e, ok := c.event(); ok {
			e.Caller = audit.Caller{Actor: meta.Actor, RequestID: meta.RequestID}
			if err != nil {
				e = e.Of(err)
			}
			l.audit.Write(e)
		}
	}
	return result, err
}

// propose lets changes of certificates in one at a time, and only those that were
// computed from the keys that are listed now: see state.NodeCerts. Such a change
// is waited for even if its caller leaves: the next one must see what came of it.
func (l *leader) propose(ctx context.Context, kind string, body any, meta state.Meta) (state.Result, error) {
	c, ok := body.(interface {
		Current(*state.State) (any, error)
	})
	if !ok {
		return l.node.Propose(ctx, kind, body, meta)
	}
	select {
	case l.pinning <- struct{}{}:
	case <-ctx.Done():
		return state.Result{}, context.Cause(ctx)
	}
	defer func() { <-l.pinning }()
	body, err := c.Current(l.node.State())
	if err != nil {
		return state.Result{}, err
	}
	return l.node.Propose(context.WithoutCancel(ctx), kind, body, meta)
}

// selfActor is who asks for what the master does by itself.
const selfActor = "masterd"

// committed is a command, and the states before and after it.
type committed struct {
	before, after *state.State
	kind          string
	body          any
	result        state.Result
}

// event says what a command did, but not who asked; false: nothing that matters.
func (c committed) event() (audit.Event, bool) {
	e := audit.Event{Act: audit.ChangeCommitted, Op: c.kind, Version: c.result.Version}
	switch b := c.body.(type) {
	case state.JobSubmit:
		e.Act, e.Op, e.Target = audit.JobSubmitted, strings.Join(b.Summary, ","), jobName(c.result.JobID)
	case state.JobUpdate:
		return c.jobEnd(b)
	case state.AdmissionCreate:
		e.Act, e.Target = audit.AdmissionCreated, string(b.Record.Name)
		e.After = audit.Values{"record": b.Record.ID.String()}
	case state.AdmissionRevoke:
		e.Act, e.Target = audit.AdmissionRevoked, b.ID.String()
	case state.AdmissionSpent:
		e.Act, e.Target = audit.AdmissionSpent, b.ID.String()
	case state.NodeAdmit:
		e.Act, e.Target = audit.AdmissionUsed, string(b.Name)
		e.After = audit.Values{"record": b.Record.String(), "uuid": b.Node.String()}
	case state.ParamsChange:
		e.Before, e.After = changed(c.before.Params, c.after.Params)
	case state.RAPIUserChange:
		e.Target = b.Name
		if u := c.before.RAPI.User(b.Name); u != nil {
			e.Before = audit.Values{"permission": string(u.Permission)}
		}
		if u := c.after.RAPI.User(b.Name); u != nil {
			e.After = audit.Values{"permission": string(u.Permission)}
		}
	case state.RAPIAdminChange:
		e.Target = b.Name
		if !b.Digest.IsZero() {
			e.After = audit.Values{"permission": string(b.Permission), "digest": b.Digest.String()}
		}
	case state.SetVoters:
		e.Before, e.After = audit.Values{"voters": voterNames(c.before)}, audit.Values{"voters": voterNames(c.after)}
	case state.SetMaster:
		e.Target = nodeName(c.after, b.Node)
		e.Before, e.After = audit.Values{"master": nodeName(c.before, c.before.Master)}, audit.Values{"master": e.Target}
	default:
		c.node(&e)
	}
	return e, true
}

func (c committed) jobEnd(b state.JobUpdate) (audit.Event, bool) {
	e := audit.Event{Act: audit.JobEnded, Target: jobName(b.ID)}
	if j := c.before.Jobs[b.ID]; j != nil {
		e.Op = strings.Join(j.Summary, ",")
	}
	switch b.Status {
	case state.JobCanceled:
		e.Act = audit.JobCanceled
	case state.JobError:
		e.Outcome = audit.Failed
	}
	return e, b.Status.Ended()
}

func jobName(id int64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("job %d", id)
}

// node says what became of the node that a command is about.
func (c committed) node(e *audit.Event) {
	id := c.result.Node
	switch b := c.body.(type) {
	case state.NodeChange:
		id = b.Node
	case state.NodeAddress:
		id = b.Node
	case state.NodeCerts:
		id, e.Op = b.Node, e.Op+" "+b.Kind
	case state.NodeRemove:
		id = b.Node
	case state.HostKeysClaim:
		id = b.Node
	case state.HostKeysDecision:
		id = b.Node
	}
	if id.IsZero() {
		return
	}
	if e.Target = nodeName(c.before, id); e.Target == "" {
		e.Target = nodeName(c.after, id)
	}
	e.Before, e.After = changed(nodeValues(c.before, id), nodeValues(c.after, id))
}

// shown is what the audit shows of a node.
type shown struct {
	Role string `json:"role"`
	cluster.Flags
	Voter       bool          `json:"voter"`
	Name        cluster.Name  `json:"name"`
	Addresses   any           `json:"addresses"`
	Ports       cluster.Ports `json:"ports"`
	Incarnation uint64        `json:"incarnation"`
	Tags        []string      `json:"tags"`
	HostKeys    string        `json:"host_keys"` // fingerprints, and the port of sshd is among Ports
	Pending     string        `json:"pending_host_keys,omitempty"`
	PendingPort uint16        `json:"pending_ssh_port,omitempty"`
}

func nodeValues(s *state.State, id cluster.NodeID) any {
	n := s.Node(id)
	if n == nil {
		return nil
	}
	out := shown{
		n.Flags.Role(s.Master == id).String(), n.Flags, n.Voter, n.Name, n.Addresses, n.Ports, n.Incarnation, n.Tags,
		fingerprints(n.HostKeys), "", 0,
	}
	if p := n.PendingHostKeys; p != nil {
		out.Pending, out.PendingPort = fingerprints(p.Keys), p.Port
		if p.Rejected {
			out.Pending = "rejected: " + out.Pending
		}
	}
	return out
}

func fingerprints(keys []cluster.SSHKey) string {
	var list []string
	for _, k := range keys {
		list = append(list, sshkeys.Fingerprint(k))
	}
	return strings.Join(list, ",")
}

// changed returns the members that differ between two documents of one type,
// as they were and as they are. What is not there has no members.
func changed(before, after any) (was, is audit.Values) {
	a, b := valuesOf(before), valuesOf(after)
	was, is = audit.Values{}, audit.Values{}
	for k, v := range a {
		if b[k] != v {
			was[k] = v
		}
	}
	for k, v := range b {
		if a[k] != v {
			is[k] = v
		}
	}
	return was, is
}

// valuesOf renders the members of a document; strings without quotation marks.
func valuesOf(v any) audit.Values {
	raw := map[string]json.RawMessage{}
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &raw)
	}
	if err != nil {
		return nil // no document, or none of ours
	}
	out := audit.Values{}
	for k, v := range raw {
		var s string
		if json.Unmarshal(v, &s) != nil {
			s = string(v)
		}
		out[k] = s
	}
	return out
}

func nodeName(s *state.State, id cluster.NodeID) string {
	if n := s.Node(id); n != nil {
		return string(n.Name)
	}
	return ""
}

func voterNames(s *state.State) string {
	var names []string
	for _, n := range s.SortedNodes() {
		if n.Voter {
			names = append(names, string(n.Name))
		}
	}
	return strings.Join(names, ",")
}
