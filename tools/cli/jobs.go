package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolekey/masterd/query"
	"rolekey/masterd/rapi/wire"
)

// Job makes the commands of gnt-job.
func Job(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "gnt-job",
		Short:   "Look at jobs, wait for them, end them",
		Example: "  gnt-job list --running\n  gnt-job info 17 --json",
	}
	cmd.AddCommand(
		a.listJobsCommand(), listFieldsCommand(a, query.Jobs, "job"), a.jobInfoCommand(), a.watchCommand(), a.waitCommand(),
		a.cancelCommand(), a.archiveCommand(), a.autoarchiveCommand(),
	)
	return cmd
}

// jobReport is the JSON of gnt-job info.
type jobReport struct {
	ID          int64              `json:"id"`
	Status      string             `json:"status"`
	Summary     []string           `json:"summary"`
	Ops         []json.RawMessage  `json:"ops"`
	Progress    []wire.Progress    `json:"progress"`
	Unreachable []wire.Unreachable `json:"unreachable"`
	Error       *string            `json:"error"`
	OpStatus    []string           `json:"opstatus"`
	OpResult    []json.RawMessage  `json:"opresult"`
	Log         []logLine          `json:"log"`
	Received    *time.Time         `json:"received"`
	Start       *time.Time         `json:"start"`
	End         *time.Time         `json:"end"`
	Actor       string             `json:"actor"`
	RequestID   string             `json:"request_id"`
}

type logLine struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

func reportOf(j wire.Job) jobReport {
	r := jobReport{
		ID: j.ID, Status: j.Status, Summary: j.Summary, Ops: j.Ops, Progress: j.Progress, Unreachable: j.Unreachable,
		Error: j.Error, OpStatus: j.OpStatus, OpResult: j.OpResult, Log: []logLine{}, Actor: j.Actor, RequestID: j.RequestID,
	}
	for _, op := range j.OpLog {
		for _, l := range op {
			r.Log = append(r.Log, logLine{l.Time.Time(), l.Text})
		}
	}
	for to, from := range map[**time.Time]*wire.Time{&r.Received: j.ReceivedTS, &r.Start: j.StartTS, &r.End: j.EndTS} {
		if from != nil {
			*to = new(from.Time())
		}
	}
	return r
}

func (a *app) jobInfoCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "info ID...",
		Aliases: []string{"show"},
		Short:   "Show jobs, how far they have spread, and who has not confirmed",
		Example: "  gnt-job info 17\n  gnt-job info 17 --json | jq '.unreachable[]'",
		Args:    atLeastOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			var list []jobReport
			for _, arg := range args {
				var j wire.Job
				if err := a.getJob(cmd, arg, &j); err != nil {
					return err
				}
				list = append(list, reportOf(j))
			}
			if a.asJSON && len(list) == 1 {
				return a.printJSON(list[0])
			}
			if a.asJSON {
				return a.printJSON(list)
			}
			items := make([][]item, len(list))
			for i, r := range list {
				items[i] = r.items()
			}
			printList(a.out, items)
			return nil
		},
	})
}

// getJob reads a job that must exist.
func (a *app) getJob(cmd *cobra.Command, arg string, j *wire.Job) error {
	id, err := jobID(arg)
	if err != nil {
		return err
	}
	if err := a.client.get(cmd.Context(), "/2/jobs/"+strconv.FormatInt(id, 10), j); err != nil {
		return err
	}
	if j.Status == "" { // Ganeti's answer for what is not there
		return noJob(id)
	}
	return nil
}

func (r jobReport) items() []item {
	out := []item{{"Job ID", r.ID}, {"Status", r.Status}, {"Summary", strings.Join(r.Summary, ", ")}}
	for _, t := range []struct {
		name string
		time *time.Time
	}{{"Received", r.Received}, {"Processing start", r.Start}, {"Processing end", r.End}} {
		if t.time != nil {
			out = append(out, item{t.name, when(*t.time)})
		}
	}
	if r.Start != nil && r.End != nil {
		out = append(out, item{"Total processing time", fmt.Sprintf("%.2f seconds", r.End.Sub(*r.Start).Seconds())})
	}
	out = append(out, item{"Submitted by", r.Actor}, item{"Request", r.RequestID})
	if r.Error != nil {
		out = append(out, item{"Error", *r.Error})
	}
	var ops, log, progress, missing []string
	for i, op := range r.Ops {
		ops = append(ops, fmt.Sprintf("%s: %s", r.OpStatus[i], op))
	}
	for _, l := range r.Log {
		log = append(log, when(l.Time)+" "+strings.TrimSpace(l.Text))
	}
	for _, p := range r.Progress {
		progress = append(progress, when(p.Time)+" "+p.Text)
	}
	for _, u := range r.Unreachable {
		missing = append(missing, fmt.Sprintf("%s: RPC trust ends: %s; SSH trust ends: %s", u.Node, bound(u.RPCUntil), bound(u.SSHUntil)))
	}
	return append(out, item{"Opcodes", ops}, item{"Log", log}, item{"Progress", progress}, item{"Unreachable", missing})
}
