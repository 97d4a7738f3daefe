package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/query"
	"rolekey/masterd/rapi/wire"
)

// jobGroups are the groups of statuses that have a flag, as in Ganeti.
var jobGroups = []struct {
	flag     string
	statuses []string
	help     string
}{
	{"pending", []string{"queued", "waiting", "canceling"}, "those that have not begun, or are being canceled"},
	{"queued", []string{"queued"}, "those that are queued"},
	{"waiting", []string{"waiting"}, "those that wait for something"},
	{"running", []string{"running"}, "those that are running"},
	{"error", []string{"error"}, "those that have failed"},
	{"finished", []string{"success", "error", "canceled"}, "those that have ended"},
}

func (a *app) listJobsCommand() *cobra.Command {
	l := &listing[wire.JobHead]{table: query.Jobs, defaults: []string{"id", "status", "summary"}}
	for _, f := range query.Jobs.Fields {
		l.object = append(l.object, f.Name)
	}
	groups := make([]bool, len(jobGroups))
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "list [ID...]",
		Short: "List jobs",
		Long: `Lists all jobs that are kept, or those with these numbers. Several of --pending,
--queued, --waiting, --running, --error and --finished list what is in one of
them.`,
		Example: "  gnt-job list\n  gnt-job list --running --pending\n  gnt-job list -o +received_ts,end_ts\n" +
			"  gnt-job list -F 'summary =~ m/node3/ and end_ts > \"2026-11-22T00:00:00Z\"'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.filter == "" && len(args) == 1 && isFilter(args[0]) {
				l.filter, args = args[0], nil
			}
			filter, err := l.parsed()
			if err != nil {
				return err
			}
			filter = query.All(filter, inGroups(groups))
			jobs := []wire.JobHead{}
			ids, err := jobIDs(args)
			if err == nil {
				err = a.client.get(cmd.Context(), "/2/jobs?bulk=1", &jobs)
			}
			if err == nil && len(ids) > 0 {
				jobs, err = pickJobs(jobs, ids)
			}
			if err != nil {
				return err
			}
			return l.print(a, query.Jobs.Select(jobs, filter))
		},
	})
	l.flags(cmd)
	for i, g := range jobGroups {
		cmd.Flags().BoolVar(&groups[i], g.flag, false, "list "+g.help)
	}
	return cmd
}

// inGroups returns the filter for the groups that were asked for; nil: none.
func inGroups(asked []bool) *query.Filter {
	var any []*query.Filter
	for i, ok := range asked {
		if !ok {
			continue
		}
		for _, status := range jobGroups[i].statuses {
			any = append(any, query.Equal("status", status))
		}
	}
	return query.Any(any...)
}

// pickJobs returns the jobs with these numbers, which must exist.
func pickJobs(jobs []wire.JobHead, ids []int64) ([]wire.JobHead, error) {
	byID := map[int64]wire.JobHead{}
	for _, j := range jobs {
		byID[j.ID] = j
	}
	picked := make([]wire.JobHead, len(ids))
	for i, id := range ids {
		j, ok := byID[id]
		if !ok {
			return nil, noJob(id)
		}
		picked[i] = j
	}
	return picked, nil
}

func noJob(id int64) error { return cluster.Errorf(cluster.CodeNotFound, "Job %d not found", id) }

func jobID(arg string) (int64, error) {
	id, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || id <= 0 || id >= 1e18 {
		return 0, usage("Invalid job ID '%.20s': want a positive number", arg)
	}
	return id, nil
}

func jobIDs(args []string) ([]int64, error) {
	ids := make([]int64, len(args))
	for i, arg := range args {
		id, err := jobID(arg)
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	return ids, nil
}
