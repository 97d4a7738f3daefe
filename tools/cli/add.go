package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

func (a *app) addCommand() *cobra.Command {
	var req wire.Admit
	var at place
	var s submission
	ttl := time.Hour
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "add NAME",
		Short: "Let a machine join; prints its admission string",
		Long: `Prints an admission string, and nothing else, to standard output. The machine of
that name joins with it:  noded join -

The string is good for one node, once, until it expires. It is not a secret to
be kept for long, and never an argument: arguments are visible to all users.

With --readd the node is in the cluster already, and its machine was set up again or
has lost its disk. A master candidate is set offline first, so that its old keys
open nothing; when the node has joined, its old identity is refused as well. It
keeps UUID and tags. The master cannot be added again.`,
		Example: `  gnt-node add node2.example.org | ssh node2 noded join -
  gnt-node add node3.example.org --address 192.0.2.3 --ttl 24h >node3.join
  gnt-node add --readd node2.example.org | ssh node2 noded join -`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := admitRequest(&req, at, args[0], ttl); err != nil {
				return err
			}
			if s.noRotate && !req.Readd {
				return usage("--no-rotate goes with --readd")
			}
			return a.add(cmd.Context(), s, req)
		},
	})
	f := cmd.Flags()
	at.flags(f, "accept the node only from this address, and with it (repeatable)")
	f.DurationVar(&ttl, "ttl", ttl, "how long the string is good for, at most 168h")
	f.BoolVar(&req.Readd, "readd", false, "the node is in the cluster, and its machine was set up again")
	f.Var(switchValue{&req.MasterCapable}, "master-capable", "whether the node may become a master candidate")
	f.Var(switchValue{&req.VMCapable}, "vm-capable", "whether the node may host instances")
	s.rotateFlag(cmd)
	return cmd
}

// admitRequest puts what was given into a request.
func admitRequest(req *wire.Admit, at place, node string, ttl time.Duration) error {
	name, err := parseName(node)
	if err != nil {
		return err
	}
	life, err := wholeSeconds("ttl", ttl)
	if err != nil {
		return err
	}
	req.Name, req.TTLSeconds = name, int64(life)
	if req.Addresses, err = parseAddresses(at.addresses); err != nil {
		return err
	}
	if at.secondary != "" {
		second, err := parseAddresses([]string{at.secondary})
		if err != nil {
			return err
		}
		req.SecondaryIP = &second[0]
	}
	req.SSHPort, err = at.sshPort()
	return err
}

// added is the JSON of gnt-node add.
type added struct {
	Token string `json:"token"`
	wire.Admission
	Unreachable []wire.Unreachable `json:"unreachable,omitempty"` // by the loss of the former life's role
}

func (a *app) add(ctx context.Context, s submission, req wire.Admit) error {
	if err := a.checkKnown(ctx, &req); err != nil {
		return err
	}
	var open []wire.Unreachable
	if req.Readd {
		_, state, _, err := a.change(ctx, s, http.MethodPost, nodePath(string(req.Name), "/readd"), struct{}{})
		if err != nil {
			return err
		}
		open = state.unreachable
	}
	var r wire.Admitted
	if err := a.client.call(ctx, http.MethodPost, "/2/admissions", req, &r); err != nil {
		return err
	}
	if a.asJSON {
		return errors.Join(a.printJSON(added{r.Token, r.Admission, open}), a.pending(open))
	}
	fmt.Fprintln(a.out, r.Token)
	a.note("Give this string to  noded join -  on %s, before %s.", req.Name, when(r.Admission.Expires))
	if req.Readd {
		a.note("If that machine still has its old identity, run  noded leave --yes  there first.")
	}
	a.warnOfTwo(r.Outlook, req.Name)
	return a.pending(open)
}

// checkKnown compares what was asked for with the nodes that there are, in
// Ganeti's words. A short name is completed for a node that is known.
func (a *app) checkKnown(ctx context.Context, req *wire.Admit) error {
	var n wire.Node
	err := a.client.get(ctx, nodePath(string(req.Name), ""), &n)
	switch unknown := errors.Is(err, &cluster.Error{Code: cluster.CodeNotFound}); {
	case unknown && req.Readd:
		return &exitError{ExitFailed, fmt.Sprintf("Node %s not in the cluster - please retry without '--readd'", req.Name)}
	case unknown:
		return nil
	case err != nil:
		return err
	case !req.Readd:
		return &exitError{ExitFailed, fmt.Sprintf("Node %s already in the cluster (as %s) - please retry with '--readd'", req.Name, n.Name)}
	case n.RoleName == cluster.RoleMaster:
		return &exitError{ExitFailed, fmt.Sprintf("Node %s is the master, cannot readd", req.Name)}
	}
	req.Name = n.Name
	return nil
}

// warnOfTwo says what two candidates mean, and what survives what: only one of
// them votes, because a second vote would add risk and no safety.
func (a *app) warnOfTwo(o wire.VoterOutlook, joining cluster.Name) {
	if o.Candidates != 2 || len(o.Voters) == 0 {
		return
	}
	voter := strings.Join(toStrings(o.Voters), ", ")
	a.note("Warning: with two master candidates only one votes, at present %s.", voter)
	a.note("  The other one is lost or down: the cluster goes on.")
	stale := "refuse all calls but those that repair"
	if o.Policy == cluster.PolicyBestEffort {
		stale = "go on with the map they have"
	}
	a.note("  %s is down: nothing can be changed until it is back; after %s the nodes %s.", voter, seconds(o.LeaseSeconds), stale)
	if o.Recovery {
		a.note("  %s is lost for good: %s cannot take over by itself; it takes the recovery key.", voter, joining)
	} else {
		a.note("  %s is lost for good: nobody can take over, since this cluster was made without recovery key.", voter)
	}
	a.note("With three master candidates the cluster survives the loss of any one.")
}

func (a *app) tokensCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tokens",
		Short: "List and revoke admission strings",
		Args:  atLeastOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			return usage("unknown command %q\nSee '%s --help'", args[0], cmd.CommandPath())
		},
		Example: "  gnt-node tokens list\n  gnt-node tokens revoke 1f0e6a9c-6f5c-4f6e-9d2b-0b8f5c0d7a11",
	}
	cmd.AddCommand(a.listTokensCommand(), &cobra.Command{
		Use:     "revoke ID",
		Short:   "Make an admission string worthless",
		Example: "  gnt-node tokens revoke 1f0e6a9c-6f5c-4f6e-9d2b-0b8f5c0d7a11",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := cluster.ParseUUID(args[0])
			if err != nil {
				return usage("%v", err)
			}
			if err := a.client.call(cmd.Context(), http.MethodDelete, "/2/admissions/"+id.String(), nil, nil); err != nil {
				return err
			}
			a.note("Revoked %s", id)
			return nil
		},
	})
	return cmd
}

func (a *app) listTokensCommand() *cobra.Command {
	type r = wire.Admission
	t := &table[r]{columns: []column[r]{
		{"id", "ID", func(r r) any { return r.ID }, nil},
		{"name", "Node", func(r r) any { return r.Name }, nil},
		{"state", "State", func(r r) any { return r.State }, nil},
		{"expires", "Expires", func(r r) any { return r.Expires }, func(r r) string { return when(r.Expires) }},
		{"addresses", "From", func(r r) any { return r.Addresses }, func(r r) string { return fromWhere(r) }},
		{"created", "Created", func(r r) any { return r.Created }, func(r r) string { return when(r.Created) }},
		{"node", "NodeUUID", func(r r) any { return r.Node }, nil},
		{"actor", "By", func(r r) any { return r.Actor }, nil},
	}}
	t.object, t.defaults = t.names(), t.names()[:5]
	cmd := a.jsonFlag(&cobra.Command{
		Use:     "list",
		Short:   "List admission strings that can still be used",
		Example: "  gnt-node tokens list\n  gnt-node tokens list --json",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := []r{}
			if err := a.client.get(cmd.Context(), "/2/admissions", &list); err != nil {
				return err
			}
			return t.print(a, list)
		},
	})
	t.flags(cmd)
	return cmd
}

func fromWhere(r wire.Admission) string {
	if len(r.Addresses) == 0 {
		return "anywhere"
	}
	out := make([]string, len(r.Addresses))
	for i, a := range r.Addresses {
		out[i] = a.String()
	}
	return strings.Join(out, ",")
}
