package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/spf13/cobra"

	"rolekey/masterd/query"
	"rolekey/masterd/rapi/wire"
)

// cancelGroups is how many of jobGroups can be canceled at once.
const cancelGroups = 3

func (a *app) cancelCommand() *cobra.Command {
	var force bool
	groups := make([]bool, cancelGroups)
	cmd := &cobra.Command{
		Use:   "cancel ID... | --pending | --queued | --waiting",
		Short: "Cancel jobs that have not changed anything yet",
		Long: `Cancels jobs that have not changed anything yet: those with these numbers, or
all with a status, after a question. What has changed something goes on.`,
		Example: "  gnt-job cancel 17\n  gnt-job cancel --pending --force",
		RunE: func(cmd *cobra.Command, args []string) error {
			filter := inGroups(groups)
			if (filter == nil) == (len(args) == 0) {
				return exactArgs(-1)(cmd, args)
			}
			ids, err := jobIDs(args)
			if filter != nil && err == nil {
				ids, err = a.jobsToCancel(cmd.Context(), filter, force)
			}
			if err != nil {
				return err
			}
			return a.each(ids, func(id int64) error { return a.cancel(cmd.Context(), id) })
		},
	}
	for i := range groups {
		cmd.Flags().BoolVar(&groups[i], jobGroups[i].flag, false, "cancel "+jobGroups[i].help)
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	return cmd
}

// jobsToCancel returns the jobs that a filter is true of, if that is confirmed.
func (a *app) jobsToCancel(ctx context.Context, filter *query.Filter, force bool) ([]int64, error) {
	var jobs []wire.JobHead
	if err := a.client.get(ctx, "/2/jobs?bulk=1", &jobs); err != nil {
		return nil, err
	}
	var ids []int64
	for _, j := range query.Jobs.Select(jobs, filter) {
		if j.Status != "canceling" { // what has been asked for once is asked for
			ids = append(ids, j.ID)
		}
	}
	if len(ids) == 0 || force {
		return ids, nil
	}
	return ids, a.confirm(fmt.Sprintf("Cancel %d job(s): %s?", len(ids), joinIDs(ids)))
}

func (a *app) cancel(ctx context.Context, id int64) error {
	var answer [2]json.RawMessage
	if err := a.client.call(ctx, http.MethodDelete, fmt.Sprintf("/2/jobs/%d", id), nil, &answer); err != nil {
		return err
	}
	var ok bool
	var text string
	if err := errors.Join(json.Unmarshal(answer[0], &ok), json.Unmarshal(answer[1], &text)); err != nil {
		return fmt.Errorf("read the master daemon's answer: %w", err)
	}
	if !ok {
		return &exitError{ExitFailed, text}
	}
	a.note("%s", text)
	return nil
}

func (a *app) archiveCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "archive ID...",
		Short:   "Forget jobs that have ended",
		Example: "  gnt-job archive 17 18",
		Args:    atLeastOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := jobIDs(args)
			if err != nil {
				return err
			}
			done, err := a.archive(cmd.Context(), wire.Archive{IDs: ids})
			if err != nil {
				return err
			}
			for _, id := range done.Active {
				a.note("Job %d has not ended, and is kept", id)
			}
			for _, id := range done.Unknown {
				a.note("Job %d not found", id)
			}
			if len(done.Active)+len(done.Unknown) > 0 {
				return &exitError{ExitFailed, ""}
			}
			return nil
		},
	})
}

// archive forgets jobs, and prints the answer if JSON is asked for.
func (a *app) archive(ctx context.Context, which wire.Archive) (wire.Archived, error) {
	var done wire.Archived
	if err := a.client.call(ctx, http.MethodPost, "/2/jobs/archive", which, &done); err != nil {
		return done, err
	}
	if a.asJSON {
		return done, a.printJSON(done)
	}
	return done, nil
}

func (a *app) autoarchiveCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "autoarchive AGE|all",
		Short: "Forget jobs that ended some time ago",
		Long: `Forgets all jobs that ended so long ago: a number of seconds, or of what s, m, h,
d or w behind it says. Rolekey itself keeps the last 1000 that have ended.`,
		Example: "  gnt-job autoarchive 2w\n  gnt-job autoarchive all",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			age, err := parseAge(args[0])
			if err != nil {
				return err
			}
			done, err := a.archive(cmd.Context(), wire.Archive{AgeSeconds: &age})
			if err == nil && !a.asJSON {
				fmt.Fprintf(a.out, "Archived %d jobs\n", len(done.Archived))
			}
			return err
		},
	})
}

// unitSeconds are Ganeti's units of time.
var unitSeconds = map[byte]int64{'s': 1, 'm': 60, 'h': 3600, 'd': 24 * 3600, 'w': 7 * 24 * 3600}

// parseAge reads a number of seconds, or of the unit behind it.
func parseAge(s string) (int64, error) {
	if s == "all" {
		return 0, nil
	}
	number, unit := s, int64(1)
	if n := len(s); n > 0 && unitSeconds[s[n-1]] > 0 {
		number, unit = s[:n-1], unitSeconds[s[n-1]]
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, usage("Invalid age '%.20s': want all, or a number with s, m, h, d or w, such as 2w", s)
	}
	return int64(n) * unit, nil
}

func joinIDs(ids []int64) string {
	text := ""
	for i, id := range ids {
		if i > 0 {
			text += ", "
		}
		text += strconv.FormatInt(id, 10)
	}
	return text
}
