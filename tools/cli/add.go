package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

func (a *app) addCommand() *cobra.Command {
	var addresses []string
	ttl := time.Hour
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "add NAME",
		Short: "Let a machine join; prints its admission string",
		Long: `Prints an admission string, and nothing else, to standard output. The machine of
that name joins with it:  noded join -

The string is good for one node, once, until it expires. It is not a secret to
be kept for long, and never an argument: arguments are visible to all users.`,
		Example: `  gnt-node add node2.example.org | ssh node2 noded join -
  gnt-node add node3.example.org --address 192.0.2.3 --ttl 24h >node3.join`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := parseName(args[0])
			if err != nil {
				return err
			}
			from, err := parseAddresses(addresses)
			if err != nil {
				return err
			}
			life, err := wholeSeconds("ttl", ttl)
			if err != nil {
				return err
			}
			return a.add(cmd.Context(), wire.Admit{Name: name, Addresses: from, TTLSeconds: int64(life)})
		},
	})
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "accept the node only from this address (repeatable)")
	cmd.Flags().DurationVar(&ttl, "ttl", ttl, "how long the string is good for, at most 168h")
	return cmd
}

func (a *app) add(ctx context.Context, req wire.Admit) error {
	var r wire.Admitted
	if err := a.client.call(ctx, http.MethodPost, "/2/admissions", req, &r); err != nil {
		return err
	}
	if a.asJSON {
		return a.printJSON(struct {
			Token string `json:"token"`
			wire.Admission
		}{r.Token, r.Admission})
	}
	fmt.Fprintln(a.out, r.Token)
	a.note("Give this string to  noded join -  on %s, before %s.", req.Name, when(r.Admission.Expires))
	a.warnOfTwo(r.Outlook)
	return nil
}

// warnOfTwo says what two candidates mean: only one of them votes, because a
// second vote would add risk and no safety.
func (a *app) warnOfTwo(o wire.VoterOutlook) {
	if o.Candidates != 2 {
		return
	}
	a.note("Warning: with two candidates only one votes, at present %s.", strings.Join(toStrings(o.Voters), ", "))
	if o.Recovery {
		a.note("If that one is lost for good, the other cannot take over by itself: it takes the recovery key.")
	} else {
		a.note("If that one is lost for good, nobody can take over: this cluster was made without recovery key.")
	}
	a.note("With three candidates the cluster survives the loss of any one.")
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
