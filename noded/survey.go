package noded

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// Bounds of a survey.
const (
	surveyAtOnce = 32
	surveyEach   = 15 * time.Second
	surveyRounds = 4 // a newer roster names more nodes
)

// survey asks every node of the roster for its map, and takes what is newer and
// verifies: this node then holds the highest map of all that answer. It asks no
// node twice.
func (m *member) survey(ctx context.Context) []rpc.RecoverNode {
	asked := map[cluster.NodeID]rpc.RecoverNode{}
	for range surveyRounds {
		var turn []candmap.RosterNode
		if r := m.keeper.View().Roster; r != nil {
			for _, n := range r.Nodes() {
				if _, done := asked[n.UUID]; !done && n.UUID != m.id.Node {
					turn = append(turn, n)
				}
			}
		}
		if len(turn) == 0 {
			break
		}
		for i, a := range m.askEach(ctx, turn) {
			asked[turn[i].UUID] = a
		}
	}
	return m.report(asked)
}

func (m *member) askEach(ctx context.Context, nodes []candmap.RosterNode) []rpc.RecoverNode {
	answers := make([]rpc.RecoverNode, len(nodes))
	slots := make(chan struct{}, surveyAtOnce)
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, surveyEach)
			defer cancel()
			answers[i].Name = n.Name
			if err := m.askMap(ctx, n.UUID, &answers[i]); err != nil {
				answers[i].Problem = err.Error()
			}
		})
	}
	all.Wait()
	return answers
}

// askMap asks one node what it holds, and takes it if it is newer.
func (m *member) askMap(ctx context.Context, node cluster.NodeID, a *rpc.RecoverNode) error {
	var h rpc.HealthReply
	if err := m.client.Call(ctx, nodedOf(node), rpc.MethodHealth, "", nil, &h); err != nil {
		return err
	}
	a.Version = h.Version
	for range questPages {
		since := m.keeper.View().At()
		if !h.Version.Newer(since) {
			break
		}
		var got rpc.MapPull
		if err := m.client.Call(ctx, nodedOf(node), rpc.MethodMapGet, since.String(), nil, &got); err != nil {
			return err
		}
		ack, err := m.keeper.Deliver(ctx, got.Maps, nil)
		if err != nil && cluster.CodeOf(err) != cluster.CodeMapOlder {
			return fmt.Errorf("its map %s is not taken: %w", h.Version, err)
		}
		m.pullDocs(ctx, node, ack)
		if !m.keeper.View().At().Newer(since) {
			return fmt.Errorf("it says that it holds map %s, and does not show it", h.Version)
		}
	}
	if v := m.keeper.View(); v.Map != nil && !v.Complete() {
		ack, err := m.keeper.Deliver(ctx, nil, nil)
		if err == nil {
			m.pullDocs(ctx, node, ack)
		}
	}
	return nil
}

// report orders the answers by name, with the roles of the newest map.
func (m *member) report(asked map[cluster.NodeID]rpc.RecoverNode) []rpc.RecoverNode {
	v := m.keeper.View()
	list := []rpc.RecoverNode{}
	for id, a := range asked {
		a.UUID, a.Role = id, "removed"
		if n := rosterEntry(v, id); n != nil {
			a.Name, a.Role = n.Name, n.Flags.Role(v.Map != nil && v.Map.Master == id).String()
		}
		if v.Map != nil {
			if c := v.Map.Candidate(id); c != nil {
				a.Voter = c.Voter
			}
		}
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b rpc.RecoverNode) int {
		if a.Name != b.Name {
			if a.Name < b.Name {
				return -1
			}
			return 1
		}
		return slices.Compare(a.UUID[:], b.UUID[:])
	})
	return list
}

func rosterEntry(v *candmap.View, id cluster.NodeID) *candmap.RosterNode {
	if v.Roster == nil {
		return nil
	}
	return v.Roster.Node(id)
}
