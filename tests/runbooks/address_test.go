package runbooks

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/internal/lab"
)

// TestChangedAddresses moves all nodes while they are off.
func TestChangedAddresses(t *testing.T) {
	w := up(t, lab.Config{Nodes: 3, CandidatePoolSize: 3})
	nodes, err := w.Nodes(w.ctx)
	w.must(err)
	for _, n := range nodes {
		w.must(w.Stop(w.ctx, n.Name))
	}
	for i, n := range nodes {
		w.moved = append(w.moved, fmt.Sprintf("192.0.2.%d", 11+i), w.move(n))
	}
	for _, n := range nodes {
		w.must(w.Start(w.ctx, n.Name))
	}
	w.follow("changed addresses of all nodes")
	w.healthy(3)
	for _, n := range nodes {
		w.await("the new address in the list", true, func() error {
			r, err := w.Must(w.ctx, 0, "node1", "gnt-node", "list", "--no-headers", "-o", "address", n.Name)
			if err == nil && strings.Contains(r.Stdout, n.Address) {
				err = fmt.Errorf("%s is still listed with %s", n.Name, n.Address)
			}
			return err
		})
	}
}

// move gives a node that is down another address, in its configuration, and
// returns it. Its sshd keeps the old one as well, where the lab expects it.
func (w *world) move(n lab.Node) string {
	w.t.Helper()
	b := netip.MustParseAddr(n.Address).As4()
	b[2]++
	to := netip.AddrFrom4(b).String()
	for _, f := range []string{"noded.toml", "masterd.toml"} {
		path := filepath.Join(n.Root, "etc/rolekey", f)
		text, err := os.ReadFile(path)
		w.must(err)
		w.must(os.WriteFile(path, []byte(strings.ReplaceAll(string(text), `"`+n.Address+`"`, `"`+to+`"`)), 0o644))
	}
	path := filepath.Join(n.Root, "etc/ssh/sshd_config")
	text, err := os.ReadFile(path)
	w.must(err)
	old := fmt.Sprintf("ListenAddress %s:%d\n", n.Address, n.SSHPort)
	if !strings.Contains(string(text), old) {
		w.t.Fatalf("sshd's configuration does not say %q", old)
	}
	w.must(os.WriteFile(path, []byte(strings.Replace(string(text), old, old+strings.Replace(old, n.Address, to, 1), 1)), 0o644))
	return to
}
