package rapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/mux"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
)

// maxWait is how long a wait for a change lasts, as in Ganeti. Meanwhile the
// cluster may lose its quorum, which is no change of the state: every
// checkQuorum a wait looks.
const (
	maxWait     = 10 * time.Second
	checkQuorum = time.Second
)

func jobID(r *http.Request) int64 {
	id, err := strconv.ParseInt(mux.Vars(r)["job"], 10, 64)
	if err != nil {
		return 0 // cannot be: the route has at most 18 digits
	}
	return id
}

func (a *api) jobs(r *http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	if !flag(r, "bulk") {
		list := []link[int64]{}
		for _, j := range s.SortedJobs() {
			list = append(list, link[int64]{j.ID, "/2/jobs/" + strconv.FormatInt(j.ID, 10)})
		}
		return list, nil
	}
	list := []wire.JobHead{}
	for _, j := range s.SortedJobs() {
		list = append(list, jobHead(j))
	}
	return list, nil
}

// unknownJob is Ganeti's answer for a job that does not exist.
type unknownJob struct {
	ID       int64     `json:"id"`
	Ops      *struct{} `json:"ops"`
	Status   *struct{} `json:"status"`
	Summary  *struct{} `json:"summary"`
	OpStatus *struct{} `json:"opstatus"`
	Received *struct{} `json:"received_ts"`
	Start    *struct{} `json:"start_ts"`
	End      *struct{} `json:"end_ts"`
	OpLog    *struct{} `json:"oplog"`
	OpResult *struct{} `json:"opresult"`
}

func (a *api) job(r *http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	if j := s.Jobs[jobID(r)]; j != nil {
		return jobObject(j), nil
	}
	return unknownJob{ID: jobID(r)}, nil
}

func jobHead(j *state.Job) wire.JobHead {
	status := make([]string, len(j.OpStatus))
	for i, s := range j.OpStatus {
		status[i] = string(s)
	}
	out := wire.JobHead{
		ID: j.ID, Ops: j.Ops, Status: string(j.Status), Summary: j.Summary, OpStatus: status,
		ReceivedTS: wire.TimeOf(j.Received), StartTS: wire.TimeOf(j.Start), EndTS: wire.TimeOf(j.End),
		Actor: j.Actor, RequestID: j.RequestID,
	}
	if j.Error != "" {
		out.Error = &j.Error
	}
	return out
}

func jobObject(j *state.Job) wire.Job {
	out := wire.Job{
		JobHead: jobHead(j), OpLog: [][]wire.LogEntry{}, OpResult: j.OpResult, Progress: []wire.Progress{},
		Unreachable: []wire.Unreachable{},
	}
	for _, op := range j.Log {
		out.OpLog = append(out.OpLog, logEntries(op, -1))
	}
	for _, p := range j.Progress {
		out.Progress = append(out.Progress, wire.Progress(p))
	}
	for _, u := range j.Unreachable {
		out.Unreachable = append(out.Unreachable, wire.Unreachable(u))
	}
	return out
}

func logEntries(op []state.LogEntry, after int64) []wire.LogEntry {
	out := []wire.LogEntry{}
	for _, e := range op {
		if e.Serial > after {
			out = append(out, wire.LogEntry{Serial: e.Serial, Time: *wire.TimeOf(e.Time), Type: e.Type, Text: e.Text})
		}
	}
	return out
}

func (a *api) wait(r *http.Request) (any, error) {
	var req wire.WaitRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	limit, look := time.NewTimer(maxWait), time.NewTicker(checkQuorum)
	defer limit.Stop()
	defer look.Stop()
	var seen *state.Job // without news for the caller
	for {
		changed := a.b.Watch() // before State, so that no change is missed
		s, err := a.b.State()
		if err != nil {
			return nil, err
		}
		j := s.Jobs[jobID(r)]
		if j == nil {
			return nil, errNotFound
		}
		if j != seen { // else it was another job that changed
			news, err := newsOf(j, req)
			if news != nil || err != nil {
				return news, err
			}
			seen = j
		}
		select {
		case <-changed:
		case <-look.C:
			if err := a.b.Ready(); errors.Is(err, &cluster.Error{Code: cluster.CodeNoQuorum}) {
				return nil, err
			}
		case <-limit.C:
			return nil, nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}

// newsOf returns what the caller does not know yet, or nil. A job that has
// ended is always news: nobody shall wait for it.
func newsOf(j *state.Job, req wire.WaitRequest) (any, error) {
	info, err := jobFields(j, req.Fields)
	if err != nil {
		return nil, err
	}
	after := int64(-1)
	if req.PreviousLogSerial != nil {
		after = *req.PreviousLogSerial
	}
	lines := []wire.LogEntry{}
	for _, op := range j.Log {
		lines = append(lines, logEntries(op, after)...)
	}
	if !j.Status.Ended() && len(lines) == 0 && sameInfo(info, req.PreviousJobInfo) {
		return nil, nil
	}
	return wire.WaitReply{JobInfo: info, LogEntries: lines}, nil
}

// jobFields returns the fields that were asked for, in order.
func jobFields(j *state.Job, fields []string) ([]json.RawMessage, error) {
	all, err := json.Marshal(jobObject(j))
	if err != nil {
		return nil, fmt.Errorf("encode job %d: %w", j.ID, err)
	}
	var byName map[string]json.RawMessage
	if err := json.Unmarshal(all, &byName); err != nil {
		return nil, fmt.Errorf("encode job %d: %w", j.ID, err)
	}
	out := make([]json.RawMessage, len(fields))
	for i, name := range fields {
		value, ok := byName[name]
		if !ok {
			return nil, badRequest(fmt.Sprintf("Unknown job field '%.64s'", name))
		}
		out[i] = value
	}
	return out, nil
}

// sameInfo compares what the caller knows with what is, however it is spaced.
func sameInfo(info, known []json.RawMessage) bool {
	if known == nil || len(info) != len(known) {
		return false
	}
	for i := range info {
		var have bytes.Buffer
		if json.Compact(&have, known[i]) != nil || !bytes.Equal(have.Bytes(), info[i]) {
			return false
		}
	}
	return true
}
