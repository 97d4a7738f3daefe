package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/internal/atomicfile"
	"rolekey/seal"
)

var testServers = raft.Configuration{Servers: []raft.Server{
	{Suffrage: raft.Voter, ID: "secret-server-1", Address: "secret-address-1"},
	{Suffrage: raft.Nonvoter, ID: "secret-server-2", Address: ""},
}}

func beginSnapshot(t testing.TB, s *Snapshots, index, term uint64) raft.SnapshotSink {
	t.Helper()
	sink, err := s.Create(1, index, term, testServers, index-1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sink
}

func takeSnapshot(t testing.TB, s *Snapshots, index, term uint64, content []byte) (id string) {
	t.Helper()
	sink := beginSnapshot(t, s, index, term)
	if _, err := io.Copy(sink, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	return sink.ID()
}

func readSnapshot(s *Snapshots, id string) (*raft.SnapshotMeta, []byte, error) {
	meta, r, err := s.Open(id)
	if err != nil {
		return nil, nil, err
	}
	content, err := io.ReadAll(r)
	return meta, content, errors.Join(err, r.Close())
}

func listIDs(t *testing.T, s *Snapshots) (ids []string) {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		ids = append(ids, m.ID)
	}
	return ids
}

func fileNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSnapshotRoundTrip(t *testing.T) {
	s := newDisk(t).snapshots(t)
	if ids := listIDs(t, s); ids != nil {
		t.Fatalf("empty store lists %v", ids)
	}
	for i, n := range []int{0, 1, 64 << 10, 64<<10 + 1, 300_000} {
		content := bytes.Repeat([]byte{byte(i), 7}, n)[:n]
		id := takeSnapshot(t, s, 100+uint64(i), 3, content)
		meta, got, err := readSnapshot(s, id)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
		}
		want := &raft.SnapshotMeta{
			Version: 1, ID: id, Index: 100 + uint64(i), Term: 3, Configuration: testServers,
			ConfigurationIndex: 99 + uint64(i), Size: int64(n),
		}
		if !reflect.DeepEqual(meta, want) {
			t.Errorf("got %+v, want %+v", meta, want)
		}
	}
}

func TestSnapshotRetention(t *testing.T) {
	d := newDisk(t)
	s := d.snapshots(t)
	var ids []string
	for _, index := range []uint64{5, 20, 100, 100, 1000} {
		ids = append(ids, takeSnapshot(t, s, index, 2, []byte("state")))
		want := []string{ids[len(ids)-1]}
		if len(ids) > 1 {
			want = append(want, ids[len(ids)-2])
		}
		if got := listIDs(t, s); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	if got := fileNames(t, s.dir); len(got) != retained {
		t.Errorf("in the folder: %v", got)
	}
	if got := listIDs(t, d.snapshots(t)); len(got) != 2 || got[0] != ids[4] {
		t.Errorf("after a restart: %v", got)
	}
}

// TestSnapshotClockBack: of two snapshots at one index the later one counts,
// whatever the clock says, also after a restart.
func TestSnapshotClockBack(t *testing.T) {
	d := newDisk(t)
	now := time.UnixMilli(1_700_000_000_000)
	open := func() *Snapshots {
		s, err := OpenSnapshots(SnapshotsConfig{Dir: filepath.Join(d.dir, "snapshots"), Keyring: d.keyring, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	for i := range 4 {
		id := takeSnapshot(t, s, 100, 2, fmt.Append(nil, "state ", i))
		if got := listIDs(t, s); got[0] != id {
			t.Fatalf("%d: newest is %s, want %s", i, got[0], id)
		}
		now = now.Add(-time.Hour)
		s = open()
	}
}

func TestSnapshotReadWhileReaped(t *testing.T) {
	s := newDisk(t).snapshots(t)
	content := bytes.Repeat([]byte("state"), 100_000)
	id := takeSnapshot(t, s, 1, 1, content)
	_, r, err := s.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		takeSnapshot(t, s, 2+i, 1, nil)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("a leader lost the snapshot it sends: %d bytes, %v", len(got), err)
	}
	if _, _, err := s.Open(id); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("reaped: got %v", err)
	}
}

func TestSnapshotCancel(t *testing.T) {
	s := newDisk(t).snapshots(t)
	sink := beginSnapshot(t, s, 7, 1)
	if _, err := sink.Write(make([]byte, 200_000)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sink.Cancel(), sink.Cancel(), sink.Close()); err != nil {
		t.Fatal(err)
	}
	if got := fileNames(t, s.dir); got != nil {
		t.Fatalf("left behind: %v", got)
	}
	sink = beginSnapshot(t, s, 7, 1)
	if err := errors.Join(sink.Close(), sink.Close(), sink.Cancel()); err != nil {
		t.Fatal(err)
	}
	if got := listIDs(t, s); len(got) != 1 {
		t.Fatalf("cancel after close removed it: %v", got)
	}
}

func TestSnapshotCreateRefuses(t *testing.T) {
	s := newDisk(t).snapshots(t)
	if _, err := s.Create(0, 7, 1, testServers, 1, nil); err == nil {
		t.Error("version 0: want an error")
	}
	many := raft.Configuration{Servers: make([]raft.Server, maxServers+1)}
	sink, err := s.Create(1, 7, 1, many, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); !errors.Is(err, seal.ErrTooLarge) {
		t.Errorf("what would not open again was written: %v", err)
	}
	if got := fileNames(t, s.dir); got != nil {
		t.Errorf("left behind: %v", got)
	}
}

// TestG7SnapshotLeftovers starts from what crashes left: cleaned where it is
// ours, untouched where it is not.
func TestG7SnapshotLeftovers(t *testing.T) {
	d := newDisk(t)
	s := d.snapshots(t)
	id := takeSnapshot(t, s, 7, 1, []byte("state"))
	sink := beginSnapshot(t, s, 8, 1) // and never closed
	if _, err := sink.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(s.path(id))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		atomicfile.TempName(s.path("1-9-9")): whole[:len(whole)/2],
		atomicfile.TempName(s.path("1-9-8")): nil,
		filepath.Join(s.dir, "README"):       []byte("of the administrator"),
		filepath.Join(s.dir, "01-9-8.snap"):  []byte("not our spelling"),
		filepath.Join(s.dir, "-1-9-8.snap"):  nil,
		filepath.Join(s.dir, "1-9-8.snap.x"): nil,
	} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = d.snapshots(t)
	if got := listIDs(t, s); len(got) != 1 || got[0] != id {
		t.Errorf("got %v, want %s", got, id)
	}
	want := []string{"-1-9-8.snap", "01-9-8.snap", "1-9-8.snap.x", id + ".snap", "README"}
	slices.Sort(want)
	if got := fileNames(t, s.dir); !reflect.DeepEqual(got, want) {
		t.Errorf("in the folder: %v, want %v", got, want)
	}
}

func TestG9SnapshotShowsNothing(t *testing.T) {
	s := newDisk(t).snapshots(t)
	id := takeSnapshot(t, s, 7, 1, bytes.Repeat([]byte("secret-state"), 10_000))
	raw, err := os.ReadFile(s.path(id))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("secret")) {
		t.Fatal("plaintext is on disk")
	}
	info, err := os.Stat(s.path(id))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestG9SnapshotTampered changes the newest snapshot: an error that names it,
// never the older one in its place.
func TestG9SnapshotTampered(t *testing.T) {
	content := bytes.Repeat([]byte("state"), 30_000)
	tests := []struct {
		name   string
		change func(newest, older []byte) []byte
		want   error
	}{
		{"good", func(b, _ []byte) []byte { return b }, nil},
		{"empty", func(_, _ []byte) []byte { return nil }, seal.ErrTruncated},
		{"magic", func(b, _ []byte) []byte { b[7]++; return b }, seal.ErrUnknownFormat},
		{"content", func(b, _ []byte) []byte { b[500]++; return b }, seal.ErrTampered},
		{"last byte of content", func(b, _ []byte) []byte { b[8+seal.StreamSize(150_000)-1]++; return b }, seal.ErrTampered},
		{"metadata", func(b, _ []byte) []byte { b[len(b)-6]++; return b }, seal.ErrTampered},
		{"no metadata", func(b, _ []byte) []byte { clear(b[len(b)-4:]); return b }, seal.ErrTruncated},
		{"huge metadata", func(b, _ []byte) []byte { b[len(b)-4] = 0xff; return b }, seal.ErrTampered},
		{"a byte left out", func(b, _ []byte) []byte { return append(b[:1000], b[1001:]...) }, seal.ErrTampered},
		{"a chunk left out", func(b, _ []byte) []byte { return append(b[:49], b[49+64<<10+16:]...) }, seal.ErrTampered},
		{"cut", func(b, _ []byte) []byte { return b[:len(b)-100] }, seal.ErrTampered},
		{"older under its name", func(_, o []byte) []byte { return o }, seal.ErrTampered},
		{"content of the older", func(b, o []byte) []byte {
			n := 8 + seal.StreamSize(150_000)
			return append(bytes.Clone(o[:n]), b[n:]...)
		}, seal.ErrTampered},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDisk(t)
			s := d.snapshots(t)
			older := takeSnapshot(t, s, 7, 1, content)
			newest := takeSnapshot(t, s, 7, 1, content)
			a, err1 := os.ReadFile(s.path(newest))
			b, err2 := os.ReadFile(s.path(older))
			if err := errors.Join(err1, err2, os.WriteFile(s.path(newest), tt.change(a, b), 0o600)); err != nil {
				t.Fatal(err)
			}
			_, err := Probe(d.store(t), s)
			checkDamage(t, err, tt.want, "snapshot "+newest)
			_, got, err := readSnapshot(s, newest)
			if !errors.Is(err, tt.want) || !bytes.HasPrefix(content, got) {
				t.Errorf("read: got %d bytes, %v", len(got), err)
			}
			// The next two snapshots heal it.
			takeSnapshot(t, s, 8, 1, content)
			takeSnapshot(t, s, 9, 1, content)
			if _, err := Probe(d.store2(t), s); err != nil {
				t.Errorf("after new snapshots: %v", err)
			}
		})
	}
}

// store2 is a second, empty store.
func (d *disk) store2(t *testing.T) *Store {
	t.Helper()
	second := &disk{dir: t.TempDir(), keyring: d.keyring}
	return second.store(t)
}

func TestG9SnapshotOfAnotherNode(t *testing.T) {
	theirs, ours := newDisk(t), newDisk(t)
	from, to := theirs.snapshots(t), ours.snapshots(t)
	id := takeSnapshot(t, from, 7, 1, []byte("state"))
	if err := os.Rename(from.path(id), to.path(id)); err != nil {
		t.Fatal(err)
	}
	if _, err := to.List(); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("List: got %v", err)
	}
	if _, _, err := to.Open("../../etc/passwd"); err == nil || strings.Contains(err.Error(), "no such file") {
		t.Errorf("a path for an ID: got %v", err)
	}
}

func TestProbe(t *testing.T) {
	d := newDisk(t)
	store, snaps := d.store(t), d.snapshots(t)
	check := func(want Position) {
		t.Helper()
		if got, err := Probe(store, snaps); err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	}
	check(Position{})
	if err := store.SetUint64([]byte("CurrentTerm"), 4); err != nil {
		t.Fatal(err)
	}
	storeAll(t, store, entries(1, 20))
	check(Position{Term: 4, FirstIndex: 1, LastIndex: 20, LastTerm: 1})
	takeSnapshot(t, snaps, 15, 1, []byte("state"))
	check(Position{Term: 4, FirstIndex: 1, LastIndex: 20, LastTerm: 1, SnapshotIndex: 15, SnapshotTerm: 1})
	// A gap that the snapshot covers is normal, one after it is damage.
	if err := store.DeleteRange(10, 15); err != nil {
		t.Fatal(err)
	}
	check(Position{Term: 4, FirstIndex: 1, LastIndex: 20, LastTerm: 1, SnapshotIndex: 15, SnapshotTerm: 1})
	takeSnapshot(t, snaps, 30, 3, []byte("state"))
	check(Position{Term: 4, FirstIndex: 1, LastIndex: 20, LastTerm: 1, SnapshotIndex: 30, SnapshotTerm: 3})
	storeAll(t, store, []*raft.Log{entry(32, 3, "x")})
	_, err := Probe(store, snaps)
	checkDamage(t, err, raft.ErrLogNotFound, "log entry 31")
}

func TestAudit(t *testing.T) {
	d := newDisk(t)
	store, snaps := d.store(t), d.snapshots(t)
	first := d.keyring.Keys()[0].ID
	storeAll(t, store, entries(1, 5))
	takeSnapshot(t, snaps, 3, 1, nil)
	second, err := d.keyring.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	storeAll(t, store, entries(5, 7))
	if err := store.SetUint64([]byte("CurrentTerm"), 1); err != nil {
		t.Fatal(err)
	}
	counts, err := Audit(store, snaps)
	if want := map[seal.KeyID]int{first: 5, second: 4}; err != nil || !reflect.DeepEqual(counts, want) {
		t.Fatalf("got %v, %v; want %v", counts, err, want)
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add(encodeMeta(&raft.SnapshotMeta{Index: 1, Configuration: testServers}))
	f.Add([]byte{metaFormat})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMeta(b, "1-1-1"); err == nil && !bytes.Equal(encodeMeta(m), b) {
			t.Fatalf("accepted what it would not write: %x", b)
		}
	})
}
