package noded

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"rolekey/cluster"
	"rolekey/rpc"
)

// A masterd that asks while the member cannot start must not hear that there is
// no cluster: it would give up what it leads.
func TestG7MasterdIsNotToldToForget(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.masterd.start()
	h.up()
	view := func() (v rpc.LocalViewReply, err error) {
		err = h.local.Do(t.Context(), http.MethodGet, rpc.LocalView, nil, &v)
		return v, err
	}
	if v, err := view(); err != nil || !v.Cluster.IsZero() {
		t.Errorf("outside of a cluster: %s, %v", v.Cluster, err)
	}
	if _, err := h.init(initRequest(h)); err != nil {
		t.Fatal(err)
	}
	h.stop()
	key := filepath.Join(h.cfg.Paths.NodeDir(), "server.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	h.up()
	if v, err := view(); cluster.CodeOf(err) != cluster.CodeUnavailable {
		t.Errorf("without its key: %s, %v", v.Cluster, err)
	}
	h.stop()
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	h.up()
	if v, err := view(); err != nil || v.Cluster.IsZero() {
		t.Errorf("with its key again: %s, %v", v.Cluster, err)
	}
}
