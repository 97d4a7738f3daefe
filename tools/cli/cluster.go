package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolekey/internal/buildinfo"
	"rolekey/masterd/rapi/wire"
)

// Cluster makes the commands of gnt-cluster.
func Cluster(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gnt-cluster",
		Short: "Manage the cluster as a whole",
		Example: `  gnt-cluster init cluster.example.org --recovery-recipient "$(cat root.pub)"
  gnt-cluster map
  gnt-cluster verify`,
	}
	cmd.AddCommand(
		a.initCommand(), a.mapCommand(), a.infoCommand(), a.verifyCommand(), a.getMasterCommand(), a.versionCommand(),
		a.modifyClusterCommand(), a.queueCommand(), a.renameClusterCommand(), a.destroyCommand(), a.redistConfCommand(),
		a.failoverCommand(), a.masterPingCommand(), a.evictCommand(),
		a.recoverCommand(), a.backupCommand(), a.restoreCommand(), a.commandCommand(), a.copyfileCommand(), a.sshCommand(),
	)
	cmd.AddCommand(a.rapiUserCommand(), a.adminCommand(), a.renewCommand())
	cmd.AddCommand(a.clusterTagCommands()...)
	return cmd
}

func (a *app) mapCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "map",
		Short: "Show the candidate map, and which nodes hold it",
		Long: `Shows the newest candidate map: who may act in the cluster, and what each node
last confirmed to the master. On a candidate that is not the master nothing is
known of the other nodes.`,
		Example: "  gnt-cluster map\n  gnt-cluster map --json | jq -r '.nodes[] | select(.fresh | not) | .name'",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var m wire.Map
			if err := a.client.get(cmd.Context(), "/2/map", &m); err != nil {
				return err
			}
			if a.asJSON {
				return a.printJSON(m)
			}
			return a.printMap(m)
		},
	})
}

func (a *app) printMap(m wire.Map) error {
	master := string(m.MasterName)
	if master == "" {
		master = "none"
	}
	printItems(a.out, []item{
		{"Cluster", fmt.Sprintf("%s (%s)", m.ClusterName, m.Cluster)},
		{"Map", fmt.Sprintf("version %d of epoch %d, issued %s", m.Version, m.Epoch, when(m.Issued))},
		{"Hash", m.Hash.String()},
		{"Master", master},
		{"Lease", fmt.Sprintf("%s for RPC (%s afterwards), %s for SSH keys", seconds(m.LeaseSeconds), m.Policy, seconds(m.SSHLease))},
		{"SSH reach", string(m.SSHReach)},
		{"Recovery", recovery(m.Recovery)},
	}, "")
	fmt.Fprintln(a.out)
	voter := map[string]string{}
	for _, c := range m.Candidates {
		voter[string(c.Name)] = "candidate"
		if c.Voter {
			voter[string(c.Name)] = "voter"
		}
	}
	t := mapTable(voter)
	if err := t.print(a, m.Nodes); err != nil {
		return err
	}
	if !slices.ContainsFunc(m.Nodes, func(n wire.MapNode) bool { return n.Version > 0 }) {
		a.note("Only the master knows what the nodes hold; this node is not in office.")
	}
	for _, n := range m.Nodes {
		if n.Problem != "" {
			a.note("%s did not answer the master's last call: %s", n.Name, printable(n.Problem))
		}
	}
	return nil
}

// heard is a fact about a node that has confirmed a map; there are none about
// another.
func heard(version uint64, fact bool) any {
	if version == 0 {
		return nil
	}
	return fact
}

func recovery(r wire.MapRecovery) string {
	if len(r.Keys) == 0 {
		return "no key; the loss of a majority of the voters is final"
	}
	return fmt.Sprintf("with %d of %d keys", r.Threshold, len(r.Keys))
}

func mapTable(vote map[string]string) table[wire.MapNode] {
	t := table[wire.MapNode]{columns: []column[wire.MapNode]{
		{"name", "Node", func(n wire.MapNode) any { return n.Name }, nil},
		{"role", "Role", func(n wire.MapNode) any { return n.Role }, nil},
		{"vote", "InMap", nil, func(n wire.MapNode) string {
			if v := vote[string(n.Name)]; v != "" {
				return v
			}
			return "-"
		}},
		{"holds", "Holds", nil, func(n wire.MapNode) string {
			if n.Version == 0 {
				return "?"
			}
			return fmt.Sprintf("%d.%d %.12s", n.Epoch, n.Version, n.Hash)
		}},
		{"age", "Heard", nil, func(n wire.MapNode) string {
			if n.AgeSeconds == nil {
				return "?"
			}
			return fmt.Sprintf("%.1fs ago", *n.AgeSeconds)
		}},
		{"fresh", "Fresh", func(n wire.MapNode) any { return heard(n.Version, n.Fresh) }, nil},
		{"reachable", "Reachable", func(n wire.MapNode) any { return heard(n.Version, n.Reachable) }, nil},
	}}
	t.defaults = t.names()
	return t
}

// seconds prints a duration without the zeros at its end.
func seconds(n uint32) string {
	s := (time.Duration(n) * time.Second).String()
	if n >= 60 {
		s = strings.TrimSuffix(s, "0s")
	}
	if n >= 3600 {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (a *app) infoCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "info",
		Aliases: []string{"show"},
		Short:   "Show the cluster's settings",
		Example: "  gnt-cluster info\n  gnt-cluster info --json | jq .candidate_pool_size",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var i wire.Info
			if err := a.client.get(cmd.Context(), "/2/info", &i); err != nil {
				return err
			}
			if a.asJSON {
				return a.printJSON(i)
			}
			printItems(a.out, infoItems(i), "")
			return nil
		},
	})
}

func infoItems(i wire.Info) []item {
	r := i.Rolekey
	return []item{
		{"Cluster name", string(i.Name)},
		{"Cluster UUID", i.UUID.String()},
		{"Creation time", when(time.UnixMilli(int64(i.CTime * 1000)))},
		{"Modification time", when(time.UnixMilli(int64(i.MTime * 1000)))},
		{"Master node", string(i.Master)},
		{"Nodes", r.Nodes},
		{"Master candidates", toStrings(r.Candidates)},
		{"Voters", toStrings(r.Voters)},
		{"Candidate map", []item{
			{"version", fmt.Sprintf("%d.%d", r.MapEpoch, r.MapVersion)},
			{"hash", r.MapHash.String()},
			{"lease", seconds(r.LeaseSeconds)},
			{"policy when stale", string(r.Policy)},
		}},
		{"Cluster parameters", []item{
			{"candidate pool size", i.PoolSize},
			{"master netdev", orNone(i.MasterNetdev)},
			{"master ip", orNone(r.MasterIP)},
			{"modify ssh setup", yesNo(i.ModifySSHSetup)},
			{"ssh_key_type", i.SSHKeyType},
			{"ssh_key_bits", i.SSHKeyBits},
			{"ssh key mode", r.SSHKeyMode},
			{"ssh key storage", r.SSHKeyStorage},
			{"ssh reach", string(r.SSHReach)},
			{"ssh authorize", r.SSHAuthorize},
			{"ssh lease", seconds(r.SSHLeaseSeconds)},
			{"rapi may promote", yesNo(r.RAPIMayPromote)},
			{"master capability rapi modifiable", yesNo(r.RAPIMayCapable)},
			{"recovery keys", r.RecoveryKeys},
			{"feature level", r.FeatureLevel},
			{"job queue drained", yesNo(r.QueueDrained)},
		}},
	}
}

// orNone is a setting that may be missing.
func orNone(v any) any {
	if v == nil || v == "" {
		return "none"
	}
	return v
}

func (a *app) getMasterCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "getmaster",
		Short:   "Print the master's name; works on any node",
		Example: "  ssh \"$(gnt-cluster getmaster)\"",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.client.nodeStatus(cmd.Context())
			name := string(s.Master)
			if err != nil {
				name, err = a.masterOnDisk(err)
			}
			switch {
			case err != nil:
				return err
			case name == "" && s.State == "member":
				return errNoMaster
			case name == "":
				return noCluster()
			case a.asJSON:
				return a.printJSON(struct {
					Master string `json:"master"`
				}{name})
			}
			fmt.Fprintln(a.out, name)
			return nil
		},
	})
}

var errNoMaster = &exitError{ExitFailed, "This node knows of no master at present"}

// masterOnDisk reads what noded wrote for other programs, when it does not
// answer.
func (a *app) masterOnDisk(cause error) (string, error) {
	text, err := os.ReadFile(a.client.at.SSConf("master_node"))
	switch {
	case err == nil && len(text) == 0:
		return "", errNoMaster
	case err == nil:
		return strings.TrimSpace(string(text)), nil
	case a.client.hasNoMap():
		return "", noCluster()
	}
	return "", cause
}

func (a *app) versionCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "version",
		Short: "Print the versions of software and formats",
		Args:  exactArgs(0),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Software string `json:"software"`
				Map      string `json:"map_format"`
				RPC      string `json:"rpc"`
				RAPI     int    `json:"rapi"`
			}{buildinfo.Version(), "v1", "v1", 2}
			if a.asJSON {
				return a.printJSON(v)
			}
			printItems(a.out, []item{
				{"Software version", v.Software},
				{"Internode protocol", v.RPC},
				{"Candidate map format", v.Map},
				{"RAPI version", v.RAPI},
			}, "")
			return nil
		},
	})
}
