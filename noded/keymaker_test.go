package noded

import (
	"context"
	"errors"
	"testing"

	"rolekey/cluster"
	"rolekey/internal/paths"
)

var rsaSpec = cluster.SSHKeySpec{Type: "rsa", Bits: 3072}

// TestG4SlowKeyHoldsUpNothing: a call whose peer is revoked ends while the key is
// still being made, and a call that is repeated gets that key.
func TestG4SlowKeyHoldsUpNothing(t *testing.T) {
	var m maker
	defer m.running.Wait()
	revoked, cancel := context.WithCancelCause(t.Context())
	why := errors.New("not the master any more")
	cancel(why)
	done := m.begin(rsaSpec, cluster.NodeID{1})
	if _, err := m.make(revoked, rsaSpec, cluster.NodeID{1}); !errors.Is(err, why) {
		t.Fatalf("a revoked call: %v", err)
	}
	<-done
	first, err := m.make(t.Context(), rsaSpec, cluster.NodeID{1})
	if err != nil {
		t.Fatal(err)
	}
	if m.begin(rsaSpec, cluster.NodeID{1}) != done {
		t.Error("the key that nobody took is not given")
	}
	if again, err := m.make(t.Context(), rsaSpec, cluster.NodeID{1}); err != nil || again != first {
		t.Errorf("the same order again makes another key: %v", err)
	}
	m.taken(first)
	if again, err := m.make(t.Context(), rsaSpec, cluster.NodeID{1}); err != nil || sameKey(again.key, first.key) {
		t.Errorf("a key that is in use is given again: %v", err)
	}
}

// Two kinds at a time are made one after the other, and each call gets its own.
func TestMakerKinds(t *testing.T) {
	var m maker
	defer m.running.Wait()
	type made struct {
		d   *draft
		err error
	}
	specs := []cluster.SSHKeySpec{{Type: "ed25519"}, {Type: "ecdsa", Bits: 256}, {Type: "ecdsa", Bits: 521}, rsaSpec}
	out := make([]chan made, len(specs))
	for i, s := range specs {
		out[i] = make(chan made, 1)
		go func() {
			d, err := m.make(t.Context(), s, cluster.NodeID{1})
			out[i] <- made{d, err}
		}()
	}
	for i, c := range out {
		if got := <-c; got.err != nil || got.d == nil || got.d.key.Type == "" {
			t.Errorf("%s: %v", specs[i], got.err)
		}
	}
}

// TestStorageSwitchKeepsTheNewKey: between files and memory nobody knows which
// key is the older one, and the new one is not listed yet.
func TestStorageSwitchKeepsTheNewKey(t *testing.T) {
	for _, way := range [][2]cluster.SSHKeyStorage{{cluster.StorageAgent, cluster.StorageFile}, {cluster.StorageFile, cluster.StorageAgent}} {
		k := keysAt(paths.Layout{Root: t.TempDir()})
		old := given(t, k, orderOf("ed25519", 0, way[0]))
		k.follow([]cluster.SSHKey{old}, cluster.NodeID{1}, never)
		next := given(t, k, orderOf("ed25519", 0, way[1], old), old)
		if removed, _ := k.follow([]cluster.SSHKey{old}, cluster.NodeID{1}, never); len(removed) > 0 {
			t.Errorf("from %s to %s: %q is destroyed before the map lists the new key", way[0], way[1], removed)
		}
		k.follow([]cluster.SSHKey{old, next}, cluster.NodeID{1}, never)
		k.follow([]cluster.SSHKey{next}, cluster.NodeID{1}, never)
		if held := k.held(); len(held) != 1 || !sameKey(held[0].key, next) || held[0].storage() != way[1] {
			t.Errorf("from %s to %s: %d keys are left", way[0], way[1], len(held))
		}
	}
}

// TestKeysInMemoryLeaveNothing: of a key in memory only the public half is on
// disk, and a new run does not even have that.
func TestKeysInMemoryLeaveNothing(t *testing.T) {
	at := paths.Layout{Root: t.TempDir()}
	k := keysAt(at)
	key := given(t, k, orderOf("ed25519", 0, cluster.StorageAgent))
	k.serveAt("/run/agent")
	files, agent, err := k.identities(cluster.NodeID{1}, []cluster.SSHKey{key})
	if err != nil || len(files) != 1 || agent != "/run/agent" {
		t.Fatalf("identities %q, agent %q: %v", files, agent, err)
	}
	if files, agent, err := k.identities(cluster.NodeID{1}, nil); err != nil || len(files) != 0 || agent != "" {
		t.Errorf("a key that is not listed is offered: %q, %q, %v", files, agent, err)
	}
	if strays, err := k.dir.Strays(); err != nil || len(strays) > 0 {
		t.Errorf("private keys on disk: %q, %v", strays, err)
	}
	again := keysAt(at)
	if err := again.recover(cluster.NodeID{1}); err != nil {
		t.Fatal(err)
	}
	if found, err := again.dir.Present(); err != nil || len(found) > 0 || len(again.held()) > 0 {
		t.Errorf("after a restart: %q, %v", found, err)
	}
}
