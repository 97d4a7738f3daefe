package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"rolekey/rpc"
)

func peersCommand(root *string, std streams) *cobra.Command {
	var reset bool
	cmd := &cobra.Command{
		Use:   "peers [NODE=ADDRESS[,ADDRESS]...]",
		Short: "Say where other nodes are, until the map says so",
		Long: `peers tells this node where others are, when machines have moved and the candidate
map cannot say so yet: it takes a majority of the voters to change the map, and
they must find one another first. Addresses are tried before those of the map.
They are hints, and give nobody any right: who answers there is known by the keys
in the map. What the map has caught up with is forgotten. Without a node it lists
what was said.`,
		Example: `  noded peers node2.example.com=192.0.2.12 node3.example.com=192.0.2.13
  noded peers
  noded peers --clear`,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := rpc.PeersRequest{Clear: reset}
			for _, arg := range args {
				node, list, ok := strings.Cut(arg, "=")
				if !ok {
					return fmt.Errorf("peers: %q: want NODE=ADDRESS", arg)
				}
				addrs, err := parseAddresses(strings.Split(list, ","))
				if err != nil {
					return fmt.Errorf("peers: %w", err)
				}
				req.Peers = append(req.Peers, rpc.PeerHint{Node: node, Addresses: addrs})
			}
			return peers(cmd.Context(), *root, req, std.out)
		},
	}
	cmd.Flags().BoolVar(&reset, "clear", false, "forget what was said before")
	return cmd
}

func peers(ctx context.Context, root string, req rpc.PeersRequest, out io.Writer) error {
	var r rpc.PeersReply
	if err := call(ctx, root, http.MethodPost, rpc.LocalPeers, req, &r); err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	for _, p := range r.Peers {
		text := make([]string, len(p.Addresses))
		for i, a := range p.Addresses {
			text[i] = a.String()
		}
		fmt.Fprintf(out, "%s=%s\n", p.Node, strings.Join(text, ","))
	}
	return nil
}
