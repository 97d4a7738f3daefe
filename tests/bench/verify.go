package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

const (
	verifyCandidates = 3
	loginsAtOnce     = 2 // to one sshd, as verify does
)

// verifying measures verify with all its probes against the bare time of as many
// SSH authentications, in clusters of several sizes, one after the other.
func verifying(ctx context.Context, rounds int) error {
	for _, n := range sizes {
		code, err := kit.WithCluster(ctx, lab.Config{Nodes: n, CandidatePoolSize: verifyCandidates}, "verify", strconv.Itoa(rounds))
		if err == nil && code != 0 {
			err = errors.New("it was not measured")
		}
		if err != nil {
			return fmt.Errorf("verify: cluster of %d: %w", n, err)
		}
	}
	return nil
}

// measureVerify runs inside a cluster.
func measureVerify(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	rounds, err := strconv.Atoi(args[1])
	if err == nil {
		var b *bench
		if b, err = newBench(ctx, args[0], rounds); err == nil {
			err = b.verify(ctx)
		}
	}
	if err != nil {
		return failed(err)
	}
	return 0
}

// verify takes turns with the bare logins, so that both meet the same load.
func (b *bench) verify(ctx context.Context) error {
	var whole, bare, ratio []float64
	for range b.rounds {
		took, err := b.command(ctx, "gnt-cluster", "verify")
		if err != nil {
			return err
		}
		alone, err := b.bareLogins(ctx)
		if err != nil {
			return err
		}
		whole, bare, ratio = append(whole, ms(took)), append(bare, ms(alone)), append(ratio, float64(took)/float64(alone))
	}
	var most target
	if b.nodes == 8 {
		most = atMost(1000)
	}
	name := fmt.Sprintf("verify, %d nodes, ", b.nodes)
	show(name+"with all probes", "ms", whole, most)
	show(name+fmt.Sprintf("%d bare logins", verifyCandidates*(b.nodes-1)), "ms", bare, target{})
	show(name+"times the bare logins", "x", ratio, atMost(1.4))
	return nil
}

// bareLogins authenticates with each candidate's key to every other node, with
// nothing around it.
func (b *bench) bareLogins(ctx context.Context) (time.Duration, error) {
	st, err := b.c.State(ctx)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	errs := make(chan error, verifyCandidates*b.nodes)
	slots := map[string]chan struct{}{}
	for _, n := range st.Nodes {
		slots[n.Name] = make(chan struct{}, loginsAtOnce)
	}
	began := time.Now()
	for _, from := range st.Nodes[:verifyCandidates] {
		signer, err := keyOf(from)
		if err != nil {
			return 0, err
		}
		for _, to := range st.Nodes {
			if to.Name == from.Name {
				continue
			}
			wg.Go(func() {
				slots[to.Name] <- struct{}{}
				defer func() { <-slots[to.Name] }()
				errs <- bareLogin(ctx, from, to, signer)
			})
		}
	}
	wg.Wait()
	took := time.Since(began)
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return took, err
}

func keyOf(n lab.Node) (ssh.Signer, error) {
	text, err := os.ReadFile(filepath.Join(n.Root, "var/lib/rolekey/ssh/id"))
	if err != nil {
		return nil, err
	}
	return ssh.ParsePrivateKey(text)
}

func bareLogin(ctx context.Context, from, to lab.Node, signer ssh.Signer) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from.Address)}}
	at := net.JoinHostPort(to.Address, strconv.Itoa(to.SSHPort))
	raw, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		return err
	}
	defer raw.Close()
	conn, _, _, err := ssh.NewClientConn(raw, at, &ssh.ClientConfig{
		User: to.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // who it is is not measured
	})
	if err != nil {
		return fmt.Errorf("log in from %s to %s: %w", from.Name, to.Name, err)
	}
	return conn.Close()
}
