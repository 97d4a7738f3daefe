package cli

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"syscall"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/rpc"
)

func (a *app) failoverCommand() *cobra.Command {
	var to string
	var noVoting, yes, ignoreOffline bool
	cmd := a.jsonFlag(&cobra.Command{
		Use:     "master-failover [--to NODE]",
		Aliases: []string{"masterfailover"},
		Short:   "Make this node the master, or hand the role to another candidate",
		Long: `Moves the master role while all is well; a master that died is replaced by
itself. Run on the candidate that is to be the master, as in Ganeti. A candidate
that has no vote in elections, as the second of two nodes, cannot take the role
by itself: run it on the master then, with --to, which gives the node a vote
first. Jobs go on under the new master. The command returns when that is in
office and its candidate map is in force.

Exit codes: 0 the node is the master; 1 failed; 4 no quorum; 5 no cluster here;
11 --to was given, and this is not the master.`,
		Example: `  gnt-cluster master-failover
  gnt-cluster master-failover --to node2.example.com`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if noVoting {
				return noVotingHere()
			}
			return a.failover(cmd.Context(), to)
		},
	})
	cmd.Flags().StringVar(&to, "to", "", "on the master: the candidate that is to be master")
	cmd.Flags().BoolVar(&noVoting, "no-voting", false, "refused: there is no such thing here")
	cmd.Flags().BoolVar(&yes, "yes-do-it", false, "accepted as in Ganeti; nothing is asked")
	cmd.Flags().BoolVar(&ignoreOffline, "ignore-offline-nodes", false, "accepted as in Ganeti; offline nodes are never waited for")
	return cmd
}

// noVotingHere explains what takes the place of Ganeti's switch.
func noVotingHere() error {
	return &prereqError{
		class: "wrong_input",
		text:  "There is no failover without a vote: whoever became master so could not have any map signed, and no node would obey",
		hint: "a dead master is replaced by itself; one that is not to be trusted is deposed with gnt-cluster evict on the other voters; " +
			"a lost majority needs the recovery key",
	}
}

func (a *app) failover(ctx context.Context, to string) error {
	if to == "" {
		if err := a.mayTakeOver(ctx); err != nil {
			return err
		}
	}
	r, err := a.client.failover(ctx, to)
	if err != nil {
		return err
	}
	if a.asJSON {
		return a.printJSON(r)
	}
	for _, s := range r.Steps {
		a.note("%s", s)
	}
	printItems(a.out, []item{{"Master", string(r.Master)}, {"Previous master", string(r.Previous)}, {"Map", r.Version.String()}}, "")
	return nil
}

func (c *client) failover(ctx context.Context, to string) (r rpc.FailoverReply, err error) {
	if c.remote {
		var done wire.FailoverDone
		err = c.call(ctx, http.MethodPost, "/2/failover", wire.Failover{To: to}, &done)
		r.Master, r.Previous, r.Steps = done.Master, done.Previous, done.Steps
		r.Version = cluster.Version{Epoch: done.MapEpoch, Version: done.MapVersion}
		return r, err
	}
	masterd := c.masterd()
	defer masterd.Close()
	if err = masterd.Do(ctx, http.MethodPost, rpc.LocalFailover, rpc.FailoverRequest{To: to}, &r); err != nil {
		err = c.explained(ctx, err)
	}
	return r, err
}

// mayTakeOver refuses, in Ganeti's words, what the local daemons would refuse.
func (a *app) mayTakeOver(ctx context.Context) error {
	if a.client.remote {
		return usage("over the remote API, say which candidate is to be the master: --to NODE")
	}
	s, err := a.client.nodeStatus(ctx)
	switch {
	case err != nil:
		return a.client.unanswered(ctx, err)
	case s.State == "none" || s.State == "removed":
		return noCluster()
	case s.Master != "" && s.Master == s.Name:
		return &prereqError{class: "wrong_input", text: "This commands must be run on the node where you want the new master to be. " + string(s.Name) + " is already the master"}
	case !isCandidate(s.Role):
		return &prereqError{
			class: "wrong_state",
			text:  "This node is not among the nodes marked as master candidates. Only these can become master",
			hint:  "promote it first, on the master " + string(s.Master) + ": gnt-node modify --master-candidate=yes " + string(s.Name),
		}
	}
	return nil
}

// masterd is a client of what masterd's socket offers beside RAPI.
func (c *client) masterd() *rpc.LocalClient {
	return rpc.NewLocalClient(func(ctx context.Context) (net.Conn, error) { return c.dialLocal(ctx, c.at.MasterdSock()) })
}

// explained words why a local call failed: nobody may listen there.
func (c *client) explained(ctx context.Context, err error) error {
	for _, none := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.ECONNREFUSED} {
		if errors.Is(err, none) {
			return c.unanswered(ctx, err)
		}
	}
	return c.elsewhere(ctx, err)
}

func (a *app) masterPingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "master-ping",
		Short: "Exit with 0 if the master daemon of this node is master and works",
		Long: `Says nothing. Exits with 0 if this node is the master, in office, and its daemon
answers; with 1 otherwise.`,
		Example: "  gnt-cluster master-ping && echo here",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var i wire.Info
			if err := a.client.get(cmd.Context(), "/2/info", &i); err != nil || !i.Rolekey.Ready {
				return &exitError{ExitFailed, ""}
			}
			return nil
		},
	}
}
