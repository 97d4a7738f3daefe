package cli

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

// clusterChange are the flags of gnt-cluster modify.
type clusterChange struct {
	pool             int
	lease, sshLease  time.Duration
	policy, sshReach string
	authorize        string
	address          addressFlags
	ssh              sshFlags
	m                wire.ClusterModify
}

// addressFlags name the address that the master holds.
type addressFlags struct {
	netdev, ip string
	none       bool
}

func (a *app) modifyClusterCommand() *cobra.Command {
	var c clusterChange
	var s submission
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "modify",
		Short: "Change the cluster's parameters",
		Long: `Changes parameters of the cluster, and waits until the map that carries them has
reached all nodes that can be reached (exit code 3 names the others).

A larger candidate pool is filled at once. A smaller one takes the role from
nobody: the command says who stays a candidate.`,
		Example: `  gnt-cluster modify --candidate-pool-size=7
  gnt-cluster modify --ssh-reach=master --map-lease=1m
  gnt-cluster modify --ssh-key-type=ecdsa --ssh-key-bits=384
  gnt-cluster modify --ssh-key-mode=shared --ssh-key-storage=agent
  gnt-cluster modify --master-netdev=eth0 --master-ip=192.0.2.9/24`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.read(cmd); err != nil {
				return err
			}
			return a.changeCluster(cmd.Context(), s, "/2/modify", c.m)
		},
	})
	f := cmd.Flags()
	f.IntVarP(&c.pool, "candidate-pool-size", "C", 0, "wanted number of master candidates")
	f.DurationVar(&c.lease, "map-lease", 0, "how long nodes trust a candidate map without news")
	f.DurationVar(&c.sshLease, "ssh-lease", 0, "how long sshd trusts the cluster's keys without news")
	f.StringVar(&c.policy, "map-policy", "", "what a node with a stale map does: strict or best_effort")
	f.StringVar(&c.sshReach, "ssh-reach", "", "whose SSH keys open the nodes: candidates, or master, the master's alone")
	f.StringVar(&c.authorize, "ssh-authorize", "", "how sshd learns the cluster's keys: file, from authorized_keys, or command, from noded at each login")
	f.Var(switchValue{&c.m.RAPIMayPromote}, "rapi-may-promote", "whether RAPI users who may write may make nodes candidates")
	f.Var(switchValue{&c.m.MasterCapabilityRAPIModifiable}, "master-capability-rapi-modifiable", "whether RAPI users may change master_capable")
	c.ssh.add(cmd)
	f.Var(switchValue{&c.m.ModifySSHSetup}, "ssh-setup", "whether the cluster manages root's SSH keys and files")
	c.address.add(cmd)
	f.BoolVar(&c.address.none, "no-master-ip", false, "let the master hold no address")
	s.flags(cmd)
	return cmd
}

func (f *addressFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.netdev, "master-netdev", "", "network device for the address that the master holds")
	cmd.Flags().StringVar(&f.ip, "master-ip", "", "address that the master holds: 192.0.2.9/24 (without length: of one host)")
}

// read returns the address; nil if none is asked for.
func (f *addressFlags) read() (*cluster.MasterAddress, error) {
	switch {
	case f.netdev == "" && f.ip == "":
		return nil, nil
	case f.netdev == "" || f.ip == "":
		return nil, usage("Give --master-netdev and --master-ip together")
	}
	prefix, err := netip.ParsePrefix(f.ip)
	if addr, aerr := netip.ParseAddr(f.ip); aerr == nil {
		prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		return nil, usage("--master-ip %.60q: want an address, with or without the length of its network's prefix, as 192.0.2.9/24", f.ip)
	}
	m := &cluster.MasterAddress{Address: prefix, Netdev: f.netdev}
	if err := m.Check(); err != nil {
		return nil, usage("%v", err)
	}
	return m, nil
}

// read turns the flags that were given into the request.
func (c *clusterChange) read(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	var err error
	if given("candidate-pool-size") {
		c.m.CandidatePoolSize = &c.pool
	}
	if given("map-lease") {
		if c.m.LeaseSeconds, err = secondsFlag("map-lease", c.lease); err != nil {
			return err
		}
	}
	if given("ssh-lease") {
		if c.m.SSHLeaseSeconds, err = secondsFlag("ssh-lease", c.sshLease); err != nil {
			return err
		}
	}
	if given("map-policy") {
		p, err := cluster.ParsePolicy(c.policy)
		if err != nil {
			return usage("%v", err)
		}
		c.m.Policy = &p
	}
	if given("ssh-reach") {
		r, err := cluster.ParseSSHReach(c.sshReach)
		if err != nil {
			return usage("%v", err)
		}
		c.m.SSHReach = &r
	}
	if given("ssh-authorize") {
		w, err := cluster.ParseSSHAuthorize(c.authorize)
		if err != nil {
			return usage("%v", err)
		}
		c.m.SSHAuthorize = &w
	}
	if err := c.ssh.into(given, &c.m); err != nil {
		return err
	}
	c.m.NoMasterAddress = c.address.none
	if c.m.MasterAddress, err = c.address.read(); err != nil {
		return err
	}
	if c.m == (wire.ClusterModify{}) {
		return usage("Please give at least one of the parameters.")
	}
	return nil
}

func secondsFlag(name string, d time.Duration) (*uint32, error) {
	n, err := wholeSeconds(name, d)
	if err != nil {
		return nil, err
	}
	return &n, nil
}

// clusterChanged is the JSON of a change of the cluster.
type clusterChanged struct {
	Job         int64              `json:"job"`
	Unreachable []wire.Unreachable `json:"unreachable"`
}

// changeCluster makes a change of the whole cluster by a job.
func (a *app) changeCluster(ctx context.Context, s submission, path string, body any) error {
	id, state, ok, err := a.change(ctx, s, http.MethodPut, path, body)
	if !ok {
		return err
	}
	if a.asJSON {
		if err := a.printJSON(clusterChanged{id, state.unreachable}); err != nil {
			return err
		}
	}
	return a.pending(state.unreachable)
}
