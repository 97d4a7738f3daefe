package ssconf

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"rolekey/candmap"
	"rolekey/cluster"
)

// The names, without the prefix ssconf_.
const (
	ClusterName           = "cluster_name"
	MasterNode            = "master_node"
	MasterIP              = "master_ip"
	MasterNetdev          = "master_netdev"
	MasterNetmask         = "master_netmask"
	PrimaryIPFamily       = "primary_ip_family"
	MasterCandidates      = "master_candidates"
	MasterCandidatesIPs   = "master_candidates_ips"
	MasterCandidatesCerts = "master_candidates_certs"
	NodeList              = "node_list"
	NodePrimaryIPs        = "node_primary_ips"
	NodeSecondaryIPs      = "node_secondary_ips"
	OfflineNodes          = "offline_nodes"
	OnlineNodes           = "online_nodes"
	NodeVMCapable         = "node_vm_capable"
	SSHPorts              = "ssh_ports"
	ReleaseVersion        = "release_version"
)

// The address families, AF_INET and AF_INET6, as Ganeti writes them.
const familyIPv4, familyIPv6 = "2", "10"

// Names lists all files, in the order in which they are written.
var Names = []string{
	ClusterName, MasterNode, MasterIP, MasterNetdev, MasterNetmask, PrimaryIPFamily,
	MasterCandidates, MasterCandidatesIPs, MasterCandidatesCerts,
	NodeList, NodePrimaryIPs, NodeSecondaryIPs, OfflineNodes, OnlineNodes, NodeVMCapable, SSHPorts,
	ReleaseVersion,
}

// Render returns the text of each file. A fact that the documents do not tell
// is missing, and one that they tell to be none is empty. Software is the
// version of the program that writes.
func Render(v *candmap.View, software string) map[string]string {
	out := map[string]string{ReleaseVersion: software + "\n"}
	if v.Map != nil {
		renderMap(out, v.Map.Map)
	}
	if v.Roster != nil {
		renderNodes(out, v.Roster.Nodes())
		renderSettings(out, v.Roster.Settings())
	}
	return out
}

func renderMap(out map[string]string, m *candmap.Map) {
	list := slices.SortedFunc(slices.Values(m.Candidates), func(a, b candmap.Candidate) int { return strings.Compare(string(a.Name), string(b.Name)) })
	var names, ips, certs strings.Builder
	out[MasterNode] = ""
	var primary netip.Addr
	for _, c := range list {
		fmt.Fprintln(&names, c.Name)
		fmt.Fprintln(&ips, c.Addresses[0])
		if c.UUID == m.Master {
			out[MasterNode] = string(c.Name) + "\n"
		}
		if c.UUID == m.Master || !primary.IsValid() {
			primary = c.Addresses[0] // the first candidate's, if there is no master
		}
	}
	for _, c := range m.Candidates { // by UUID, as the lines begin
		for _, d := range c.Client {
			fmt.Fprintf(&certs, "%s=%s\n", c.UUID, digest(d))
		}
	}
	out[MasterCandidates], out[MasterCandidatesIPs], out[MasterCandidatesCerts] = names.String(), ips.String(), certs.String()
	out[PrimaryIPFamily] = family(primary)
}

func family(a netip.Addr) string {
	switch {
	case a.Is4():
		return familyIPv4 + "\n"
	case a.Is6():
		return familyIPv6 + "\n"
	}
	return ""
}

// digest writes 32 bytes in Ganeti's form: AA:BB:…
func digest(d cluster.Digest) string {
	text := strings.ToUpper(hex.EncodeToString(d[:]))
	var b strings.Builder
	for i := 0; i < len(text); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(text[i : i+2])
	}
	return b.String()
}

func renderNodes(out map[string]string, nodes []candmap.RosterNode) {
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b candmap.RosterNode) int { return strings.Compare(string(a.Name), string(b.Name)) })
	files := map[string]*strings.Builder{}
	for _, name := range []string{NodeList, NodePrimaryIPs, NodeSecondaryIPs, OfflineNodes, OnlineNodes, NodeVMCapable, SSHPorts} {
		files[name] = new(strings.Builder)
	}
	for _, n := range nodes {
		standing := OnlineNodes
		if n.Flags.Offline {
			standing = OfflineNodes
		}
		fmt.Fprintln(files[NodeList], n.Name)
		fmt.Fprintln(files[standing], n.Name)
		fmt.Fprintf(files[NodePrimaryIPs], "%s %s\n", n.Name, n.Addresses[0])
		fmt.Fprintf(files[NodeSecondaryIPs], "%s %s\n", n.Name, n.Addresses[min(1, len(n.Addresses)-1)])
		fmt.Fprintf(files[NodeVMCapable], "%s=%s\n", n.Name, boolean(n.Flags.VMCapable))
		fmt.Fprintf(files[SSHPorts], "%s=%d\n", n.Name, n.Ports.SSH)
	}
	for name, b := range files {
		out[name] = b.String()
	}
}

func boolean(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

func renderSettings(out map[string]string, s *candmap.Settings) {
	if s == nil {
		return // format 1 tells nothing of this
	}
	out[ClusterName] = string(s.Name) + "\n"
	out[MasterIP], out[MasterNetdev], out[MasterNetmask] = "", "", ""
	if a := s.Address; a != nil {
		out[MasterIP] = a.Address.Addr().String() + "\n"
		out[MasterNetdev] = a.Netdev + "\n"
		out[MasterNetmask] = strconv.Itoa(a.Address.Bits()) + "\n"
	}
}
