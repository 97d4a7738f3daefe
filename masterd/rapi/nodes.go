package rapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
)

// link is an element of a list without bulk.
type link[T any] struct {
	ID  T      `json:"id"`
	URI string `json:"uri"`
}

func (a *api) nodes(r *http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	if !flag(r, "bulk") {
		list := []link[cluster.Name]{}
		for _, n := range s.SortedNodes() {
			list = append(list, link[cluster.Name]{n.Name, "/2/nodes/" + string(n.Name)})
		}
		return list, nil
	}
	return a.list.get(a, s)
}

// confirmed returns what each node last confirmed.
func (a *api) confirmed() map[cluster.NodeID]NodeStatus {
	out := map[cluster.NodeID]NodeStatus{}
	for _, n := range a.b.Nodes() {
		out[n.Node] = n
	}
	return out
}

func (a *api) node(r *http.Request) (any, error) {
	s, n, err := a.named(r)
	if err != nil {
		return nil, err
	}
	o := nodeObject(s, n, a.confirmed()[n.UUID])
	o.SecondaryIP = &o.SIP
	return o, nil
}

// named returns the node of the path.
func (a *api) named(r *http.Request) (*state.State, *state.Node, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, nil, err
	}
	n := Find(s, mux.Vars(r)["node"])
	if n == nil {
		return nil, nil, errNotFound
	}
	return s, n, nil
}

// Find returns a node by name, by UUID, or by the first labels of its name
// when these belong to one node only; else nil.
func Find(s *state.State, ref string) *state.Node {
	if id, err := cluster.ParseUUID(ref); err == nil {
		return s.Node(id)
	}
	name, err := cluster.ParseName(ref)
	if err != nil {
		return nil
	}
	if n := s.NodeByName(name); n != nil {
		return n
	}
	var found *state.Node
	for _, n := range s.Nodes {
		if !strings.HasPrefix(string(n.Name), ref+".") {
			continue
		}
		if found != nil {
			return nil
		}
		found = n
	}
	return found
}

func nodeObject(s *state.State, n *state.Node, c NodeStatus) wire.Node {
	role := s.Role(n.UUID)
	return wire.Node{
		Name: n.Name, UUID: n.UUID, Role: role.Code(), RoleName: role,
		Offline: n.Flags.Offline, MasterCandidate: n.Flags.MasterCandidate, Drained: n.Flags.Drained,
		MasterCapable: n.Flags.MasterCapable, VMCapable: n.Flags.VMCapable,
		PIP: n.Addresses[0], SIP: second(n.Addresses), Addresses: n.Addresses, Ports: n.Ports,
		PInstList: []string{}, SInstList: []string{}, NDParams: map[string]any{"ssh_port": n.Ports.SSH},
		CTime: seconds(n.CTime), MTime: seconds(n.MTime), SerialNo: n.Serial, Tags: append([]string{}, n.Tags...),
		Voter: n.Voter, Joined: n.Joined, Incarnation: n.Incarnation,
		MapEpoch: c.Version.Epoch, MapVersion: c.Version.Version, Fresh: c.Fresh, Reachable: c.Reachable,
	}
}

// second is Ganeti's secondary address: the primary one where there is no other.
func second(addrs []netip.Addr) netip.Addr { return addrs[min(1, len(addrs)-1)] }

// seconds is Ganeti's form of a time that is not a job's.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (a *api) role(r *http.Request) (any, error) {
	s, n, err := a.named(r)
	if err != nil {
		return nil, err
	}
	return s.Role(n.UUID), nil
}

func (a *api) inspect(r *http.Request) (any, error) {
	_, n, err := a.named(r)
	if err != nil {
		return nil, err
	}
	return a.b.Inspect(r.Context(), n.UUID)
}

// names returns the names of nodes in the order of their names.
func names(s *state.State, ids []cluster.NodeID) []cluster.Name {
	out := []cluster.Name{}
	for _, id := range ids {
		if n := s.Node(id); n != nil {
			out = append(out, n.Name)
		}
	}
	slices.Sort(out)
	return out
}
