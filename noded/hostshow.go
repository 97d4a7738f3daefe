package noded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/sshkeys"
)

// errShown ends a handshake that has told what it was made for.
var errShown = errors.New("host key shown")

// shows returns nil if the sshd that runs at one of the node's addresses has
// the keys that are new, or any of them if none is.
func (m *member) shows(ctx context.Context, n *candmap.RosterNode, keys []cluster.SSHKey, port uint16) error {
	ask := newKeys(keys, n.HostKeys)
	if len(ask) == 0 {
		ask = keys[:1]
	}
	var errs []error
	for _, a := range n.Addresses {
		err := m.showsAt(ctx, netip.AddrPortFrom(a, port), ask)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (m *member) showsAt(ctx context.Context, at netip.AddrPort, keys []cluster.SSHKey) error {
	if m.cfg.ShowsHostKeys != nil {
		return m.cfg.ShowsHostKeys(ctx, at, keys)
	}
	for _, k := range keys {
		if err := showsKey(ctx, at, k); err != nil {
			return fmt.Errorf("sshd at %s does not show its host key %s: %w", at, sshkeys.Fingerprint(k), err)
		}
	}
	return nil
}

// showsKey begins to log in and stops when the host key is there: it has been
// proved then that sshd holds the private half.
func showsKey(ctx context.Context, at netip.AddrPort, want cluster.SSHKey) error {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	defer raw.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := raw.SetDeadline(end); err != nil {
			return err
		}
	}
	var shown atomic.Bool
	conn, _, _, err := ssh.NewClientConn(raw, at.String(), &ssh.ClientConfig{
		HostKeyAlgorithms: algorithms([]cluster.SSHKey{want}),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if !bytes.Equal(key.Marshal(), want.Blob) {
				return fmt.Errorf("it shows %s", ssh.FingerprintSHA256(key))
			}
			shown.Store(true)
			return errShown
		},
	})
	switch {
	case err == nil:
		return errors.Join(errors.New("it let us in without a key"), conn.Close())
	case shown.Load():
		return nil
	}
	return err
}
