package noded

import (
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/rpc"
)

// TestSSHWay: the roster says how a node is reached, whatever was done to
// root's own files.
func TestSSHWay(t *testing.T) {
	w, h := founded(t)
	other := joined(t, w)
	w.mustPush(h.member().id.Node)
	ask := func(h *host, ref string) (way rpc.SSHWay, err error) {
		err = h.local.Do(t.Context(), http.MethodPost, rpc.LocalSSH, rpc.SSHWayRequest{Node: ref}, &way)
		return way, err
	}
	node := h.member().keeper.View().Roster.ByName(other.name)
	label, _, _ := strings.Cut(string(other.name), ".")
	for _, ref := range []string{string(other.name), label, other.addr().String(), node.UUID.String()} {
		way, err := ask(h, ref)
		if err != nil || way.Name != other.name || way.Address != other.addr() || way.Port != node.Ports.SSH || way.Bind != h.addr().String() {
			t.Errorf("%s: %+v, %v", ref, way, err)
			continue
		}
		if !slices.Equal(way.Identities, []string{h.cfg.Paths.SSHKey()}) {
			t.Errorf("%s: keys %q", ref, way.Identities)
		}
		text := h.read(way.KnownHosts)
		if key := strings.TrimSpace(string(marshal(t, node.HostKeys[0]))); !strings.Contains(text, string(other.name)+",") || !strings.Contains(text, key) {
			t.Errorf("%s: known hosts %q", ref, text)
		}
	}
	_, err := ask(h, "nobody")
	wantCode(t, "an unknown node", err, cluster.CodeNotFound)
	_, err = ask(h, netip.IPv4Unspecified().String())
	wantCode(t, "an address of none", err, cluster.CodeNotFound)
	_, err = ask(other, string(h.name))
	wantCode(t, "on a normal node", err, cluster.CodeNotMaster)
	if !strings.Contains(err.Error(), string(h.name)) {
		t.Errorf("the master is not named: %v", err)
	}
	if err := os.Remove(h.cfg.Paths.SSHKey()); err != nil {
		t.Fatal(err)
	}
	_, err = ask(h, string(other.name))
	wantCode(t, "without a key", err, cluster.CodeNotFound)
}
