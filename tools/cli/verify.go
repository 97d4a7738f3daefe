package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rolekey/masterd/rapi/wire"
)

// remedyMark begins the line that says what to do about the one before.
const remedyMark = "    remedy: "

// finding is an error or a warning that verify reported.
type finding struct {
	Level  string `json:"level"` // ERROR or WARNING
	Code   string `json:"code"`
	Object string `json:"object"` // such as node
	Name   string `json:"name"`
	Text   string `json:"text"`
	Remedy string `json:"remedy"` // what to do
}

// report is the JSON of gnt-cluster verify.
type report struct {
	Job      int64     `json:"job"`
	OK       bool      `json:"ok"`
	Errors   []finding `json:"errors"`
	Warnings []finding `json:"warnings"`
	Lines    []string  `json:"lines"`
	Repaired []finding `json:"repaired"`

	last      *finding // that the next line may be about
	inSummary bool
	Summary   []string `json:"summary"` // what it comes to, and what to do
}

var (
	findingLine  = regexp.MustCompile(`^\s*- (ERROR|WARNING):`)
	quietLine    = regexp.MustCompile(`^\s*- (ERROR|WARNING|REPAIRED):`)
	repairedLine = regexp.MustCompile(`^\s*- REPAIRED:([A-Z0-9_-]+):([^:]*):([^:]*):(.*)$`)
	parseable    = regexp.MustCompile(`^\s*- (ERROR|WARNING):([A-Z0-9_-]+):([^:]*):([^:]*):(.*)$`)
)

// summaryTitle begins the last section.
const summaryTitle = "* Summary"

// summing reports whether a line belongs to the summary, which ends with the next
// section.
func (r *report) summing(text string) bool {
	if strings.HasPrefix(text, "* ") {
		r.inSummary = text == summaryTitle
	}
	return r.inSummary
}

func (r *report) add(text string) {
	r.Lines = append(r.Lines, text)
	if r.summing(text) && text != summaryTitle {
		r.Summary = append(r.Summary, strings.TrimSpace(text))
	}
	if remedy, ok := strings.CutPrefix(text, remedyMark); ok {
		if r.last != nil {
			r.last.Remedy = remedy
		}
		return
	}
	if m := repairedLine.FindStringSubmatch(text); m != nil {
		r.Repaired = append(r.Repaired, finding{Level: "REPAIRED", Code: m[1], Object: m[2], Name: m[3], Text: m[4]})
		return
	}
	level := findingLine.FindStringSubmatch(text)
	if level == nil {
		return
	}
	f := finding{Level: level[1], Text: strings.TrimSpace(text)}
	if m := parseable.FindStringSubmatch(text); m != nil {
		f = finding{m[1], m[2], m[3], m[4], strings.TrimSpace(m[5]), ""}
	}
	if f.Level == "ERROR" {
		r.Errors = append(r.Errors, f)
		r.last = &r.Errors[len(r.Errors)-1]
	} else {
		r.Warnings = append(r.Warnings, f)
		r.last = &r.Warnings[len(r.Warnings)-1]
	}
}

// fails reports whether a result says that errors were found.
func (j *jobState) fails() bool {
	for _, r := range j.result {
		var ok bool
		if json.Unmarshal(r, &ok) == nil && !ok {
			return true
		}
	}
	return false
}

func (a *app) verifyCommand() *cobra.Command {
	var body wire.Verify
	var quiet bool
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "verify",
		Short: "Check the whole cluster",
		Long: `Compares maps, certificates, keys and files on all nodes, has every candidate
authenticate by real SSH to every node that it may reach, and attempts what must be refused.
The last lines say what it comes to and what to do. Exit code 1 means that an error was found.`,
		Example: "  gnt-cluster verify\n  gnt-cluster verify --quiet    # from cron: prints nothing if all is well\n  gnt-cluster verify --error-codes -I ENODETIME\n  gnt-cluster verify --json | jq '.errors[]'",
		Args:    exactArgs(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.verify(cmd, body, quiet) },
	})
	f := cmd.Flags()
	f.BoolVar(&body.ErrorCodes, "error-codes", false, "print errors in a form for programs")
	f.StringArrayVarP(&body.IgnoreErrors, "ignore-errors", "I", []string{}, "report this code as a warning (repeatable)")
	f.BoolVar(&body.Repair, "repair", false, "put right what is safe to, and say for the rest what to do")
	f.BoolVar(&body.DryRun, "dry-run", false, "with --repair: only say what would be done")
	f.BoolVarP(&body.Verbose, "verbose", "v", false, "name each node that is checked")
	f.BoolVar(&body.AllPairs, "all-pairs", false, "have every normal node attempt with every node what must be refused, not with two")
	f.BoolVarP(&quiet, "quiet", "q", false, "print errors and warnings only, and nothing if there are none")
	cmd.MarkFlagsMutuallyExclusive("quiet", "verbose")
	return cmd
}

func (a *app) verify(cmd *cobra.Command, body wire.Verify, quiet bool) error {
	for _, code := range body.IgnoreErrors {
		if !slices.Contains(wire.VerifyCodes, code) {
			return &exitError{ExitFailed, fmt.Sprintf("option -I: invalid choice: '%s' (choose from %s)", code, strings.Join(wire.VerifyCodes, ", "))}
		}
	}
	body.ErrorCodes, body.Remedies = body.ErrorCodes || a.asJSON, a.asJSON
	r := report{Errors: []finding{}, Warnings: []finding{}, Repaired: []finding{}, Lines: []string{}, Summary: []string{}}
	if err := a.client.call(cmd.Context(), http.MethodPost, "/2/verify", body, &r.Job); err != nil {
		return err
	}
	if !quiet {
		a.note("Submitted jobs %d\nWaiting for job %d ...", r.Job, r.Job)
	}
	state, err := a.await(cmd.Context(), r.Job, follower{
		line: func(l wire.LogEntry) {
			r.add(l.Text)
			a.verifyLine(&r, l, quiet)
		},
		progress: func(wire.Progress) {},
	})
	if err != nil {
		return err
	}
	if err := state.failure(r.Job); err != nil {
		return err
	}
	r.OK = !state.fails()
	if !body.Repair {
		r.OK = r.OK && len(r.Errors) == 0
	}
	if a.asJSON {
		if err := a.printJSON(r); err != nil {
			return err
		}
	}
	if !r.OK && quiet {
		return &exitError{ExitFailed, ""}
	}
	if !r.OK {
		return &exitError{ExitFailed, "1 job(s) failed while verifying the cluster."}
	}
	return nil
}

// verifyLine prints a line of the report for people. The summary, which follows
// it, has no times: it is what is read.
func (a *app) verifyLine(r *report, l wire.LogEntry, quiet bool) {
	switch {
	case a.asJSON:
	case quiet:
		if quietLine.MatchString(l.Text) {
			fmt.Fprintln(a.out, printable(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(l.Text), "-"))))
		}
	case l.Text == summaryTitle:
		fmt.Fprintln(a.out)
	case r.inSummary:
		fmt.Fprintln(a.out, printable(strings.TrimSpace(l.Text)))
	default:
		fmt.Fprintf(a.out, "%s %s\n", ctime(l.Time), printable(l.Text))
	}
}
