package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

// jobState is what a command wants to know of its job.
type jobState struct {
	status      string
	result      []json.RawMessage // of the opcodes
	progress    []wire.Progress
	unreachable []wire.Unreachable
	err         *string
}

// jobFields are the fields of jobState in the form of RAPI.
var jobFields = []string{"status", "opresult", "progress", "unreachable", "error"}

func (j *jobState) read(info []json.RawMessage) error {
	*j = jobState{}
	into := []any{&j.status, &j.result, &j.progress, &j.unreachable, &j.err}
	if len(info) != len(into) {
		return fmt.Errorf("read job: %d fields, want %d", len(info), len(into))
	}
	for i, field := range info {
		if err := json.Unmarshal(field, into[i]); err != nil {
			return fmt.Errorf("read job: %w", err)
		}
	}
	return nil
}

func (j *jobState) ended() bool {
	return j.status == "success" || j.status == "error" || j.status == "canceled"
}

// follower is told what happens to a job while it is waited for.
type follower struct {
	line     func(wire.LogEntry)
	progress func(wire.Progress)
	news     func(*jobState) // after the others; nil: nobody asks
}

// A job outlives its master. While a new one is elected, or the daemon starts
// again, a waiting command asks again, at this pace and for so long.
const (
	patience = 15 * time.Second
	askAgain = 250 * time.Millisecond
)

// news waits for news of a job; nil means that there are none yet.
func (a *app) news(ctx context.Context, id int64, req wire.WaitRequest) (*wire.WaitReply, error) {
	var end time.Time // set when the first question fails
	for {
		var news *wire.WaitReply
		err := a.client.call(ctx, http.MethodGet, fmt.Sprintf("/2/jobs/%d/wait", id), req, &news)
		if err == nil || !mayPass(err) {
			return news, err
		}
		if end.IsZero() {
			end = a.now().Add(patience)
		}
		if !a.now().Before(end) {
			return nil, err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// mayPass reports whether the same question may be answered later.
func mayPass(err error) bool {
	code := cluster.CodeOf(err)
	return code == cluster.CodeNoQuorum || code == cluster.CodeUnavailable
}

// await waits until a job has ended.
func (a *app) await(ctx context.Context, id int64, f follower) (jobState, error) {
	req := wire.WaitRequest{Fields: jobFields}
	var state jobState
	shown := 0
	for {
		news, err := a.news(ctx, id, req)
		if err != nil {
			a.note("Job %d goes on without this command; see gnt-job info %d", id, id)
			return state, fmt.Errorf("wait for job %d: %w", id, err)
		}
		if news == nil {
			continue
		}
		if err := state.read(news.JobInfo); err != nil {
			return state, err
		}
		req.PreviousJobInfo = news.JobInfo
		for _, l := range news.LogEntries {
			req.PreviousLogSerial = &l.Serial
			f.line(l)
		}
		for ; shown < len(state.progress); shown++ {
			f.progress(state.progress[shown])
		}
		if f.news != nil {
			f.news(&state)
		}
		if state.ended() {
			return state, nil
		}
	}
}

// notes tells people what a job says, on standard error.
func (a *app) notes(id int64) follower { return follow(newScreen(a.err), id) }

// follow shows what a job says. On a terminal its progress is one line, which
// is written again until the job has ended.
func follow(s *screen, id int64) follower {
	return follower{
		line: func(l wire.LogEntry) { s.line(ctime(l.Time) + " " + l.Text) },
		progress: func(p wire.Progress) {
			if !s.live() {
				s.line(p.Text)
			}
		},
		news: func(j *jobState) {
			text := ""
			if n := len(j.progress); n > 0 {
				text = j.progress[n-1].Text
			}
			switch {
			case !j.ended() && text == "":
				s.now(fmt.Sprintf("Job %d: %s", id, j.status))
			case !j.ended():
				s.now(fmt.Sprintf("Job %d: %s: %s", id, j.status, text))
			case s.live() && text != "":
				s.line(text)
			default:
				s.clear()
			}
		},
	}
}

// ctime prints a time as Ganeti prints it in front of a job's messages.
func ctime(t wire.Time) string { return t.Time().Local().Format("Mon Jan _2 15:04:05 2006") }

// submission is how a command deals with the job it makes.
type submission struct {
	submit  bool // and do not wait
	printID bool
	dryRun  bool // check and say, and change nothing

	noRotate bool // where a role is lost, the shared SSH key stays
}

func (s *submission) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.submit, "submit", false, "print the job's id and do not wait for it")
	cmd.Flags().BoolVar(&s.printID, "print-jobid", false, "print the job's id first")
	cmd.Flags().BoolVar(&s.dryRun, "dry-run", false, "check everything, say what would be done, and change nothing")
}

// rotateFlag is for what can end a role.
func (s *submission) rotateFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.noRotate, "no-rotate", false, "do not replace the SSH key that all candidates share, although this one knows it")
}

// done returns the word for what was done, or would have been.
func (s submission) done(was, would string) string {
	if s.dryRun {
		return would
	}
	return was
}

// change submits a job and waits for its success, which may not have reached
// all nodes yet: see pending. ok is false when it was only submitted.
func (a *app) change(ctx context.Context, s submission, verb, path string, body any) (id int64, state jobState, ok bool, err error) {
	if s.dryRun {
		path = withQuery(path, "dry-run=1")
	}
	if s.noRotate {
		path = withQuery(path, "no-rotate=1")
	}
	if err = a.client.call(ctx, verb, path, body, &id); err != nil {
		return 0, state, false, err
	}
	switch {
	case s.submit && a.asJSON:
		return id, state, false, a.printJSON(struct {
			Job int64 `json:"job"`
		}{id})
	case s.submit:
		fmt.Fprintf(a.out, "JobID: %d\n", id)
		return id, state, false, nil
	case s.printID:
		fmt.Fprintln(a.out, id)
	}
	if state, err = a.await(ctx, id, a.notes(id)); err != nil {
		return id, state, false, err
	}
	err = state.failure(id)
	return id, state, err == nil, err
}

// withQuery adds a parameter to a path that may have some.
func withQuery(path, param string) string {
	if strings.Contains(path, "?") {
		return path + "&" + param
	}
	return path + "?" + param
}

// changes reads Ganeti's list of what a job set.
func (j *jobState) changes(id int64) ([][2]string, error) {
	list := [][2]string{}
	if len(j.result) == 0 {
		return list, nil
	}
	if err := json.Unmarshal(j.result[0], &list); err != nil {
		return nil, fmt.Errorf("read the result of job %d: %w", id, err)
	}
	return list, nil
}

// failure returns why the job did not succeed, or nil.
func (j *jobState) failure(id int64) error {
	switch j.status {
	case "success":
		return nil
	case "canceled":
		return &exitError{ExitFailed, fmt.Sprintf("Job %d has been canceled", id)}
	}
	text := fmt.Sprintf("Job %d has failed", id)
	if j.err != nil {
		text = *j.err
	}
	for _, r := range j.result {
		if e := decodeFailure(r, text); e != nil {
			return e
		}
	}
	return errors.New(text)
}

// decodeFailure reads Ganeti's form of an error in a result:
// ["OpPrereqError", ["text", "class"]]. The job's own text may say more.
func decodeFailure(result json.RawMessage, text string) error {
	var parts []json.RawMessage
	var kind string
	var args []any
	if json.Unmarshal(result, &parts) != nil || len(parts) != 2 ||
		json.Unmarshal(parts[0], &kind) != nil || json.Unmarshal(parts[1], &args) != nil || len(args) == 0 {
		return nil
	}
	msg := fmt.Sprint(args[0])
	hint, more := strings.CutPrefix(text, msg)
	if !more {
		hint = ""
	}
	hint = strings.TrimPrefix(strings.TrimSpace(hint), "hint: ")
	if kind == "OpPrereqError" && len(args) == 2 {
		return &prereqError{class: fmt.Sprint(args[1]), text: msg, hint: hint}
	}
	if kind == "HooksAbort" {
		return hooksError(text)
	}
	if kind == "OpPrereqError" || kind == "OpExecError" {
		if hint != "" {
			msg += "\nhint: " + hint
		}
		return errors.New(msg)
	}
	return nil
}

// pending names the nodes that have not confirmed a change, and when their old
// trust ends by itself. If there are none it returns nil.
func (a *app) pending(nodes []wire.Unreachable) error {
	if len(nodes) == 0 {
		return nil
	}
	a.note("The change is committed, and not yet effective on %d unreachable node(s):", len(nodes))
	for _, n := range nodes {
		a.note("  %s: RPC trust ends: %s; SSH trust ends: %s", n.Node, bound(n.RPCUntil), bound(n.SSHUntil))
	}
	a.note("The cluster goes on trying; nothing needs to be repeated.")
	return &exitError{ExitPending, ""}
}
