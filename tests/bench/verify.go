package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

const (
	verifyCandidates = 3
	loginsAtOnce     = 2 // to one sshd, as verify does
)

// verify measures verify with all its probes against the bare time of the same
// SSH authentications. Both take turns, so that they meet the same load. Each
// candidate logs in to every other node; normal nodes offer a key that is not
// authorized as often as they did for verify in this round: pairs that did less
// than 15 s ago do not do so again.
func (b *bench) verify(ctx context.Context) error {
	if err := b.fullPool(ctx); err != nil {
		return err
	}
	var whole, bare, ratio, refused []float64
	for range b.rounds {
		if err := b.settle(ctx); err != nil { // a busy machine may have made another node master
			return err
		}
		out, took, err := b.output(ctx, "gnt-cluster", "verify")
		if err != nil {
			return err
		}
		strangers, err := refusedLogins(out)
		if err != nil {
			return err
		}
		alone, err := b.bareLogins(ctx, strangers)
		if err != nil {
			return err
		}
		whole, bare, ratio = append(whole, ms(took)), append(bare, ms(alone)), append(ratio, float64(took)/float64(alone))
		refused = append(refused, float64(strangers))
	}
	var most target
	if b.nodes == 8 {
		most = atMost(1000)
	}
	name := fmt.Sprintf("verify, %d nodes, ", b.nodes)
	show(name+"with all probes", "ms", whole, most)
	show(name+fmt.Sprintf("%d bare logins, and refused ones", verifyCandidates*(b.nodes-1)), "ms", bare, target{})
	show(name+"refused ones", "", refused, target{})
	show(name+"times the bare logins", "x", ratio, atMost(1.4))
	return nil
}

// fullPool waits until the first nodes are the candidates.
func (b *bench) fullPool(ctx context.Context) error {
	all, err := b.c.Nodes(ctx)
	if err != nil {
		return err
	}
	_, err = kit.Until(ctx, patience, func(ctx context.Context) error {
		m, err := b.c.ReadMap(ctx, b.master.Name)
		if err != nil {
			return err
		}
		for _, n := range all[:verifyCandidates] {
			if !m.Has(n.Name) {
				return fmt.Errorf("%s is no candidate yet", n.Name)
			}
		}
		return nil
	})
	return err
}

var (
	refusedLine = regexp.MustCompile(`NOTICE: \d+ calls and (\d+) logins were refused, as they must be`)
	earlierLine = regexp.MustCompile(`NOTICE: Of these logins (\d+) met their refusal in an earlier run`)
)

// refusedLogins reads from a report how many logins were made in vain.
func refusedLogins(report []byte) (int, error) {
	m := refusedLine.FindSubmatch(report)
	if m == nil {
		return 0, fmt.Errorf("the report does not count refusals: %s", report)
	}
	n, err := strconv.Atoi(string(m[1]))
	if m = earlierLine.FindSubmatch(report); m == nil || err != nil {
		return n, err
	}
	earlier, err := strconv.Atoi(string(m[1]))
	return n - earlier, err
}

// bareLogins authenticates with each candidate's key to every other node, and has
// normal nodes try so many times, with nothing around it.
func (b *bench) bareLogins(ctx context.Context, strangers int) (time.Duration, error) {
	st, err := b.c.State(ctx)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	errs := make(chan error, verifyCandidates*b.nodes+strangers)
	slots := map[string]chan struct{}{}
	for _, n := range st.Nodes {
		slots[n.Name] = make(chan struct{}, loginsAtOnce)
	}
	try := func(from, to lab.Node, signer ssh.Signer, check func(error) error) {
		wg.Go(func() {
			slots[to.Name] <- struct{}{}
			defer func() { <-slots[to.Name] }()
			errs <- check(bareLogin(ctx, from, to, signer))
		})
	}
	began := time.Now()
	for _, from := range st.Nodes[:verifyCandidates] { // as fullPool has seen
		signer, err := keyOf(from)
		if err != nil {
			return 0, err
		}
		for _, to := range st.Nodes {
			if to.Name != from.Name {
				try(from, to, signer, func(err error) error { return err })
			}
		}
	}
	if normal := len(st.Nodes) - verifyCandidates; strangers > 0 {
		for i := range strangers {
			from := verifyCandidates + i%normal
			signer, err := newSigner()
			if err != nil {
				return 0, err
			}
			try(st.Nodes[from], st.Nodes[(from+1+i/normal)%len(st.Nodes)], signer, mustRefuse)
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

// mustRefuse returns nil for the error of a login that sshd refused.
func mustRefuse(err error) error {
	if err == nil {
		return errors.New("a key that nobody authorized opens a node")
	}
	if strings.Contains(err.Error(), "unable to authenticate") {
		return nil
	}
	return err
}

func newSigner() (ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(key)
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
