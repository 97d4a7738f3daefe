package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"

	"rolekey/internal/atomicfile"
	"rolekey/seal"
)

func checkDamage(t *testing.T, err, want error, part string) {
	t.Helper()
	var d *DamageError
	if want == nil {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	if !errors.Is(err, want) || !errors.As(err, &d) || d.Part != part {
		t.Fatalf("got %v, want %q: %v", err, part, want)
	}
}

func TestOpenStoreFormats(t *testing.T) {
	d := newDisk(t)
	closeStore(t, mustOpen(t, d))
	d.rewrite(t, func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte{2}) })
	if _, err := d.open(); !errors.Is(err, seal.ErrUnknownFormat) {
		t.Errorf("newer: got %v", err)
	}
	d.rewrite(t, func(tx *bolt.Tx) error {
		return errors.Join(tx.Bucket(bucketMeta).Put(keyFormat, storeFormat), tx.DeleteBucket(bucketLog))
	})
	var damage *DamageError
	if _, err := d.open(); !errors.As(err, &damage) {
		t.Errorf("no log: got %v", err)
	}
	d.rewrite(t, func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketMeta) })
	if _, err := d.open(); !errors.As(err, &damage) {
		t.Errorf("no format: got %v", err)
	}
	if _, err := OpenStore(StoreConfig{Path: d.db()}); err == nil {
		t.Error("no sealer: want an error")
	}
}

func mustOpen(t *testing.T, d *disk) *Store {
	t.Helper()
	s, err := d.open()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestG7OpenStoreAfterCrash starts from what a crash in the first second left.
func TestG7OpenStoreAfterCrash(t *testing.T) {
	tests := []struct {
		name  string
		leave func(d *disk, temp string) error
	}{
		{"empty temporary file", func(_ *disk, temp string) error { return os.WriteFile(temp, nil, 0o600) }},
		{"half a temporary file", func(_ *disk, temp string) error { return os.WriteFile(temp, make([]byte, 5000), 0o600) }},
		{"garbage", func(_ *disk, temp string) error { return os.WriteFile(temp, bytes.Repeat([]byte("x"), 40000), 0o600) }},
		{"whole temporary file", func(d *disk, temp string) error {
			s, err := d.open()
			if err != nil {
				return err
			}
			return errors.Join(s.Close(), os.Rename(d.db(), temp))
		}},
		{"linked, not yet removed", func(d *disk, temp string) error {
			s, err := d.open()
			if err != nil {
				return err
			}
			return errors.Join(s.StoreLog(entry(1, 1, "x")), s.Close(), os.Link(d.db(), temp))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDisk(t)
			temp := atomicfile.TempName(d.db())
			if err := tt.leave(d, temp); err != nil {
				t.Fatal(err)
			}
			s := d.store(t)
			if err := s.StoreLog(entry(2, 1, "y")); err != nil {
				t.Fatal(err)
			}
			if last, err := s.LastIndex(); last != 2 || err != nil {
				t.Errorf("last %d, %v", last, err)
			}
			if _, err := os.Lstat(temp); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("temporary file: %v", err)
			}
		})
	}
}

// TestOpenStoreDamaged cuts and overwrites raft.db: an error, never a panic and
// never a new database.
func TestOpenStoreDamaged(t *testing.T) {
	d := newDisk(t)
	s := mustOpen(t, d)
	for i := range uint64(40) {
		storeAll(t, s, entries(1+10*i, 10+10*i))
	}
	closeStore(t, s)
	good, err := os.ReadFile(d.db())
	if err != nil {
		t.Fatal(err)
	}
	half := func(n int) []byte { return good[:n] }
	noise := func(from int) []byte {
		b := bytes.Clone(good)
		for i := from; i < len(b); i++ {
			b[i] = 0xa5
		}
		return b
	}
	for name, content := range map[string][]byte{
		"one page": half(4096), "three pages": half(3 * 4096), "cut": half(20 * 4096), "noise": noise(0),
		"noise after the roots": noise(2 * 4096), "noise further on": noise(9 * 4096), "not whole pages": half(5000),
	} {
		t.Run(name, func(t *testing.T) {
			d := &disk{dir: t.TempDir(), keyring: d.keyring}
			if err := os.WriteFile(d.db(), content, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := d.open()
			if err == nil {
				_, err = Probe(s, d.snapshots(t))
			}
			var damage *DamageError
			if !errors.As(err, &damage) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(encodeEntry(entry(1, 2, "data")))
	f.Add(encodeEntry(&raft.Log{Extensions: []byte("e")}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var l raft.Log
		if err := decodeEntry(b, 1, &l); err == nil && !bytes.Equal(encodeEntry(&l), b) {
			t.Fatalf("accepted what it would not write: %x", b)
		}
	})
}

func BenchmarkStoreLog(b *testing.B) {
	for _, batch := range []int{1, 16} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			s := newDisk(b).store(b)
			data := make([]byte, 512)
			index := uint64(0)
			for b.Loop() {
				logs := make([]*raft.Log, batch)
				for i := range logs {
					index++
					logs[i] = &raft.Log{Index: index, Term: 1, Data: data}
				}
				storeAll(b, s, logs)
			}
		})
	}
}

func BenchmarkGetLog(b *testing.B) {
	s := newDisk(b).store(b)
	storeAll(b, s, entries(1, 1000))
	b.RunParallel(func(pb *testing.PB) {
		var l raft.Log
		for i := uint64(0); pb.Next(); i++ {
			if err := s.GetLog(i%1000+1, &l); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
