package noded

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/buildinfo"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// serveState tells a candidate what verify compares.
func (m *member) serveState(ctx context.Context, _ *rpc.Request) (any, error) {
	v := m.keeper.View()
	s := rpc.NodeState{
		Node: m.id.Node, Name: m.name(), Software: buildinfo.Version(), Time: m.cfg.now().UTC(),
		Version: v.At(), Fresh: m.keeper.Fresh(), Forks: m.keeper.Forks(), Refusals: m.server.Refusals(),
		SSHSetup: wantsSSH(v), SSHUntil: m.sshUntil(),
	}
	if v.Map != nil {
		s.Hash, s.LeaseSeconds, s.Policy = v.Map.Hash, v.Map.LeaseSeconds, v.Map.Policy
		s.LeaseUntil = m.keeper.Lease().Until(v.Map.Lease())
	}
	if v.Roster != nil {
		s.Roster = v.Roster.Hash()
	}
	m.stateOfCerts(&s)
	m.stateOfKeys(ctx, &s)
	m.stateOfAddress(&s)
	m.ssh.state(ctx, v, &s)
	m.stateOfAsking(v, &s)
	s.HostKeys = m.hosts.keys()
	s.GossipKeys = digestsOf(*m.ring.Load())
	s.Roots = m.roots.digests()
	return s, nil
}

func (m *member) stateOfCerts(s *rpc.NodeState) {
	if id, err := m.certs[serverPair].identity(); err == nil {
		s.Server, s.ServerEnds = id.Pin, id.NotAfter
	}
	if id, err := m.certs[identityPair].identity(); err == nil {
		s.Identity, s.IdentityEnds = id.Pin, id.NotAfter
	}
}

func (m *member) stateOfKeys(ctx context.Context, s *rpc.NodeState) {
	s.PublicKey, s.PrivateKey = m.keys.load(m.entryKeys(m.keeper.View()))
	for _, h := range m.keys.held() {
		s.HeldKeys = append(s.HeldKeys, rpc.HeldSSHKey{Key: h.key, Storage: h.storage()})
	}
	ctx, cancel := context.WithTimeout(ctx, masterdTell)
	defer cancel()
	held, err := m.masterd.keys(ctx)
	if err != nil { // its files still tell
		files, lookErr := m.masterd.present()
		held.Present = len(files) > 0 || lookErr != nil
	}
	s.MasterKeys, s.Client = held.Present, held.Client
	if !m.candidate(m.keeper.View()) {
		s.KeyFiles = append(m.keyFiles(), m.keys.strays()...)
		if d, ok := m.masterd.lying(); ok && len(s.Client) == 0 {
			s.Client = append(s.Client, d)
		}
	}
}

// farFuture is later than any file.
var farFuture = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// state tells what authorized_keys really holds.
func (s *sshFiles) state(ctx context.Context, v *candmap.View, out *rpc.NodeState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem != nil {
		out.BlockProblems = append(out.BlockProblems, s.problem.Error())
	}
	for _, path := range s.report.Unsafe {
		out.BlockProblems = append(out.BlockProblems, "sshd, which is strict, ignores the keys of the cluster as long as others can write there (chmod go-w; chown root): "+path)
	}
	out.BlockProblems = slices.Concat(out.BlockProblems, s.refusals, s.rivals())
	set, err := s.finder.get(ctx)
	if err != nil || v.Map == nil {
		return
	}
	block, err := sshkeys.AuthorizedBlock(v.Map.Cluster, authorized(v.Map.Map), farFuture.AddDate(-10, 0, 0), set.options)
	if block.Cluster().IsZero() || err != nil {
		block = sshkeys.Block{}
	}
	block.Former = s.former
	if set.unread == nil {
		s.stateOfFile(set.authorized.Path, block, out)
	}
	for _, f := range set.others {
		s.stateOfFile(f.Path, block.Without(), out)
	}
}

// stateOfFile tells which keys one file authorizes.
func (s *sshFiles) stateOfFile(path string, block sshkeys.Block, out *rpc.NodeState) {
	text, err := readKeys(path)
	if err != nil {
		out.BlockProblems = append(out.BlockProblems, err.Error())
		return
	}
	out.Authorized = append(out.Authorized, blockKeys(string(text), s.self.Cluster)...)
	if block.Cluster().IsZero() {
		return
	}
	_, report, err := sshkeys.Splice(text, block)
	if err != nil {
		return
	}
	for _, f := range report.Foreign {
		if print := sshkeys.Fingerprint(f.Key); !slices.Contains(out.Foreign, print) {
			out.Foreign = append(out.Foreign, print)
		}
	}
}

func readKeys(path string) (_ []byte, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, sshkeys.MaxFile))
}

// blockKeys reads the keys of the managed block as sshd would.
func blockKeys(text string, id cluster.UUID) []cluster.SSHKey {
	var keys []cluster.SSHKey
	inside := false
	for _, l := range lines(text) {
		switch trimmed := trimLine(l); {
		case trimmed == "# BEGIN ROLEKEY "+id.String():
			inside = true
		case trimmed == "# END ROLEKEY "+id.String():
			inside = false
		case inside:
			if k, ok := keyOfLine(trimmed); ok {
				keys = append(keys, k)
			}
		}
	}
	return keys
}
