package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/rpc"
)

// Settings of a cluster that says nothing else.
const (
	defaultPool     = 5
	defaultLease    = 2 * time.Minute
	defaultSSHLease = 24 * time.Hour
)

// awaitMaster is how long init waits for the new cluster's master.
const awaitMaster = 20 * time.Second

// maxRecipients bounds a file of recipients.
const maxRecipients = 64 << 10

// initFlags are the flags of gnt-cluster init.
type initFlags struct {
	node              string
	addresses         []string
	recipients        []string
	noRecovery, noSSH bool
	pool              int
	lease, sshLease   time.Duration
	policy, sshReach  string
	authorize         string
	master            addressFlags
	ssh               sshFlags
}

func (a *app) initCommand() *cobra.Command {
	var f initFlags
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "init NAME",
		Short: "Found a cluster with this node as its master",
		Long: `Founds a cluster whose only node, and master, is this one. The node daemon and
the master daemon must be running.

The recovery key makes a new beginning possible when a majority of the voters
is lost. Its private half is written once, encrypted to the recipients: age or
ssh public keys, or @FILE with one on each line. Without recovery key such a
cluster is lost, so that must be said.

Run again after an interruption, the command finishes what was begun.`,
		Example: `  gnt-cluster init cluster.example.org --recovery-recipient @/root/recovery.pub
  gnt-cluster init lab.test --node-name node1.lab.test --address 192.0.2.1 --no-recovery-key --map-lease 3s`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := f.request(args[0])
			if err != nil {
				return err
			}
			return a.init(cmd.Context(), req)
		},
	})
	f.add(cmd)
	return cmd
}

func (f *initFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.node, "node-name", "", "this node's name (default: the host's)")
	s.StringArrayVar(&f.addresses, "address", nil, "this node's address (repeatable; default: from noded.toml)")
	s.StringArrayVar(&f.recipients, "recovery-recipient", nil, "age or ssh public key, or @FILE, to encrypt the recovery key to (repeatable)")
	s.BoolVar(&f.noRecovery, "no-recovery-key", false, "make none: the loss of a majority of the voters is final")
	s.IntVarP(&f.pool, "candidate-pool-size", "C", defaultPool, "wanted number of master candidates")
	s.DurationVar(&f.lease, "map-lease", defaultLease, "how long nodes trust a candidate map without news")
	s.DurationVar(&f.sshLease, "ssh-lease", defaultSSHLease, "how long sshd trusts the cluster's keys without news")
	s.StringVar(&f.policy, "map-policy", string(cluster.PolicyStrict), "what a node with a stale map does: strict or best_effort")
	s.StringVar(&f.sshReach, "ssh-reach", string(cluster.ReachCandidates), "whose SSH keys open the nodes: candidates, or master, the master's alone")
	s.StringVar(&f.authorize, "ssh-authorize", string(cluster.AuthorizeFile), "how sshd learns the cluster's keys: file, from authorized_keys, or command, from noded at each login")
	s.BoolVar(&f.noSSH, "no-ssh-setup", false, "leave root's SSH keys and files alone, until gnt-cluster modify --ssh-setup=yes")
	f.ssh.add(cmd)
	f.master.add(cmd)
}

func (f *initFlags) request(name string) (req rpc.InitRequest, err error) {
	req.CandidatePoolSize, req.NoRecoveryKey, req.SSHSetup = f.pool, f.noRecovery, !f.noSSH
	if f.noRecovery == (len(f.recipients) > 0) {
		return req, usage("Give either --recovery-recipient, for the key that saves a cluster which lost a majority of its voters,\nor --no-recovery-key, if such a cluster may be lost")
	}
	if f.node == "" {
		if f.node, err = os.Hostname(); err != nil {
			return req, fmt.Errorf("find host name: %w", err)
		}
	}
	if req.Cluster, err = parseName(name); err != nil {
		return req, err
	}
	if req.Node, err = parseName(f.node); err != nil {
		return req, err
	}
	if req.Addresses, err = parseAddresses(f.addresses); err != nil {
		return req, err
	}
	if req.LeaseSeconds, err = wholeSeconds("map-lease", f.lease); err != nil {
		return req, err
	}
	if req.SSHLeaseSeconds, err = wholeSeconds("ssh-lease", f.sshLease); err != nil {
		return req, err
	}
	if req.Policy, err = cluster.ParsePolicy(f.policy); err != nil {
		return req, usage("%v", err)
	}
	if req.SSHReach, err = cluster.ParseSSHReach(f.sshReach); err != nil {
		return req, usage("%v", err)
	}
	if req.SSHAuthorize, err = cluster.ParseSSHAuthorize(f.authorize); err != nil {
		return req, usage("%v", err)
	}
	if err = f.ssh.found(&req); err != nil {
		return req, err
	}
	if req.MasterAddress, err = f.master.read(); err != nil {
		return req, err
	}
	req.RecoveryRecipient, err = readRecipients(f.recipients)
	return req, err
}

// readRecipients returns the keys, with those of @FILE in its place.
func readRecipients(list []string) ([]string, error) {
	out := []string{}
	for _, r := range list {
		path, isFile := strings.CutPrefix(r, "@")
		if !isFile {
			out = append(out, r)
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, usage("read recipients: %v", err)
		}
		if len(text) > maxRecipients {
			return nil, usage("read recipients: %s is larger than %d bytes", path, maxRecipients)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				out = append(out, line)
			}
		}
	}
	return out, nil
}

func (a *app) init(ctx context.Context, req rpc.InitRequest) error {
	node := a.client.noded()
	defer node.Close()
	var reply rpc.InitReply
	err := node.Do(ctx, http.MethodPost, rpc.LocalInit, req, &reply)
	switch {
	case errors.Is(err, os.ErrPermission):
		return mustBeRoot()
	case errors.Is(err, &cluster.Error{Code: cluster.CodeUnavailable}):
		return &exitError{ExitFailed, "Cannot communicate with the node daemon.\nIs the process running and listening for connections?"}
	case err != nil:
		return err
	}
	if reply.RecoveryFile != "" {
		a.note("The recovery key, encrypted, is in %s; store it away from this machine.", reply.RecoveryFile)
	}
	if err := a.awaitReady(ctx); err != nil {
		return err
	}
	if a.asJSON {
		return a.printJSON(reply)
	}
	a.note("Cluster %s is founded; %s is its master.", req.Cluster, req.Node)
	return nil
}

// awaitReady asks, at growing intervals, until masterd is the master.
func (a *app) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, awaitMaster)
	defer cancel()
	var last error
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		var info wire.Info
		err := a.client.get(ctx, "/2/info", &info)
		if err == nil && info.Rolekey.Ready {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) == context.Canceled {
				return context.Canceled
			}
			a.note("The cluster is founded, but its master daemon is not in office after %s.", awaitMaster)
			if last == nil {
				last = &exitError{ExitFailed, "See the log of masterd."}
			}
			return last
		case <-time.After(pause):
		}
	}
}
