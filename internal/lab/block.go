package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Block has packets to one port of the named nodes, and from them to that port of
// all others, vanish, tcp and udp, as a firewall does that forgot it. Heal ends it.
// It needs isolation loopback; without namespaces it answers ErrNoNamespaces.
func (c *Cluster) Block(ctx context.Context, port uint16, nodes ...string) error {
	return c.do(ctx, request{Op: opBlock, Nodes: nodes, Port: port})
}

// block makes the rules that heal takes away.
func (h *holder) block(names []string, port uint16) error {
	cut, ok := h.cut.(*ruleCutter)
	if !ok {
		return kindf(kindNoNamespaces, "blocked ports need a network namespace that all nodes share: %s", h.spec.Reason)
	}
	h.cutMu.Lock()
	defer h.cutMu.Unlock()
	var lines []string
	for _, name := range names {
		n, err := h.find(name)
		if err != nil {
			return err
		}
		for _, other := range h.nodes {
			if other == n || slices.Contains(names, other.Name) || slices.Contains(names, other.Short()) {
				continue
			}
			for _, way := range [][2]string{{n.Address, other.Address}, {other.Address, n.Address}} {
				for _, proto := range []string{"tcp", "udp"} {
					lines = append(lines, fmt.Sprintf("pref %d from %s to %s ipproto %s dport %d %s", prefCut, way[0], way[1], proto, port, cut.action))
				}
			}
		}
	}
	if err := ipRules(h.spawn, cut.ip, "add", lines); err != nil {
		return err
	}
	h.blocked = append(h.blocked, lines...)
	return nil
}

// unblock ends all blocks; the caller holds cutMu.
func (h *holder) unblock() error {
	if len(h.blocked) == 0 {
		return nil
	}
	cut, ok := h.cut.(*ruleCutter)
	if !ok {
		return nil
	}
	err := ipRules(h.spawn, cut.ip, "del", h.blocked)
	if err == nil {
		h.blocked = nil
	}
	return err
}

func ipRules(s *spawner, ip, verb string, lines []string) error {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "rule %s %s\n", verb, l)
	}
	return ipBatch(s, ip, nil, b.String())
}
