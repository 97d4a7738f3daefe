package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/rpc"
)

func trustCommand(root *string, std streams) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "trust HASH [--yes]",
		Short: "Believe one map because you compared its hash",
		Long: `trust makes this node take the candidate map with the hash HASH, and from there
follow its cluster again by itself. It is for a node that was off for more than
30 days while the voters changed ("trust_expired"), and for one whose map was
damaged on disk: then signatures alone prove nothing to it. Take HASH, all 64
digits of it, from gnt-cluster map on the master, and not from this machine or
from a message: whoever signed with stolen keys shows a hash as well. The node
asks the nodes that it knows for the map itself; if all of them have new keys, it
waits 15 seconds for the master to deliver it. It must be newer than all that this
node ever held. Without --yes the command asks whether you compared.

Exit codes: 0 the map is in force and on disk; 1 failed; 5 this machine is in no
cluster; 13 not confirmed.`,
		Example: `  noded trust 5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			hash, err := cluster.ParseDigest(args[0])
			if err != nil {
				return fmt.Errorf("trust: %w", err)
			}
			if !yes && !compared(std, hash) {
				return fmt.Errorf("trust: %w; give --yes", errDeclined)
			}
			return trust(cmd.Context(), *root, hash, std.out)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "the hash was compared; do not ask")
	return cmd
}

// compared asks. No answer is no.
func compared(std streams, hash cluster.Digest) bool {
	fmt.Fprintf(std.err, "This node will obey whoever map %s names.\nDoes gnt-cluster map on the master show this hash? [y/N] ", hash)
	answer, err := bufio.NewReader(io.LimitReader(std.in, 16)).ReadString('\n')
	if err != nil && err != io.EOF {
		return false
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}

func trust(ctx context.Context, root string, hash cluster.Digest, out io.Writer) error {
	var r rpc.TrustReply
	if err := call(ctx, root, http.MethodPost, rpc.LocalTrust, rpc.TrustRequest{Hash: hash}, &r); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	return printTrust(out, r)
}

func printTrust(out io.Writer, r rpc.TrustReply) error {
	from := "given by " + string(r.From)
	if r.From == "" {
		from = "as it was delivered"
	}
	switch {
	case r.Previous == r.Version:
		fmt.Fprintf(out, "this node holds map %s already\n", r.Version)
	case r.Previous.IsZero():
		fmt.Fprintf(out, "map %s is in force, %s; none was before\n", r.Version, from)
	default:
		fmt.Fprintf(out, "map %s is in force, %s; before it was %s\n", r.Version, from, r.Previous)
	}
	if !r.Fresh {
		fmt.Fprintln(out, "it becomes fresh with the master's next beacon: see noded status")
	}
	for _, p := range r.Problems {
		fmt.Fprintln(out, "problem:", p)
	}
	if !r.Durable {
		return cluster.Errorf(cluster.CodeInternal, "trust: the map is in force, but not on disk yet").
			WithHint("noded tries again; look at its log before this machine is restarted")
	}
	return nil
}
