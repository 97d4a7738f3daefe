package noded

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// settlePause is between two looks at logins that are under way.
const settlePause = 20 * time.Millisecond

// settleSSH tells the master when the logins by SSH are decided that were under
// way when it asked, so that keys which only they may need can go.
func (m *member) settleSSH(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.SSHSettleRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	select {
	case m.settleTurn <- struct{}{}:
		defer func() { <-m.settleTurn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	v := m.keeper.View()
	if v.Map == nil || v.Roster == nil || req.Version.Newer(v.At()) {
		return nil, cluster.Errorf(cluster.CodeConflict, "this node holds map %s", v.At())
	}
	look, err := m.underWay(ctx, v, req.Clients)
	if err != nil {
		return nil, err
	}
	wait := min(time.Duration(min(req.WaitMS, rpc.MaxSettleWait.Milliseconds()))*time.Millisecond, rpc.MaxSettleWait)
	settled, err := settle(ctx, wait, look)
	return rpc.SSHSettleReply{Settled: settled}, err
}

// underWay returns what looks for logins, once this node's own part is known to
// go by the view: what ssh reads, or what sshd reads.
func (m *member) underWay(ctx context.Context, v *candmap.View, clients bool) (look func() (map[string]bool, error), err error) {
	if clients {
		set, err := m.ssh.finder.get(ctx)
		if err == nil {
			err = m.ssh.derive(ctx, v, true)
		}
		ports := portsOfSSH(v.Roster)
		return func() (map[string]bool, error) { return m.logins.connecting(set.account.UID, ports) }, err
	}
	if f := m.followed.Load(); f == nil || v.At().Newer(f.view.At()) {
		return nil, cluster.Errorf(cluster.CodeUnavailable, "authorized_keys does not follow map %s", v.At())
	}
	var from []netip.Prefix
	for _, c := range v.Map.Candidates {
		from = append(from, c.From...)
	}
	return func() (map[string]bool, error) { return m.logins.undecided(ctx, from) }, nil
}

// portsOfSSH are those at which the nodes' sshd answer, and sshd's own.
func portsOfSSH(r *candmap.Roster) []uint16 {
	ports := []uint16{cluster.DefaultPorts.SSH}
	for _, n := range r.Nodes() {
		ports = append(ports, n.Ports.SSH)
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// settle waits until nothing is there any more of what the first look finds, and
// reports whether that came within the time.
func settle(ctx context.Context, wait time.Duration, look func() (map[string]bool, error)) (bool, error) {
	limit, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	waiting, err := look()
	for err == nil && len(waiting) > 0 {
		if pause(limit, settlePause, nil) != nil {
			return false, context.Cause(ctx)
		}
		var now map[string]bool
		now, err = look()
		for id := range waiting {
			if !now[id] {
				delete(waiting, id)
			}
		}
	}
	return err == nil, err
}
