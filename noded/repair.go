package noded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// repair has this node put its own files right: those of SSH, those that follow
// from map and roster, and the modes of what others must not read. It can do
// nothing but what noded does by itself at its start.
func (m *member) repair(ctx context.Context, q *rpc.Request) (any, error) {
	var req struct{}
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	reply := rpc.RepairReply{Done: []string{}}
	err := rpc.Effect(ctx, func() error {
		m.repairFiles(ctx, m.keeper.View(), &reply)
		return nil
	})
	return reply, err
}

func (m *member) repairFiles(ctx context.Context, v *candmap.View, reply *rpc.RepairReply) {
	note := func(done string, err error) {
		if err != nil {
			reply.Problems = append(reply.Problems, err.Error())
			return
		}
		reply.Done = append(reply.Done, done)
		m.log.Info("repaired for the master", zap.String("what", done))
	}
	for _, g := range m.guarded() {
		for _, what := range g.wrong() {
			err := g.mend()
			if left := g.wrong(); err == nil && len(left) > 0 {
				err = errors.New(left[0])
			}
			note("put right: "+what, err)
		}
	}
	if v.Map == nil {
		return
	}
	note("authorized_keys follows the map", m.authorize(ctx))
	note("known_hosts, ssh's configuration and the ssconf files follow the roster", m.derive(ctx, v))
}

// differs tells which of ssh's files for its own use are not as the roster says.
func (s *sshFiles) differs(ctx context.Context, v *candmap.View) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	set, err := s.finder.get(ctx)
	if err != nil || v.Roster == nil || !wantsSSH(v) {
		return nil
	}
	from, err := s.clientFacts(set, v)
	if err != nil {
		return nil
	}
	var out []string
	if block, err := sshkeys.KnownHostsBlock(v.Map.Cluster, from.hosts); err == nil {
		if text, err := readKeys(set.known.Path); err != nil {
			out = append(out, err.Error())
		} else if want, _, err := sshkeys.Splice(text, block); err != nil || !bytes.Equal(text, want) {
			out = append(out, fmt.Sprintf("The lines of the cluster in %s are not as the roster says", set.known.Path))
		}
	}
	if want, err := from.dropIn(); err == nil && want != nil {
		if text, err := os.ReadFile(s.at.SSHDropIn()); err != nil || !bytes.Equal(text, want) {
			out = append(out, fmt.Sprintf("%s is not as the roster says", s.at.SSHDropIn()))
		}
	}
	return out
}
