package masterd

import (
	"context"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/pki"
	"rolekey/rpc"
)

// serveHostKeys takes a member's statement about its own sshd.
func (m *member) serveHostKeys(ctx context.Context, q *rpc.Request) (any, error) {
	var req pki.SignedHosts
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	call, err := callOf(q)
	if err != nil {
		return nil, err
	}
	reply, err := m.keys.HostKeys(ctx, call, req)
	if c := cluster.CodeOf(err); err != nil && c != cluster.CodeNotMaster && c != cluster.CodeNoQuorum {
		m.d.audit.Write(audit.Event{Act: audit.HostKeysRefused, Caller: q.Caller(), Target: nodeName(m.node.State(), q.Grant.Node)}.Of(err))
	}
	return reply, err
}
