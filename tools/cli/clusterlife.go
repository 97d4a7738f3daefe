package cli

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"rolekey/masterd/rapi/wire"
	"rolekey/rpc"
)

func (a *app) queueCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "queue drain|undrain|info",
		Short: "Make the job queue refuse new jobs, or take them again",
		Long: `A drained queue takes no new jobs; those that are queued are done. What the
cluster has to do by itself goes on. The flag survives a change of master.`,
		Example:   "  gnt-cluster queue drain\n  gnt-cluster queue info",
		ValidArgs: []string{"drain", "undrain", "info"},
		Args:      exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "drain", "undrain":
				return a.client.call(cmd.Context(), http.MethodPut, "/2/queue", wire.Queue{Drained: args[0] == "drain"}, nil)
			case "info":
			default:
				return usage("Command '%s' is not valid.\nWant drain, undrain or info", args[0])
			}
			var q wire.Queue
			if err := a.client.get(cmd.Context(), "/2/queue", &q); err != nil {
				return err
			}
			if a.asJSON {
				return a.printJSON(q)
			}
			word := "unset"
			if q.Drained {
				word = "set"
			}
			fmt.Fprintf(a.out, "The drain flag is %s\n", word)
			return nil
		},
	})
}

func (a *app) renameClusterCommand() *cobra.Command {
	var s submission
	var force bool
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "rename NAME",
		Short: "Change the cluster's name",
		Long: `Changes the name of the cluster, which is for people, for ssconf files and for
hooks. Everything that is trusted is bound to the cluster's UUID, which stays; so
nothing is interrupted. The address that the master holds is another matter: see
gnt-cluster modify --master-ip.`,
		Example: "  gnt-cluster rename cluster2.example.org",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := parseName(args[0])
			if err != nil {
				return err
			}
			if !force {
				if err := a.confirm(fmt.Sprintf("This will rename the cluster to '%s'. Continue?", name)); err != nil {
					return err
				}
			}
			return a.changeCluster(cmd.Context(), s, "/2/name", wire.ClusterRename{Name: name})
		},
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	s.flags(cmd)
	return cmd
}

func (a *app) destroyCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "destroy --yes-do-it",
		Short: "End the cluster, of which only the master is left",
		Long: `Takes the last node, the master, out of its cluster and so ends it: all of its
keys and its whole state are destroyed, and nothing brings them back but a
backup. Remove the other nodes first.`,
		Example: "  gnt-cluster destroy --yes-do-it",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var i wire.Info
			if err := a.client.get(cmd.Context(), "/2/info", &i); err != nil {
				return err
			}
			switch {
			case !i.Rolekey.Ready:
				return notMaster(string(i.Master))
			case i.Rolekey.Nodes > 1:
				return &prereqError{"wrong_input", fmt.Sprintf("There are still %d node(s) in this cluster.", i.Rolekey.Nodes-1), "remove them first: gnt-node remove NODE"}
			case !yes:
				return usage("Destroying a cluster cannot be undone. If it is what you want, give --yes-do-it")
			}
			node := a.client.noded()
			defer node.Close()
			if err := node.Do(cmd.Context(), http.MethodPost, rpc.LocalLeave, struct{}{}, nil); err != nil {
				return fmt.Errorf("destroy cluster: %w", err)
			}
			a.note("Cluster %s is no more.", i.Name)
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes-do-it", false, "really do it")
	cmd.Flags().BoolVar(&yes, "ya-rly", false, "the same, as in Ganeti")
	return cmd
}
