package noded

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"
)

// followSelf keeps the identity on disk in step with what the roster calls this
// node and where it has it, so that both are right when the roster is lost, and
// warns when the cluster looks for the node where it does not listen.
func (m *member) followSelf(ctx context.Context) error {
	id, told := m.id, ""
	for {
		news := m.news.wait()
		n := m.self()
		if n != nil && (n.Name != id.Name || !slices.Equal(n.Addresses, id.Addresses)) {
			next := id
			next.Name, next.Addresses = n.Name, n.Addresses
			if err := next.write(m.cfg.Paths.NodeDir()); err != nil {
				m.log.Warn("identity is not written; it only matters if the roster is lost", zap.Error(err))
			} else {
				id = next
				m.log.Info("this node is called otherwise, or is somewhere else",
					zap.String("name", string(n.Name)), zap.Stringers("addresses", n.Addresses))
			}
		}
		if err := m.hints.prune(m.keeper.View().Roster); err != nil {
			m.log.Warn("hints that are of no use any more stay", zap.Error(err))
		}
		if text := m.unheard(); text != told {
			if told = text; text != "" {
				m.log.Warn(text)
			}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unheard says, for people, that this node listens at none of the addresses
// which the roster has for it; "" if all is well.
func (m *member) unheard() string {
	n := m.self()
	if n == nil || len(m.cfg.Addresses) == 0 {
		return ""
	}
	for _, a := range n.Addresses {
		if slices.Contains(m.cfg.Addresses, a) {
			return ""
		}
	}
	return fmt.Sprintf("this node listens at %v alone, and the cluster looks for it at %v: correct addresses in noded.toml and restart noded, or run gnt-node modify --address on the master",
		m.cfg.Addresses, n.Addresses)
}
