package state

import (
	"encoding/json"
	"slices"
	"time"
)

// JobStatus is Ganeti's status of a job or of one of its opcodes.
type JobStatus string

// The statuses.
const (
	JobQueued    JobStatus = "queued"
	JobWaiting   JobStatus = "waiting"
	JobRunning   JobStatus = "running"
	JobCanceling JobStatus = "canceling"
	JobCanceled  JobStatus = "canceled"
	JobSuccess   JobStatus = "success"
	JobError     JobStatus = "error"
)

// jobMoves lists where a job may go from each status; from the ends nowhere.
// Staying is always allowed until the end.
var jobMoves = map[JobStatus][]JobStatus{
	JobQueued:    {JobWaiting, JobRunning, JobCanceling, JobCanceled, JobSuccess, JobError},
	JobWaiting:   {JobQueued, JobRunning, JobCanceling, JobCanceled, JobSuccess, JobError},
	JobRunning:   {JobWaiting, JobCanceling, JobCanceled, JobSuccess, JobError},
	JobCanceling: {JobCanceled, JobSuccess, JobError},
	JobCanceled:  {},
	JobSuccess:   {},
	JobError:     {},
}

// Ended reports whether nothing more happens in this status.
func (s JobStatus) Ended() bool { return s == JobCanceled || s == JobSuccess || s == JobError }

// JobStatuses lists all of them, in the order of a job's life.
func JobStatuses() []JobStatus {
	return []JobStatus{JobQueued, JobWaiting, JobRunning, JobCanceling, JobCanceled, JobSuccess, JobError}
}

// Valid reports whether s is one of the statuses.
func (s JobStatus) Valid() bool {
	_, ok := jobMoves[s]
	return ok
}

func (s JobStatus) mayBecome(t JobStatus) bool {
	return s == t && !s.Ended() || slices.Contains(jobMoves[s], t)
}

// Job is a change that is being made, with what is needed to resume it on the
// next master. Zero times mean "not yet".
type Job struct {
	ID          int64             `json:"id"`
	Status      JobStatus         `json:"status"`
	Ops         []json.RawMessage `json:"ops"`
	Summary     []string          `json:"summary"` // such as NODE_SET_PARAMS(node2.lab.test)
	OpStatus    []JobStatus       `json:"op_status"`
	OpResult    []json.RawMessage `json:"op_result"` // null until an op has one
	Log         [][]LogEntry      `json:"log"`       // of each op
	LogSerial   int64             `json:"log_serial"`
	Received    time.Time         `json:"received"`
	Start       time.Time         `json:"start,omitzero"`
	End         time.Time         `json:"end,omitzero"`
	Actor       string            `json:"actor"`
	RequestID   string            `json:"request_id"`
	Step        string            `json:"step"`
	Data        json.RawMessage   `json:"data,omitempty"`
	Progress    []Progress        `json:"progress"`
	Unreachable []Unreachable     `json:"unreachable"`
	Error       string            `json:"error"`
}

// LogEntry is a line of an opcode's log. Serials count through the whole job.
type LogEntry struct {
	Serial int64     `json:"serial"`
	Time   time.Time `json:"time"`
	Type   string    `json:"type"`
	Text   string    `json:"text"`
}

// Progress says how far a job has spread.
type Progress struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// Unreachable is a node that has not confirmed a change, and when its old
// trust ends by itself. No time means: no bound.
type Unreachable struct {
	Node     string     `json:"node"`
	RPCUntil *time.Time `json:"rpc_until"`
	SSHUntil *time.Time `json:"ssh_until"`
}
