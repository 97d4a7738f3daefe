package noded

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"rolekey/candmap/gossip"
	"rolekey/cluster"
)

func ringOf(keys string) (ring []cluster.Secret) {
	for _, k := range keys {
		ring = append(ring, cluster.NewSecret(bytes.Repeat([]byte{byte(k)}, gossip.KeySize)))
	}
	return ring
}

func TestChooseRing(t *testing.T) {
	for _, c := range []struct{ wanted, known, want string }{
		{"a", "a", "a"},
		{"ab", "a", "a"},   // b is fetched
		{"ab", "ba", "ab"}, // the roster says which is sent with
		{"ba", "ab", "ba"},
		{"b", "ab", "b"},
		{"c", "ab", ""}, // what there is is kept
		{"", "ab", ""},
	} {
		got := chooseRing(digestsOf(ringOf(c.wanted)), ringOf(c.known))
		if !slices.Equal(digestsOf(got), digestsOf(ringOf(c.want))) {
			t.Errorf("%q of %q: %d keys, want %q", c.wanted, c.known, len(got), c.want)
		}
	}
}

func TestReadRing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gossip.key")
	if _, err := readRing(path); err == nil {
		t.Error("a missing file is read")
	}
	for size, ok := range map[int]bool{0: false, 31: false, 32: true, 33: false, 64: true, 96: true, 128: false} {
		if err := os.WriteFile(path, bytes.Repeat([]byte{7}, size), 0o600); err != nil {
			t.Fatal(err)
		}
		ring, err := readRing(path)
		if (err == nil) != ok || ok && len(ring) != size/gossip.KeySize {
			t.Errorf("%d bytes: %d keys, %v", size, len(ring), err)
		}
	}
}
