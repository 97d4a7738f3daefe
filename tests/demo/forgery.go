package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/lab"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/tests/kit"
)

func (t *teller) forgery(ctx context.Context) {
	// All lies are told from node5, whose root holds the gossip key, with the
	// keys of a voter that is not the master.
	voter, nodes, err := t.forgers(ctx)
	if err != nil {
		t.claim("a voter's keys are stolen", func() (string, error) { return "", err })
		return
	}
	evil, err := t.forgeCandidate(voter)
	if err != nil {
		t.claim("a map is forged", func() (string, error) { return "", err })
		return
	}
	t.claim("a map signed by one voter alone is refused over RPC, and reported", func() (string, error) {
		return t.deliverForgery(ctx, evil, nodes)
	})
	t.claim("the same lie by gossip is not believed, and reported", func() (string, error) {
		return t.gossipForgery(ctx, voter, evil, nodes)
	})
	t.claim("an older map, replayed over RPC and by gossip, changes nothing", func() (string, error) {
		return t.replay(ctx, nodes)
	})
	t.claim("after all this, all hold the master's map, and node5 is nobody", func() (string, error) {
		return t.unmoved(ctx, nodes)
	})
}

// forgers robs a voter that is not the master.
func (t *teller) forgers(ctx context.Context) (*kit.Loot, []lab.Node, error) {
	nodes, err := t.c.Nodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	m, err := t.c.ReadMap(ctx, t.master)
	if err != nil {
		return nil, nil, err
	}
	voters := 0
	name := ""
	for _, c := range m.Candidates {
		if c.Voter {
			voters++
			if c.Name != t.master {
				name = c.Name
			}
		}
	}
	if voters < 3 {
		return nil, nil, fmt.Errorf("%d voters: one of them is no minority", voters)
	}
	l, err := t.rob(ctx, "voter", name)
	return l, nodes, err
}

// forgeCandidate makes node5 a candidate and the master.
func (t *teller) forgeCandidate(voter *kit.Loot) (candmap.Envelope, error) {
	evil := t.loot["node5"]
	if evil == nil {
		return candmap.Envelope{}, fmt.Errorf("node5 was not robbed")
	}
	return voter.Forge(func(m *candmap.Map) {
		m.Issued = candmap.Stamp(time.Now())
		for i := range m.Candidates {
			if m.Candidates[i].UUID == voter.ID {
				m.Candidates[i].Client = []cluster.Digest{pki.DigestOf(evil.Member.Leaf)}
				m.Master = voter.ID
			}
		}
	})
}

func (t *teller) deliverForgery(ctx context.Context, evil candmap.Envelope, nodes []lab.Node) (string, error) {
	n, err := everywhere(nodes, func(to lab.Node) error {
		from := kit.LogEnd(to, lab.Noded)
		a, err := t.liar().Call(ctx, t.c.Noded(to), http.MethodPut, "/v1/map", nil, rpc.MapDelivery{Maps: []candmap.Envelope{evil}, Docs: [][]byte{}})
		if err := kit.Refused(a, err, "bad_signature"); err != nil {
			return err
		}
		return t.reported(ctx, to, from, "rpc refused", "bad_signature")
	})
	return fmt.Sprintf("422 bad_signature from %d of %d nodes, and in the log of each", n, len(nodes)), err
}

// liar calls from node5 with node5's own certificate.
func (t *teller) liar() kit.Caller {
	l := t.loot["node5"]
	return l.Caller(l.Member)
}

// reported waits for a line in noded's log.
func (t *teller) reported(ctx context.Context, n lab.Node, from int64, words ...string) error {
	_, err := kit.Until(ctx, patience, func(context.Context) error {
		count, err := kit.LogSays(n, lab.Noded, from, words...)
		if err == nil && count == 0 {
			err = fmt.Errorf("the log of %s says nothing of %q", n.Short(), words)
		}
		return err
	})
	return err
}

func (t *teller) gossipAddrs(nodes []lab.Node) []netip.AddrPort {
	var at []netip.AddrPort
	for _, n := range nodes {
		at = append(at, netip.AddrPortFrom(netip.MustParseAddr(n.Address), t.c.Ports.Gossip))
	}
	return at
}

// gossipForgery announces the forged map by a beacon that seems to be proven.
func (t *teller) gossipForgery(ctx context.Context, voter *kit.Loot, evil candmap.Envelope, nodes []lab.Node) (string, error) {
	m, err := candmap.DecodeMap(evil.Payload)
	if err != nil {
		return "", err
	}
	beacon, err := voter.ForgeBeacon(candmap.Beacon{
		Cluster: m.Cluster, Epoch: m.Epoch, Version: m.Version, Map: evil.Hash(), Time: candmap.Stamp(time.Now()),
	})
	if err != nil {
		return "", err
	}
	pretended, err := voter.Pretend(beacon)
	if err != nil {
		return "", err
	}
	from := map[string]int64{}
	for _, n := range nodes {
		from[n.Name] = kit.LogEnd(n, lab.Noded)
	}
	if err := t.loot["node5"].Rumour(t.gossipAddrs(nodes), beacon.Encode(), pretended.Encode()); err != nil {
		return "", err
	}
	n, err := everywhere(nodes, func(n lab.Node) error {
		return t.reported(ctx, n, from[n.Name], "announcement not believed")
	})
	return fmt.Sprintf("heard, judged and not believed by %d of %d nodes", n, len(nodes)), err
}

// replay sends what was true when node4 was a candidate for the first time.
func (t *teller) replay(ctx context.Context, nodes []lab.Node) (string, error) {
	old := t.loot["node4"]
	if old == nil {
		return "", fmt.Errorf("node4 was not robbed while it was a candidate")
	}
	was, err := old.At()
	if err != nil {
		return "", err
	}
	m, err := t.c.ReadMap(ctx, t.master)
	if err != nil {
		return "", err
	}
	n, err := everywhere(nodes, func(to lab.Node) error {
		a, err := t.liar().Call(ctx, t.c.Noded(to), http.MethodPut, "/v1/map", nil, rpc.MapDelivery{Maps: []candmap.Envelope{old.Map}, Docs: [][]byte{}})
		if err != nil {
			return err
		}
		if a.OK() { // a map that the node knows: it answers with what it holds
			var ack rpc.MapAck
			if err := json.Unmarshal(a.Body, &ack); err != nil {
				return err
			}
			if !ack.Version.Newer(was) {
				return fmt.Errorf("it holds map %s again", ack.Version)
			}
		} else if err := kit.Refused(a, nil, "map_older", "bad_signature"); err != nil {
			return err
		}
		a, err = old.Caller(old.Candidate).Call(ctx, t.c.Noded(to), http.MethodGet, "/v1/state", nil, nil)
		return kit.Refused(a, err, "not_in_map")
	})
	if err != nil {
		return "", err
	}
	if err := old.Rumour(t.gossipAddrs(nodes), old.Map.Encode()); err != nil {
		return "", err
	}
	return fmt.Sprintf("map %s sent, %d.%d held: node4's old certificate refused by %d of %d", was, m.Epoch, m.Version, n, len(nodes)), nil
}

// unmoved looks at what all nodes hold now.
func (t *teller) unmoved(ctx context.Context, nodes []lab.Node) (string, error) {
	m, err := t.c.ReadMap(ctx, t.master)
	if err != nil {
		return "", err
	}
	for _, n := range nodes {
		env, err := kit.CurrentMap(n)
		if err != nil {
			return "", err
		}
		if env.Hash().String() != m.Hash {
			return "", fmt.Errorf("%s holds %s, the master %.12s", n.Short(), env.Hash().Short(), m.Hash)
		}
	}
	n, err := everywhere(nodes, func(to lab.Node) error {
		a, err := t.liar().Call(ctx, t.c.Noded(to), http.MethodGet, "/v1/state", nil, nil)
		return kit.Refused(a, err, "not_in_map")
	})
	return fmt.Sprintf("map %d.%d (%.12s) on all; 403 not_in_map from %d of %d", m.Epoch, m.Version, m.Hash, n, len(nodes)), err
}
