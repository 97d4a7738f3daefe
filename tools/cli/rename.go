package cli

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"rolekey/masterd/rapi/wire"
)

func (a *app) renameCommand() *cobra.Command {
	var s submission
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "rename NODE NEW-NAME",
		Short: "Give a node another name",
		Long: `Changes the name of a node: in the candidate map and the roster, and from there in
SSH's files on all nodes. The node has its certificates renewed by itself, and
need not be restarted; what it is known by, its UUID, stays. Names are not looked
up: change DNS and the machine's own host name yourself.`,
		Example: "  gnt-node rename node2.example.org web2.example.org",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := parseName(args[1])
			if err != nil {
				return err
			}
			id, state, ok, err := a.change(cmd.Context(), s, http.MethodPost, nodePath(args[0], "/rename"), wire.NodeRename{NewName: string(to)})
			if !ok {
				return err
			}
			out := modified{Job: id, Node: args[0], Unreachable: state.unreachable}
			if out.Changes, err = state.changes(id); err != nil {
				return err
			}
			if a.asJSON {
				err = a.printJSON(out)
			} else if len(out.Changes) > 0 {
				fmt.Fprintf(a.out, "%s node %s to %s\n", s.done("Renamed", "Would rename"), args[0], to)
			}
			return errors.Join(err, a.pending(out.Unreachable))
		},
	})
	s.flags(cmd)
	return cmd
}
