package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/rpc"
)

// maxToken bounds what is read as an admission string.
const maxToken = 4096

// daemon is the noded that runs on this machine.
func daemon(root string) (*rpc.LocalClient, error) {
	at, err := layout(root)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context) (net.Conn, error) { return paths.DialUnix(ctx, at.NodedSock()) }
	return rpc.NewLocalClient(dial, 0, uint32(os.Geteuid())), nil
}

// call makes one call to the daemon.
func call(ctx context.Context, root, verb, path string, req, resp any) error {
	c, err := daemon(root)
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Do(ctx, verb, path, req, resp)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, net.ErrClosed) || isRefused(err) {
		return cluster.Errorf(cluster.CodeUnavailable, "noded does not run on this machine").
			WithHint("start it, with systemctl start rolekey-noded, and run the command again")
	}
	return err
}

func joinCommand(root *string, std streams) *cobra.Command {
	var tokenFile string
	var addresses []string
	cmd := &cobra.Command{
		Use:   "join {-|--token-file FILE}",
		Short: "Make this machine a node of a cluster",
		Long: `join makes this machine a node, by the admission string that gnt-node add
printed on the master. The string is read from standard input or from a file,
never from the command line, which every local user can see. If join was
interrupted, run it again with the same string.`,
		Example: `  noded join --token-file /root/token
  ssh node1 gnt-node add node2.example.com | noded join -`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token, err := readToken(std.in, tokenFile, args)
			if err != nil {
				return err
			}
			req := rpc.JoinRequest{Token: token}
			if req.Addresses, err = parseAddresses(addresses); err != nil {
				return err
			}
			var reply rpc.JoinReply
			if err := call(cmd.Context(), *root, http.MethodPost, rpc.LocalJoin, req, &reply); err != nil {
				return fmt.Errorf("join: %w", err)
			}
			fmt.Fprintf(std.out, "%s is now a node of cluster %s (map version %s)\n", reply.Name, reply.Cluster, reply.Version)
			return nil
		},
	}
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with the admission string")
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "address of this node; may be given again (default: from noded.toml)")
	return cmd
}

// readToken never repeats what it read: a string in the wrong place must not
// reach the terminal or a log.
func readToken(in io.Reader, file string, args []string) (string, error) {
	switch {
	case len(args) == 1 && args[0] != "-":
		return "", errors.New("the admission string is not taken from the command line, which others can see: use noded join - or --token-file, and make a new string")
	case len(args) == 1 && file != "", len(args) == 0 && file == "":
		return "", errors.New("give either - for standard input, or --token-file FILE")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read admission string: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxToken))
	if err != nil {
		return "", fmt.Errorf("read admission string: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func parseAddresses(texts []string) ([]netip.Addr, error) {
	var list []netip.Addr
	for _, t := range texts {
		a, err := cluster.ParseAddr(t)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

func leaveCommand(root *string) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "leave --yes",
		Short: "Take this machine out of its cluster",
		Long: `leave destroys every key and certificate of the cluster on this machine and
takes the cluster out of root's SSH files. The cluster is not asked, and not
told: run gnt-node remove on the master first. There is no way back but to join
again. It also gives up an interrupted init or join.`,
		Example: `  gnt-node remove node2.example.com && ssh node2 noded leave --yes`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return fmt.Errorf("leave destroys this node's keys: %w; give --yes", errDeclined)
			}
			return call(cmd.Context(), *root, http.MethodPost, rpc.LocalLeave, struct{}{}, nil)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "confirm")
	return cmd
}

func statusCommand(root *string, std streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say where this node stands",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s rpc.LocalStatusReply
			if err := call(cmd.Context(), *root, http.MethodGet, rpc.LocalStatus, nil, &s); err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(std.out)
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			printStatus(std.out, s)
			if s.State == "none" {
				return cluster.Errorf(cluster.CodeNoMap, "this node is in no cluster").
					WithHint("found one with gnt-cluster init, or join one with noded join")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStatus(w io.Writer, s rpc.LocalStatusReply) {
	fmt.Fprintf(w, "state:    %s\n", s.State)
	if s.State == "member" || s.State == "removed" {
		freshness := "stale"
		if s.Fresh {
			freshness = "fresh"
		}
		fmt.Fprintf(w, "node:     %s (%s)\ncluster:  %s\nrole:     %s\nmaster:   %s\nmap:      %s, %s\n",
			s.Name, s.Node, s.Cluster, s.Role, s.Master, s.Version, freshness)
	}
	if s.Problem != "" {
		fmt.Fprintf(w, "problem:  %s\n", s.Problem)
	}
}

// isRefused reports whether nobody listens on the socket.
func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
