package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/internal/lab"
	"rolekey/internal/paths"
	"rolekey/rpc"
	"rolekey/tests/kit"
)

// The weaknesses W1 to W10 were measured on a real Ganeti 3.0.2. Each must not
// exist here.

// refused makes a call that must be refused with one of the codes.
func (w *world) refused(c kit.Caller, to netip.AddrPort, path string, codes ...string) {
	w.t.Helper()
	a, err := c.Call(w.ctx, to, http.MethodGet, path, nil, nil)
	if err := kit.Refused(a, err, codes...); err != nil {
		w.t.Errorf("GET %s at %s: %v", path, to, err)
	}
}

func (w *world) served(ctx context.Context, c kit.Caller, to lab.Node) error {
	a, err := c.Call(ctx, w.Noded(to), http.MethodGet, "/v1/state", nil, nil)
	if err == nil && !a.OK() {
		err = fmt.Errorf("%s answered %s", to.Name, a)
	}
	return err
}

// left returns an error while a node has anything of a candidate.
func left(n lab.Node) error {
	if files := kit.CandidateFiles(n); len(files) > 0 {
		return fmt.Errorf("%s still has %v", n.Name, files)
	}
	return nil
}

// TestW1NoSharedSecrets: on Ganeti every node holds the cluster's private keys.
func TestW1NoSharedSecrets(t *testing.T) {
	w := rested(t)
	owner := map[string]string{}
	for _, n := range w.nodes() {
		allowed := privateFiles(n)
		for path, content := range filesBelow(t, n.Root) {
			private := bytes.Contains(content, []byte("PRIVATE KEY"))
			if private && !slices.Contains(allowed, path) {
				t.Errorf("%s holds a private key", path)
			}
			if !private && !slices.Contains(allowed, path) {
				continue
			}
			if other := owner[string(content)]; other != "" {
				t.Errorf("%s and %s are the same secret", path, other)
			}
			owner[string(content)] = path
			if st, err := os.Stat(path); err != nil || st.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: mode %v, %v", path, st.Mode(), err)
			}
		}
	}
	for _, name := range []string{"node4", "node5"} {
		if err := left(w.node(name)); err != nil {
			t.Errorf("a normal node: %v", err)
		}
	}
}

// privateFiles are the places of a node's own secrets.
func privateFiles(n lab.Node) []string {
	at := paths.Layout{Root: n.Root}
	return []string{
		at.ServerKey(), at.IdentityKey(), at.SSHKey(), at.CandidateKey(), at.SigningKey(), at.Keyring(), n.HostKey(),
	}
}

// filesBelow reads all regular files of a node but logs.
func filesBelow(t *testing.T, root string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) { // a temporary file of an atomic write
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		files[path] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestW2OpenConnectionsEnd: on Ganeti a certificate is checked at the handshake
// only, and a connection kept busy outlived its revocation by 40 s.
func TestW2OpenConnectionsEnd(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	w.settle()
	l := w.rob("node4")
	c := l.Caller(l.Candidate)
	var idle []*kit.Conn
	for _, n := range w.others("node4") {
		conn, err := c.Open(w.ctx, w.Noded(n))
		w.must(err)
		defer conn.Close()
		a, err := conn.Do(w.ctx, http.MethodGet, "/v1/state", nil, nil)
		if err != nil || !a.OK() {
			t.Fatalf("%s before the demotion: %s, %v", n.Name, a, err)
		}
		idle = append(idle, conn)
	}
	drip := w.drip(c, w.Noded(w.node("node5")))
	w.admin(0, "gnt-node", "modify", "-C", "no", "node4")
	for _, conn := range idle {
		select {
		case <-conn.Gone():
		case <-time.After(limit):
			t.Error("an idle connection is open after the demotion")
		}
	}
	select {
	case answer := <-drip:
		if bytes.Contains(answer, []byte("200 OK")) {
			t.Errorf("a request that was begun before the demotion was served: %q", answer)
		}
	case <-time.After(limit):
		t.Error("a connection that sends a byte at a time is open after the demotion")
	}
}

// drip sends the header of a request byte by byte, without end. The channel
// gets what came back when the connection has ended.
func (w *world) drip(c kit.Caller, to netip.AddrPort) <-chan []byte {
	w.t.Helper()
	raw, err := c.Dial(w.ctx, to)
	w.must(err)
	cfg := c.TLS()
	cfg.NextProtos = []string{"http/1.1"}
	conn := tls.Client(raw, cfg)
	w.must(conn.HandshakeContext(w.ctx))
	ctx, cancel := context.WithCancel(w.ctx)
	w.t.Cleanup(func() { cancel(); conn.Close() })
	go func() {
		_, _ = fmt.Fprintf(conn, "GET /v1/state HTTP/1.1\r\nHost: node\r\nX-Slow: ") // its end is what is awaited
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if _, err := conn.Write([]byte("x")); err != nil {
					return
				}
			}
		}
	}()
	ended := make(chan []byte, 1)
	go func() {
		var got bytes.Buffer
		_, _ = got.ReadFrom(conn)
		ended <- got.Bytes()
	}()
	return ended
}

// TestW3MissedDemotion: on Ganeti a node whose noded was down during a demotion
// went on accepting the certificate, and nobody was told.
func TestW3MissedDemotion(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	w.settle()
	l := w.rob("node4")
	w.must(w.Kill(w.ctx, "node5", lab.Noded))
	r := w.admin(3, "gnt-node", "modify", "-C", "no", "node4")
	if !strings.Contains(r.Stderr, "node5") || !strings.Contains(r.Stderr, "RPC") || !strings.Contains(r.Stderr, "sshd") {
		t.Errorf("the command does not name node5 and its two bounds: %q", r.Stderr)
	}
	ctx, stop := context.WithCancel(w.ctx)
	asked := make(chan [2]int, 1)
	go func() { asked <- w.ask(ctx, l, w.node("node5")) }()
	w.must(w.Start(w.ctx, "node5"))
	w.settle()
	stop()
	if n := <-asked; n[0] == 0 || n[1] > 0 {
		t.Errorf("node5 answered %d calls of the demoted node, and served %d", n[0], n[1])
	}
	w.refused(l.Caller(l.Candidate), w.Noded(w.node("node5")), "/v1/state", "not_in_map")
}

// ask calls again and again; it returns how many calls were answered and how
// many served.
func (w *world) ask(ctx context.Context, l *kit.Loot, to lab.Node) (n [2]int) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return n
		case <-tick.C:
		}
		a, err := l.Caller(l.Candidate).Call(ctx, w.Noded(to), http.MethodGet, "/v1/state", nil, nil)
		if err != nil {
			continue
		}
		n[0]++
		if a.OK() {
			n[1]++
		}
	}
}

// TestW4NoMapNoCalls: on Ganeti a missing or empty map opens a node for
// everybody's shared certificate.
func TestW4NoMapNoCalls(t *testing.T) {
	w := rested(t)
	node5 := w.node("node5")
	candidate, own := w.voterThatIsNotMaster(), w.rob("node5")
	path := paths.Layout{Root: node5.Root}.CurrentMap()
	good, err := os.ReadFile(path)
	w.must(err)
	for name, spoil := range map[string]func() error{
		"empty":   func() error { return os.WriteFile(path, nil, 0o600) },
		"cut":     func() error { return os.WriteFile(path, good[:len(good)/2], 0o600) },
		"missing": func() error { return os.Remove(path) },
	} {
		w.must(w.Kill(w.ctx, "node5", lab.Noded))
		w.must(spoil())
		w.must(w.Start(w.ctx, "node5"))
		for who, cert := range map[string]*tls.Certificate{
			"a candidate's": candidate.Candidate, "its own identity": own.Member, "its own server's": own.Server, "no": nil,
		} {
			a, err := own.Caller(cert).Call(w.ctx, w.Noded(node5), http.MethodGet, "/v1/state", nil, nil)
			if err == nil && a.OK() {
				t.Errorf("with its map %s, node5 serves the bearer of %s certificate", name, who)
			}
		}
	}
	w.must(w.Kill(w.ctx, "node5", lab.Noded))
	w.must(os.WriteFile(path, good, 0o600))
	w.must(w.Start(w.ctx, "node5"))
	w.until("node5 serves again", func(ctx context.Context) error {
		return w.served(ctx, candidate.Caller(candidate.Candidate), node5)
	})
}

// TestW5EveryMethodHasItsTier: on Ganeti any candidate may call everything.
func TestW5EveryMethodHasItsTier(t *testing.T) {
	w := rested(t)
	voter, normal := w.voterThatIsNotMaster(), w.rob("node5")
	at, err := voter.At()
	w.must(err)
	stamp := http.Header{rpc.StampHeader: {rpc.Stamp{Version: at, Term: 1 << 40}.String()}}
	check := func(to netip.AddrPort, m rpc.Method, c kit.Caller, code string) {
		path := strings.NewReplacer("{hash}", strings.Repeat("0", 64), "{message}", "vote").Replace(m.Path)
		a, err := c.Call(w.ctx, to, m.Verb, path, stamp.Clone(), nil)
		if err := kit.Refused(a, err, code); err != nil {
			t.Errorf("%s at %s: %v", m.Name, to, err)
		}
	}
	for _, n := range w.nodes() {
		for _, m := range rpc.NodedMethods() {
			if m.Tier >= rpc.TierMaster {
				check(w.Noded(n), m, voter.Caller(voter.Candidate), "not_master")
			}
			if m.Tier >= rpc.TierCandidate {
				check(w.Noded(n), m, normal.Caller(normal.Member), "not_in_map")
			}
			if m.Tier >= rpc.TierMember {
				check(w.Noded(n), m, normal.Caller(nil), "no_certificate")
			}
		}
	}
	for _, name := range []string{"node1", "node2", "node3"} {
		for _, m := range rpc.MasterdMethods() {
			if m.Tier >= rpc.TierCandidate {
				check(w.Masterd(w.node(name)), m, normal.Caller(normal.Member), "not_in_map")
			}
			if m.Tier >= rpc.TierMember {
				check(w.Masterd(w.node(name)), m, normal.Caller(nil), "no_certificate")
			}
		}
	}
}

// TestW6Certificates: on Ganeti SHA-1 of one shared RSA certificate without
// names is the identity, and TLS 1.2 is accepted.
func TestW6Certificates(t *testing.T) {
	w := rested(t)
	keys := map[string]string{}
	for _, n := range w.nodes() {
		l := w.rob(n.Name)
		conn, err := l.Caller(l.Member).Open(w.ctx, w.Noded(n))
		w.must(err)
		defer conn.Close()
		leaf := conn.State.PeerCertificates[0]
		if pub, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
			t.Errorf("%s serves with a key of type %T", n.Name, leaf.PublicKey)
		}
		if other := keys[string(leaf.RawSubjectPublicKeyInfo)]; other != "" {
			t.Errorf("%s and %s serve with one key", n.Name, other)
		}
		keys[string(leaf.RawSubjectPublicKeyInfo)] = n.Name
		urn := "urn:uuid:" + l.ID.String()
		hasURN := slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool { return u.String() == urn })
		if !hasURN || !slices.Contains(leaf.DNSNames, n.Name) {
			t.Errorf("%s is named %v %v, want %s", n.Name, leaf.URIs, leaf.DNSNames, urn)
		}
		old := l.Caller(l.Member)
		raw, err := old.Dial(w.ctx, w.Noded(n))
		w.must(err)
		cfg := old.TLS()
		cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		if err := tls.Client(raw, cfg).HandshakeContext(w.ctx); err == nil {
			t.Errorf("%s speaks TLS 1.2", n.Name)
		}
		raw.Close()
	}
}

// TestW7OldSSHKeysAreDead: on Ganeti renewed SSH keys leave the old ones
// authorized, and their private halves on disk.
func TestW7OldSSHKeysAreDead(t *testing.T) {
	w := rested(t)
	dir := t.TempDir()
	var stolen []string
	for i := range 3 {
		w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
		l := w.rob("node4")
		if len(l.SSHKey) == 0 {
			t.Fatal("a candidate has no SSH key")
		}
		stolen = append(stolen, filepath.Join(dir, fmt.Sprint(i)))
		w.must(os.WriteFile(stolen[i], l.SSHKey, 0o600))
		if i == 2 {
			w.must(w.LoginWith(w.ctx, stolen[i], w.node("node4"), w.node("node5"))) // such a key is good while it is
		}
		w.admin(0, "gnt-node", "modify", "-C", "no", "node4")
	}
	for i, key := range stolen {
		if err := kit.ShutOut(w.LoginWith(w.ctx, key, w.node("node4"), w.nodes()[i])); err != nil {
			t.Errorf("key %d on %s: %v", i, w.nodes()[i].Name, err)
		}
	}
	for _, n := range w.nodes() {
		b, err := os.ReadFile(n.AuthorizedKeys())
		w.must(err)
		if got := strings.Count(string(b), " rolekey:"); got != 3 {
			t.Errorf("%s authorizes %d keys of candidates, want 3", n.Name, got)
		}
	}
	if err := left(w.node("node4")); err != nil {
		t.Error(err)
	}
}

// TestW8OfflineLeavesNothing: on Ganeti a candidate that was set offline keeps
// its copy of everything, also when it returns.
func TestW8OfflineLeavesNothing(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	w.settle()
	l := w.rob("node4")
	w.must(w.Stop(w.ctx, "node4"))
	w.admin(0, "gnt-node", "modify", "-O", "yes", "node4")
	for _, n := range w.others("node4") {
		w.refused(l.Caller(l.Candidate), w.Noded(n), "/v1/state", "not_in_map")
	}
	w.must(w.Start(w.ctx, "node4"))
	w.admin(0, "gnt-node", "modify", "-O", "no", "-C", "no", "node4") // else it is a candidate again
	w.until("node4 has destroyed its keys", func(context.Context) error { return left(w.node("node4")) })
	w.settle()
	w.clean()
}

// TestW8BackWithNewKeys: a candidate that was offline is one again when it is
// online, and what it had before opens nothing.
func TestW8BackWithNewKeys(t *testing.T) {
	w := rested(t)
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	w.settle()
	l := w.rob("node4")
	w.must(w.Stop(w.ctx, "node4"))
	w.admin(0, "gnt-node", "modify", "-O", "yes", "node4")
	w.must(w.Start(w.ctx, "node4"))
	w.admin(0, "gnt-node", "modify", "-O", "no", "node4")
	w.until("node4 is a candidate again", func(context.Context) error { // for good: if its keys got lost meanwhile it gets others
		if !w.readMap().Has("node4") {
			return errors.New(w.admin(0, "gnt-job", "list", "-o", "id,status,summary,error").Stdout)
		}
		return nil
	})
	w.settle()
	for _, n := range w.nodes() {
		w.refused(l.Caller(l.Candidate), w.Noded(n), "/v1/state", "not_in_map")
	}
	w.admin(0, "gnt-node", "modify", "-C", "no", "node4")
	w.settle()
	w.clean()
}

// TestW9NothingHalf: on Ganeti a change that failed leaves part of it behind.
func TestW9NothingHalf(t *testing.T) {
	w := rested(t)
	w.must(w.Stop(w.ctx, "node4"))
	before := w.readMap()
	r, err := w.tryAdmin("gnt-node", "modify", "-C", "yes", "node4")
	w.must(err)
	if r.Code != 1 || !strings.Contains(r.Stderr, "node4") {
		t.Errorf("promoting a node that is off: exit code %d: %q", r.Code, r.Stderr)
	}
	if m := w.readMap(); m.Has("node4") || len(m.Candidates) != len(before.Candidates) {
		t.Errorf("the map has changed: %+v", m.Candidates)
	}
	w.must(w.Start(w.ctx, "node4"))
	w.settle()
	w.clean()
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4") // again helps
	w.settle()
	w.clean()
}

// TestW10Strangers: on Ganeti every connection costs a fork of 58 MiB before
// any check.
func TestW10Strangers(t *testing.T) {
	w := rested(t)
	node5, voter := w.node("node5"), w.voterThatIsNotMaster()
	before := rss(t, node5.PIDs.Noded)
	stranger := kit.Caller{From: netip.MustParseAddr(w.node("node4").Address)}
	open := 0
	for range 400 {
		conn, err := stranger.Dial(w.ctx, w.Noded(node5))
		if err != nil {
			continue
		}
		defer conn.Close()
		open++
	}
	if open < 100 {
		t.Fatalf("only %d connections: no siege", open)
	}
	for range 20 {
		start := time.Now()
		w.must(w.served(w.ctx, voter.Caller(voter.Candidate), node5))
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("a candidate's call took %v among strangers", took)
		}
	}
	w.admin(0, "gnt-node", "modify", "-C", "yes", "node4")
	w.admin(0, "gnt-node", "modify", "-C", "no", "node4")
	if grown := rss(t, node5.PIDs.Noded) - before; grown > 32<<20 {
		t.Errorf("noded has grown by %d MiB", grown>>20)
	}
}

// rss is the resident memory of a process.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	n, err := kit.RSS(pid)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
