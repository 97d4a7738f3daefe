package query

import (
	"encoding/json"
	"strings"

	"rolekey/masterd/rapi/wire"
)

// Jobs is what can be listed of jobs.
var Jobs = newTable([]Field[job]{
	{Name: "id", Title: "ID", Kind: KindNumber, Doc: "Number, never used again", Cell: always(func(j job) any { return j.ID })},
	{Name: "status", Title: "Status", Doc: "queued, waiting, running, canceling, canceled, success or error", Cell: always(func(j job) any { return j.Status })},
	{Name: "summary", Title: "Summary", Kind: KindList, Doc: "What each opcode is about", Cell: always(func(j job) any { return j.Summary })},
	{Name: "ops", Title: "OpCodes", Kind: KindOther, Doc: "The opcodes", Cell: jobOps},
	{Name: "opstatus", Title: "OpStatus", Kind: KindList, Doc: "Status of each opcode", Cell: always(func(j job) any { return j.OpStatus })},
	jobTime("received_ts", "Received", "When it was submitted", func(j job) *wire.Time { return j.ReceivedTS }),
	jobTime("start_ts", "Start", "When it began", func(j job) *wire.Time { return j.StartTS }),
	jobTime("end_ts", "End", "When it ended", func(j job) *wire.Time { return j.EndTS }),
	{Name: "actor", Title: "Actor", Doc: "Who submitted it", Cell: always(func(j job) any { return j.Actor })},
	{Name: "request_id", Title: "RequestID", Doc: "Id of the request that submitted it, as in logs and audit", Cell: always(func(j job) any { return j.RequestID })},
	{Name: "error", Title: "Error", Doc: "Why it failed", Cell: jobError},
})

type job = wire.JobHead

// jobOps shows people the names of the opcodes.
func jobOps(j job) Cell { return Cell{Value: j.Ops, Text: strings.Join(opIDs(j.Ops), ",")} }

func opIDs(ops []json.RawMessage) []string {
	out := make([]string, len(ops))
	for i, op := range ops {
		var head struct {
			ID string `json:"OP_ID"`
		}
		if json.Unmarshal(op, &head) == nil {
			out[i] = head.ID
		}
	}
	return out
}

func jobError(j job) Cell {
	if j.Error == nil {
		return Cell{Status: StatusUnavailable}
	}
	return Cell{Value: *j.Error}
}

// jobTime makes the field of a moment that may not have come yet.
func jobTime(name, title, doc string, moment func(job) *wire.Time) Field[job] {
	return Field[job]{
		Name: name, Title: title, Kind: KindTime, Doc: doc,
		Cell: func(j job) Cell {
			t := moment(j)
			if t == nil {
				return Cell{Status: StatusUnavailable}
			}
			return Cell{Value: t.Time()}
		},
		Wire: func(j job) any { return moment(j) },
	}
}
