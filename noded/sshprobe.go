package noded

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/rpc"
)

const (
	probesAtOnce = 8
	probeTime    = 5 * time.Second
)

// probeSSH logs in to the targets' sshd with this node's own key, as root's ssh
// would, and opens no session: verify wants to see that it works, or that it
// does not.
func (m *member) probeSSH(ctx context.Context, q *rpc.Request) (any, error) {
	var req rpc.SSHProbeRequest
	if err := q.Decode(&req); err != nil {
		return nil, err
	}
	signers := m.signers()
	if len(signers) == 0 {
		return nil, cluster.Errorf(cluster.CodeNotFound, "this node has no SSH key to log in with")
	}
	set, err := m.ssh.finder.get(ctx)
	if err != nil {
		return nil, err
	}
	reply := rpc.SSHProbeReply{Results: make([]rpc.SSHProbeResult, len(req.Targets))}
	sources := m.cfg.sources(m.keeper.View().Roster, m.id.Node)
	slots := make(chan struct{}, probesAtOnce)
	var wg sync.WaitGroup
	for i, t := range req.Targets {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			reply.Results[i] = rpc.SSHProbeResult{Node: t.Node}
			if err := probe(ctx, t, set.account.Name, signers, sources.to(t.Address)); err != nil {
				reply.Results[i].Error = err.Error()
			}
		})
	}
	wg.Wait()
	return reply, nil
}

// signers are this node's keys, those that the map lists first.
func (m *member) signers() []ssh.Signer {
	entry := m.entryKeys(m.keeper.View())
	var first, last []ssh.Signer
	for _, h := range m.keys.refresh() {
		if hasKey(entry, h.key) {
			first = append(first, h.signer)
		} else {
			last = append(last, h.signer)
		}
	}
	return append(first, last...)
}

// probe authenticates with this node's own keys.
func probe(ctx context.Context, t rpc.SSHTarget, user string, signers []ssh.Signer, from netip.Addr) error {
	return probeWith(ctx, t, user, from, ssh.PublicKeys(signers...))
}

func clientConfig(t rpc.SSHTarget, user string, auth ssh.AuthMethod) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{auth}, HostKeyAlgorithms: algorithms(t.Keys),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			for _, k := range t.Keys {
				if bytes.Equal(key.Marshal(), k.Blob) {
					return nil
				}
			}
			return fmt.Errorf("its host key %s is not in the roster", ssh.FingerprintSHA256(key))
		},
	}
}

// algorithms are those by which a server can prove one of the keys, so that it
// does not choose a key that nobody knows.
func algorithms(keys []cluster.SSHKey) []string {
	var list []string
	for _, k := range keys {
		if k.Type == ssh.KeyAlgoRSA {
			list = append(list, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			list = append(list, k.Type)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func trimLine(l string) string { return strings.TrimSpace(l) }

// keyOfLine reads the key of one line of authorized_keys.
func keyOfLine(line string) (cluster.SSHKey, bool) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return cluster.SSHKey{}, false
	}
	return cluster.SSHKey{Type: key.Type(), Blob: key.Marshal()}, true
}
