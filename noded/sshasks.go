package noded

import (
	"bytes"
	"context"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// askWait is how long an answer waits for a member that is being started, and
// for the first news that makes its map fresh. The command that asks waits
// rpc.AskTime.
const askWait = rpc.AskTime - 100*time.Millisecond

// serveAuthorizedKeys answers sshd, which asks at each login whether a key
// opens the account. It fails closed: without a fresh map nobody is let in.
func (d *Daemon) serveAuthorizedKeys(ctx context.Context, q *rpc.AuthorizedKeysRequest) (any, error) {
	if d.command.probes.heard(q.Blob) {
		return rpc.AuthorizedKeysReply{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	m, err := d.awaitMember(ctx)
	if err != nil {
		return nil, err
	}
	return m.authorizedKeys(ctx, q)
}

func (d *Daemon) awaitMember(ctx context.Context) (*running, error) {
	for {
		changed := d.changed.wait()
		if m := d.current(); m != nil {
			return m, nil
		}
		if pause(ctx, askWait, changed) != nil {
			return nil, cluster.Errorf(cluster.CodeUnavailable, "this node serves no cluster")
		}
	}
}

// authorizedKeys returns the line of authorized_keys for the key, without an
// expiry: sshd asks again at the next login.
func (m *member) authorizedKeys(ctx context.Context, q *rpc.AuthorizedKeysRequest) (any, error) {
	set, err := m.ssh.finder.get(ctx)
	if err != nil {
		return nil, err
	}
	if q.User != set.account.Name {
		return rpc.AuthorizedKeysReply{}, nil
	}
	v := m.awaitFresh(ctx)
	if v.Map == nil {
		return nil, cluster.Errorf(cluster.CodeNoMap, "this node holds no candidate map")
	}
	entry, ok := ownerOf(v.Map.Map, q.Blob)
	if !ok {
		return rpc.AuthorizedKeysReply{}, nil
	}
	if !m.trusts(v) {
		return nil, cluster.Errorf(cluster.CodeMapStale, "the map is stale: the cluster's keys open nothing here until news of the master arrives")
	}
	block, err := sshkeys.AuthorizedBlock(v.Map.Cluster, []sshkeys.Authorized{entry}, time.Time{}, sshkeys.Options{NoExpiry: true})
	if err != nil {
		return nil, err
	}
	return rpc.AuthorizedKeysReply{Lines: string(block.Bytes())}, nil
}

// ownerOf finds whose key it is, among those that the map authorizes. All its
// owners share it, in the cluster's shared mode.
func ownerOf(m *candmap.Map, blob []byte) (sshkeys.Authorized, bool) {
	var found sshkeys.Authorized
	for _, a := range authorized(m) {
		for _, k := range a.Keys {
			if !bytes.Equal(k.Blob, blob) {
				continue
			}
			if found.Node.IsZero() {
				found = sshkeys.Authorized{Node: a.Node, Keys: []cluster.SSHKey{k}}
			}
			found.From = append(found.From, a.From...)
		}
	}
	return found, !found.Node.IsZero()
}

// trusts reports whether the map still decides about logins.
func (m *member) trusts(v *candmap.View) bool {
	return v.Map.Policy == cluster.PolicyBestEffort || m.keeper.Fresh()
}

// awaitFresh returns the view in force. A noded that has just been started and
// has heard nothing yet gets a moment to do so.
func (m *member) awaitFresh(ctx context.Context) *candmap.View {
	for {
		news := m.news.wait()
		v := m.keeper.View()
		if v.Map == nil || m.trusts(v) || m.heard.Load() || pause(ctx, askWait, news) != nil {
			return m.keeper.View()
		}
	}
}

// asked is how sshd learns the keys: whether it asks noded, and what is wrong
// with that.
func (m *member) asked() (asks bool, problems []string) {
	asks, err := m.ssh.command.state()
	if err != nil {
		problems = append(problems, err.Error())
	}
	return asks, problems
}

// sshUntil is when the cluster's keys stop opening this node if it hears
// nothing more. Zero: none does, or there is no bound.
func (m *member) sshUntil() time.Time {
	asks, _ := m.ssh.command.state()
	if !asks {
		return m.ssh.expires()
	}
	v := m.keeper.View()
	if v.Map == nil || v.Map.Policy == cluster.PolicyBestEffort {
		return time.Time{}
	}
	return m.keeper.Lease().Until(v.Map.Lease())
}

// expiredGrace is how long sessions outlive a restart of noded that has not
// heard anything yet.
const expiredGrace = 10 * time.Second

// sessionsUntil is when sessions opened by the cluster's keys are ended. Zero:
// not by the time.
func (m *member) sessionsUntil() time.Time {
	until := m.sshUntil()
	if asks, _ := m.ssh.command.state(); !asks || until.IsZero() {
		return until
	}
	if grace := m.began.Add(expiredGrace); until.Before(grace) {
		return grace
	}
	return until
}

// stateOfAsking tells which keys noded lets in when sshd asks, as if they stood
// in authorized_keys.
func (m *member) stateOfAsking(v *candmap.View, s *rpc.NodeState) {
	var problems []string
	s.SSHCommand, problems = m.asked()
	s.BlockProblems = append(s.BlockProblems, problems...)
	if !s.SSHCommand || v.Map == nil || !m.trusts(v) {
		return
	}
	for _, a := range authorized(v.Map.Map) {
		s.Authorized = append(s.Authorized, a.Keys...)
	}
}
