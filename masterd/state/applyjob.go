package state

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

var null = json.RawMessage("null")

func (c *JobSubmit) apply(d *draft) error {
	if err := c.check(); err != nil {
		return err
	}
	if active := len(d.index.active); active >= MaxActiveJobs {
		return cluster.Errorf(cluster.CodeBusy, "%d jobs are queued or running, the most there may be", active).
			WithHint("Wait for some of them, or cancel some: gnt-job list")
	}
	j := &Job{
		ID: d.NextJob, Status: JobQueued, Ops: c.Ops, Summary: c.Summary,
		OpStatus: slices.Repeat([]JobStatus{JobQueued}, len(c.Ops)),
		OpResult: slices.Repeat([]json.RawMessage{null}, len(c.Ops)),
		Log:      slices.Repeat([][]LogEntry{{}}, len(c.Ops)),
		Received: d.now, Actor: d.actor, RequestID: d.requestID, Step: c.Step, Data: c.Data,
		Progress: []Progress{}, Unreachable: []Unreachable{},
	}
	d.NextJob++
	d.putJob(j)
	d.res.JobID = j.ID
	return nil
}

func (c *JobSubmit) check() error {
	if len(c.Ops) == 0 || len(c.Ops) > MaxOps || len(c.Summary) != len(c.Ops) {
		return badFormat("job: want 1 to %d opcodes with a summary each", MaxOps)
	}
	for i, op := range c.Ops {
		if len(op) > MaxOp || !bytes.HasPrefix(op, []byte("{")) {
			return badFormat("job: opcode %d is not an object of at most %d bytes", i, MaxOp)
		}
		if len(c.Summary[i]) > MaxSummary {
			return badFormat("job: summary over %d bytes", MaxSummary)
		}
	}
	return checkResume(c.Step, c.Data)
}

func checkResume(step string, data json.RawMessage) error {
	if len(step) > MaxStep || len(data) > MaxData {
		return badFormat("job: step over %d or data over %d bytes", MaxStep, MaxData)
	}
	return nil
}

func (u *JobUpdate) apply(d *draft) error { return d.linkJob(u) }

// linkJob applies an update that came with another command, or none. A job
// that has ended refuses it, and with it the whole command: so a job that was
// canceled changes nothing any more.
func (d *draft) linkJob(u *JobUpdate) error {
	if u == nil {
		return nil
	}
	old := d.Jobs[u.ID]
	if old == nil {
		return cluster.Errorf(cluster.CodeNotFound, "job %d does not exist", u.ID)
	}
	if err := u.check(old); err != nil {
		return err
	}
	j := *old
	u.moveTo(&j, d)
	u.appendLog(&j, d)
	for _, text := range u.Progress {
		j.Progress = append(slices.Clip(j.Progress), Progress{d.now, clip(text, MaxLogText)})
	}
	j.Progress = j.Progress[max(0, len(j.Progress)-MaxProgress):]
	if u.Unreachable != nil {
		j.Unreachable = stampUnreachable(*u.Unreachable)
	}
	set(&j.Error, u.Error)
	set(&j.Step, u.Step)
	j.Error = clip(j.Error, MaxError)
	if u.Data != nil {
		j.Data = u.Data
	}
	d.putJob(&j)
	d.res.JobID = cmp.Or(d.res.JobID, j.ID)
	d.forgetEnded()
	return nil
}

func (u *JobUpdate) check(j *Job) error {
	if j.Status.Ended() {
		return conflict("job %d has ended: %s", j.ID, j.Status)
	}
	if u.Status != "" && !j.Status.mayBecome(u.Status) {
		return conflict("job %d cannot go from %s to %.20q", j.ID, j.Status, u.Status)
	}
	if u.OpStatus != nil && len(u.OpStatus) != len(j.Ops) || u.OpResult != nil && len(u.OpResult) != len(j.Ops) {
		return badFormat("job %d has %d opcodes; want a status and a result for each", j.ID, len(j.Ops))
	}
	for _, s := range u.OpStatus {
		if !s.Valid() {
			return badFormat("job %d: opcode status %.20q", j.ID, s)
		}
	}
	for _, r := range u.OpResult {
		if len(r) > MaxOp {
			return cluster.Errorf(cluster.CodeTooLarge, "job %d: result over %d bytes", j.ID, MaxOp)
		}
	}
	for _, l := range u.Log {
		if l.Op < 0 || l.Op >= len(j.Ops) {
			return badFormat("job %d has no opcode %d", j.ID, l.Op)
		}
	}
	if u.Unreachable != nil {
		if err := checkUnreachable(*u.Unreachable); err != nil {
			return err
		}
	}
	step := ""
	set(&step, u.Step)
	return checkResume(step, u.Data)
}

func checkUnreachable(list []Unreachable) error {
	if len(list) > MaxUnreachable {
		return cluster.Errorf(cluster.CodeTooLarge, "more than %d unreachable nodes", MaxUnreachable)
	}
	for _, u := range list {
		for _, t := range []*time.Time{u.RPCUntil, u.SSHUntil} {
			if t != nil && !validTime(candmap.Stamp(*t)) {
				return badFormat("unreachable node %.40q: a time out of this era", u.Node)
			}
		}
	}
	return nil
}

// moveTo changes the status of the job and of its ops.
func (u *JobUpdate) moveTo(j *Job, d *draft) {
	j.OpStatus = slices.Clone(j.OpStatus)
	if u.Status != "" {
		j.Status = u.Status
		for i, s := range j.OpStatus {
			if !s.Ended() {
				j.OpStatus[i] = u.Status
			}
		}
	}
	if u.OpStatus != nil {
		j.OpStatus = u.OpStatus
	}
	if u.OpResult != nil {
		j.OpResult = u.OpResult
	}
	if j.Start.IsZero() && j.Status == JobRunning {
		j.Start = d.now
	}
	if j.Status.Ended() {
		j.End = d.now
	}
}

// appendLog appends to the logs of the ops and drops the oldest lines of the
// job when it has too many.
func (u *JobUpdate) appendLog(j *Job, d *draft) {
	if len(u.Log) == 0 {
		return
	}
	j.Log = slices.Clone(j.Log)
	for _, l := range u.Log {
		j.LogSerial++
		e := LogEntry{j.LogSerial, d.now, clip(cmp.Or(l.Type, "message"), MaxStep), clip(l.Text, MaxLogText)}
		j.Log[l.Op] = append(slices.Clip(j.Log[l.Op]), e)
	}
	for entries, size := logSize(j); entries > MaxLogEntries || size > MaxLogBytes; entries-- {
		size -= dropOldest(j)
	}
}

func logSize(j *Job) (entries, size int) {
	for _, op := range j.Log {
		entries += len(op)
		for _, e := range op {
			size += len(e.Text)
		}
	}
	return entries, size
}

// dropOldest removes the entry with the lowest serial and returns its size.
func dropOldest(j *Job) int {
	first := -1
	for i, op := range j.Log {
		if len(op) > 0 && (first < 0 || op[0].Serial < j.Log[first][0].Serial) {
			first = i
		}
	}
	size := len(j.Log[first][0].Text)
	j.Log[first] = j.Log[first][1:]
	return size
}

// forgetEnded keeps the newest MaxEndedJobs of the jobs that have ended.
func (d *draft) forgetEnded() {
	for len(d.index.ended) > MaxEndedJobs {
		d.dropJob(d.index.ended[0])
	}
}

func (c *JobArchive) apply(d *draft) error {
	for _, id := range c.IDs {
		if j := d.Jobs[id]; j != nil && j.Status.Ended() {
			d.dropJob(id)
		}
	}
	return nil
}

// SortedJobs returns the jobs by number.
func (s *State) SortedJobs() []*Job {
	return slices.SortedFunc(maps.Values(s.Jobs), func(a, b *Job) int { return cmp.Compare(a.ID, b.ID) })
}

func stampUnreachable(list []Unreachable) []Unreachable {
	out := make([]Unreachable, len(list))
	for i, u := range list {
		out[i] = Unreachable{Node: clip(u.Node, MaxSummary)}
		if u.RPCUntil != nil {
			out[i].RPCUntil = new(candmap.Stamp(*u.RPCUntil))
		}
		if u.SSHUntil != nil {
			out[i].SSHUntil = new(candmap.Stamp(*u.SSHUntil))
		}
	}
	return out
}

// clip cuts text at n bytes, and mends what is not UTF-8: it must encode to
// itself.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
