package cli

import (
	"net/http"

	"github.com/spf13/cobra"
)

func (a *app) redistConfCommand() *cobra.Command {
	var s submission
	var force bool
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "redist-conf",
		Short: "Deliver map and roster again, and have all nodes rewrite what follows from them",
		Long: `Delivers the newest candidate map and roster to all nodes, whatever they hold
already, and has them rewrite the files that follow from these: ssconf files,
known_hosts and ssh's configuration. Nodes do so by themselves at every change
and once in a minute; the command shows that all of them did.`,
		Example: "  gnt-cluster redist-conf",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := "/2/redistribute-config"
			if force {
				path = withQuery(path, "even-if-drained=1")
			}
			id, state, ok, err := a.change(cmd.Context(), s, http.MethodPut, path, nil)
			if !ok {
				return err
			}
			if a.asJSON {
				if err := a.printJSON(struct {
					Job int64 `json:"job"`
				}{id}); err != nil {
					return err
				}
			}
			return a.pending(state.unreachable)
		},
	})
	s.flags(cmd)
	cmd.Flags().BoolVar(&force, "yes-do-it", false, "even if the job queue takes no other jobs")
	return cmd
}
