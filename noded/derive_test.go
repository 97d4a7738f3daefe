package noded

import (
	"os"
	"slices"
	"strings"
	"testing"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/noded/ssconf"
	"rolekey/rpc"
)

func (h *host) fact(name string) string {
	h.t.Helper()
	return strings.TrimSuffix(h.read(h.cfg.Paths.SSConf(name)), "\n")
}

// TestSSConfFollows: the files follow map and roster, come back after a
// restart, and leave with the node.
func TestSSConfFollows(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := joined(t, w)
	id := h.member().id.Node
	h.poll("the files are written", func() bool {
		return h.fact(ssconf.MasterNode) == string(first.name) && h.fact(ssconf.ReleaseVersion) != ""
	})
	if got := h.fact(ssconf.MasterCandidates); got != string(first.name) {
		t.Errorf("candidates %q", got)
	}
	if exists(h.cfg.Paths.SSConf(ssconf.ClusterName)) {
		t.Error("a roster of format 1 names no cluster")
	}
	w.promote(h, false)
	w.settle(candmap.Settings{Name: "dev.example"}, func(m *candmap.Map) { m.Master = id })
	w.mustPush(id)
	both := []string{string(first.name), string(h.name)}
	slices.Sort(both)
	list := strings.Join(both, "\n")
	// No acknowledgement waits for them.
	for name, want := range map[string]string{
		ssconf.MasterNode: string(h.name), ssconf.ClusterName: "dev.example", ssconf.MasterIP: "",
		ssconf.NodeList: list, ssconf.MasterCandidates: list,
	} {
		h.poll("ssconf_"+name+" follows", func() bool { return exists(h.cfg.Paths.SSConf(name)) && h.fact(name) == want })
	}
	w.next(func(m *candmap.Map) { m.Master = cluster.NodeID{} })
	w.mustPush(id)
	h.poll("the file says that there is no master", func() bool {
		return h.read(h.cfg.Paths.SSConf(ssconf.MasterNode)) == "" && exists(h.cfg.Paths.SSConf(ssconf.MasterNode))
	})
	h.stop()
	for _, name := range ssconf.Names {
		if err := os.Remove(h.cfg.Paths.SSConf(name)); err != nil {
			t.Fatal(err)
		}
	}
	h.up()
	h.poll("the files are rebuilt", func() bool { return h.fact(ssconf.ReleaseVersion) != "" }) // the last one
	if h.fact(ssconf.NodeList) == "" {
		t.Error("the list of nodes is not rebuilt")
	}
	if err := h.post(rpc.LocalLeave, struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range ssconf.Names {
		if exists(h.cfg.Paths.SSConf(name)) {
			t.Errorf("ssconf_%s is left", name)
		}
	}
}

// TestKnownMapRewritesFiles: the master delivers what is known to have files
// written anew, and hears of those that cannot be. Others cannot make a node
// work by that.
func TestKnownMapRewritesFiles(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := joined(t, w)
	id := h.member().id.Node
	w.mustPush(id)
	path := h.cfg.Paths.SSConf(ssconf.NodeList)
	want := h.read(path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, []byte("wrong"))
	if ack := w.mustPush(id); h.read(path) != want || len(ack.Problems) > 0 {
		t.Errorf("%q after the push, %q", h.read(path), ack.Problems)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path+"/x", 0o700); err != nil {
		t.Fatal(err)
	}
	var told rpc.MapAck
	other := w.caller(identityOf(first))
	if err := other.Call(t.Context(), nodedOf(id), rpc.MethodMapPut, "", rpc.MapDelivery{Maps: w.chain, Docs: w.docs()}, &told); err != nil || len(told.Problems) > 0 {
		t.Errorf("a member had the files rewritten: %q, %v", told.Problems, err)
	}
	ack := w.mustPush(id)
	if len(ack.Problems) != 1 || !strings.HasPrefix(ack.Problems[0], "derive: ") || !strings.Contains(ack.Problems[0], "ssconf_node_list") {
		t.Errorf("problems %q", ack.Problems)
	}
}
