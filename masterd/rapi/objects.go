package rapi

import (
	"cmp"
	"encoding/base64"
	"math"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/buildinfo"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
	"rolekey/pki"
)

const maxTTL = pki.MaxTTL

func (a *api) info(*http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	info := wire.Info{
		SoftwareVersion: buildinfo.Version(), VCSVersion: "(rolekey) version " + buildinfo.Version(),
		Architecture: architecture(), Name: s.Cluster.Name, UUID: s.Cluster.UUID,
		EnabledHV: []string{}, NDParams: map[string]any{"ssh_port": cluster.DefaultPorts.SSH},
		PoolSize: s.Params.CandidatePoolSize, Tags: append([]string{}, s.Cluster.Tags...), UIDPool: []int{}, ReservedLVs: []string{},
		HiddenOS: []string{}, BlacklistedOS: []string{}, DiskTemplates: []string{}, Compression: []string{},
		CTime: seconds(s.Cluster.Created), IPVersion: 4,
		ModifySSHSetup: s.Params.SSHSetup, SSHKeyType: s.Params.SSH().KeyType, SSHKeyBits: cmp.Or(s.Params.SSHKeyBits, 256),
		Rolekey: a.rolekeyInfo(s),
	}
	if a := s.Params.MasterAddress; a != nil {
		info.MasterNetdev, info.MasterNetmask = a.Netdev, a.Address.Bits()
		info.Rolekey.MasterIP = a.Address.String()
	}
	if m := s.HeadMap(); m != nil {
		info.MTime = seconds(m.Issued)
	}
	if n := s.Node(s.Master); n != nil {
		info.Master = n.Name
		if n.Addresses[0].Is6() {
			info.IPVersion = 6
		}
	}
	return info, nil
}

func (a *api) rolekeyInfo(s *state.State) wire.RolekeyInfo {
	head, p := s.Head(), s.Params
	var candidates []cluster.NodeID
	for _, n := range s.Candidates() {
		candidates = append(candidates, n.UUID)
	}
	return wire.RolekeyInfo{
		Self: a.b.Self(), Ready: a.b.Ready() == nil,
		MapEpoch: head.Version.Epoch, MapVersion: head.Version.Version, MapHash: head.Hash,
		LeaseSeconds: p.LeaseSeconds, SSHLeaseSeconds: p.SSHLeaseSeconds, Policy: p.Policy, SSHReach: p.SSHReach,
		SSHKeyMode: string(p.SSHKeyMode), SSHKeyStorage: string(p.SSH().Storage), SSHAuthorize: string(p.SSH().Authorize),
		RAPIMayPromote: p.RAPIMayPromote, RAPIMayCapable: p.MasterCapabilityRAPIModifiable,
		FeatureLevel: s.FeatureLevel, RecoveryKeys: len(s.Recovery.Keys), Nodes: len(s.Nodes),
		Candidates: names(s, candidates), Voters: names(s, s.Voters()),
		QueueDrained: s.QueueDrained,
	}
}

// architecture names the machine as Python's platform module does.
func architecture() []string {
	machine, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686"}[runtime.GOARCH]
	if !ok {
		machine = runtime.GOARCH
	}
	if math.MaxInt == math.MaxInt32 {
		return []string{"32bits", machine}
	}
	return []string{"64bits", machine}
}

func (a *api) clusterMap(*http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	m := s.HeadMap()
	if m == nil {
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node is in no cluster")
	}
	out := wire.Map{
		Cluster: m.Cluster, ClusterName: s.Cluster.Name, Epoch: m.Epoch, Version: m.Version, Hash: s.Head().Hash,
		Previous: m.Previous, Roster: m.Roster, Issued: m.Issued,
		LeaseSeconds: m.LeaseSeconds, SSHLease: m.SSHLeaseSeconds, Policy: m.Policy, SSHReach: m.SSHReach,
		Candidates: []wire.MapCandidate{}, Nodes: []wire.MapNode{},
		Recovery: wire.MapRecovery{Threshold: m.Recovery.Threshold, Keys: [][]byte{}},
	}
	if !m.Master.IsZero() {
		out.Master = &m.Master
	}
	for _, k := range m.Recovery.Keys {
		out.Recovery.Keys = append(out.Recovery.Keys, k)
	}
	for i := range m.Candidates {
		c := &m.Candidates[i]
		out.Candidates = append(out.Candidates, candidateObject(c))
		if c.UUID == m.Master {
			out.MasterName = c.Name
		}
	}
	slices.SortFunc(out.Candidates, func(a, b wire.MapCandidate) int { return compareNames(a.Name, b.Name) })
	confirmed := a.confirmed()
	for _, n := range s.SortedNodes() {
		out.Nodes = append(out.Nodes, mapNode(s, n, confirmed[n.UUID]))
	}
	return out, nil
}

func compareNames(a, b cluster.Name) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func candidateObject(c *candmap.Candidate) wire.MapCandidate {
	ssh := []string{}
	for _, k := range c.SSH {
		ssh = append(ssh, k.Type+" "+base64.StdEncoding.EncodeToString(k.Blob))
	}
	return wire.MapCandidate{
		UUID: c.UUID, Name: c.Name, Address: c.Addresses[0], Voter: c.Voter, Client: c.Client, Signing: c.Signing, SSH: ssh,
	}
}

func mapNode(s *state.State, n *state.Node, c NodeStatus) wire.MapNode {
	out := wire.MapNode{
		UUID: n.UUID, Name: n.Name, Role: s.Role(n.UUID), Epoch: c.Version.Epoch, Version: c.Version.Version,
		Fresh: c.Fresh, Reachable: c.Reachable, RPCUntil: known(c.LeaseUntil), SSHUntil: known(c.SSHUntil),
		Problem: c.Problem,
	}
	if !c.Version.IsZero() {
		age := math.Round(c.Age.Seconds()*1000) / 1000
		out.Hash, out.AgeSeconds = c.Hash.String(), &age
	}
	return out
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func admissionObject(r pki.Record) wire.Admission {
	return wire.Admission{
		ID: r.ID, Name: r.Name, Node: r.Node, Addresses: append([]netip.Addr{}, r.Addresses...), State: string(r.State),
		Created: r.Created, Expires: r.Expires, Actor: r.Actor,
		MasterCapable: r.MasterCapable, VMCapable: r.VMCapable, SecondaryIP: r.Secondary, SSHPort: r.SSHPort,
	}
}

// outlook says how many candidates there will be when the node has joined: it
// becomes one if it may and the pool has room.
func outlook(s *state.State, joining wire.Admit) wire.VoterOutlook {
	n := len(s.Candidates())
	capable := joining.MasterCapable
	old := s.NodeByName(joining.Name)
	if capable == nil && old != nil {
		capable = &old.Flags.MasterCapable
	}
	if (old == nil || !old.Flags.MasterCandidate) && (capable == nil || *capable) && n < s.Params.CandidatePoolSize {
		n++
	}
	return wire.VoterOutlook{
		Candidates: n, Voters: names(s, s.Voters()), Recovery: len(s.Recovery.Keys) > 0,
		LeaseSeconds: s.Params.LeaseSeconds, Policy: s.Params.Policy,
	}
}
