package consensus

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"rolekey/seal"
)

// crashDir makes the test binary a process that stores until it is killed.
const crashDir = "ROLEKEY_TEST_CRASH_DIR"

func init() {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, storeUntilKilled(dir))
		os.Exit(1)
	}
}

var crashContext = seal.Context{Cluster: [16]byte{1}, Node: [16]byte{2}, Incarnation: 1}

func openCrashed(dir string) (*Store, *Snapshots, error) {
	db, snaps := filepath.Join(dir, "raft.db"), filepath.Join(dir, "snapshots")
	k, err := seal.Ensure(filepath.Join(dir, "keyring"), crashContext, db, snaps)
	if err != nil {
		return nil, nil, err
	}
	store, err := OpenStore(StoreConfig{Path: db, Sealer: k})
	if err != nil {
		return nil, nil, err
	}
	snapshots, err := OpenSnapshots(SnapshotsConfig{Dir: snaps, Keyring: k})
	return store, snapshots, err
}

// storeUntilKilled stores entries, votes and snapshots as raft does, and prints
// the index of each entry when all of it is on disk.
func storeUntilKilled(dir string) error {
	store, snapshots, err := openCrashed(dir)
	if err != nil {
		return err
	}
	index, err := store.LastIndex()
	for err == nil {
		index++
		if err = store.StoreLog(entry(index, 1, fmt.Sprint("entry ", index))); err != nil {
			return err
		}
		if err = store.SetUint64([]byte("CurrentTerm"), index); err != nil {
			return err
		}
		if index%5 == 0 {
			err = errors.Join(snapshotAt(snapshots, index), store.DeleteRange(1, index-3))
		}
		fmt.Println(index)
	}
	return err
}

func snapshotAt(s *Snapshots, index uint64) error {
	sink, err := s.Create(1, index, 1, testServers, 1, nil)
	if err != nil {
		return err
	}
	if _, err := sink.Write(make([]byte, 100_000)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// TestG7Kill kills a process that stores, again and again at different places:
// every start finds what was reported as stored.
func TestG7Kill(t *testing.T) {
	dir := t.TempDir()
	reported := uint64(0)
	for round := range 12 {
		reported = runAndKill(t, dir, round*3)
		store, snapshots, err := openCrashed(dir)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Probe(store, snapshots)
		if err != nil {
			t.Fatal(err)
		}
		closeStore(t, store)
		if p.LastIndex < reported || p.LastIndex > reported+1 || p.Term < reported || p.SnapshotIndex < reported/5*5 {
			t.Fatalf("round %d: found %+v, but %d was reported", round, p, reported)
		}
		if names := fileNames(t, snapshots.dir); len(names) > retained+1 {
			t.Fatalf("round %d: files pile up: %v", round, names)
		}
	}
	if reported == 0 {
		t.Fatal("nothing was stored")
	}
}

// runAndKill lets the process report some entries, kills it, and returns the
// last entry that it reported.
func runAndKill(t *testing.T, dir string, reports int) (last uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		if last, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if i == reports {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the process was not killed: %v", err)
	}
	return last
}

// smallDisk returns the folder of a masterd on a file system of the given size.
func smallDisk(t *testing.T, size int) *disk {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return diskAt(t, dir)
}

// TestG7FullDisk fills the disk below the log: the entry that does not fit is an
// error, all before it are there, and once there is room the log goes on.
func TestG7FullDisk(t *testing.T) {
	d := smallDisk(t, 1<<20)
	ballast := filepath.Join(d.dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 300<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s := d.store(t)
	data := string(make([]byte, 10_000))
	index := uint64(1)
	var err error
	for ; err == nil && index < 1000; index++ {
		err = s.StoreLog(entry(index, 1, data))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	stored := index - 2
	checkEdges(t, s, 1, stored)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	storeAll(t, s, []*raft.Log{entry(stored+1, 2, data)})
	checkEdges(t, s, 1, stored+1)
	if _, err := Probe(s, d.snapshots(t)); err != nil {
		t.Fatal(err)
	}
}

func TestG7FullDiskSnapshot(t *testing.T) {
	d := smallDisk(t, 1<<20)
	s := d.snapshots(t)
	id := takeSnapshot(t, s, 1, 1, make([]byte, 300_000))
	sink := beginSnapshot(t, s, 2, 1)
	_, err := sink.Write(make([]byte, 2<<20))
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("write: got %v", err)
	}
	if err := sink.Close(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("close: got %v", err)
	}
	// With the last bytes missing only Close can notice.
	sink = beginSnapshot(t, s, 3, 1)
	if _, err := sink.Write(make([]byte, 60_000)); err != nil {
		t.Fatal(err)
	}
	filler, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(filler, zeros{}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill: got %v", err)
	}
	if err := errors.Join(sink.Close(), filler.Close()); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("close: got %v", err)
	}
	if got := fileNames(t, s.dir); len(got) != 1 || got[0] != id+snapshotSuffix {
		t.Fatalf("in the folder: %v", got)
	}
	if _, got, err := readSnapshot(s, id); err != nil || len(got) != 300_000 {
		t.Fatalf("the older snapshot: %d bytes, %v", len(got), err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestG7FullDiskCreate: no room for raft.db is an error that says so, and the
// next start makes it.
func TestG7FullDiskCreate(t *testing.T) {
	d := smallDisk(t, 64<<10)
	ballast, err := os.Create(filepath.Join(d.dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(ballast, zeros{}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill: got %v", err)
	}
	if _, err := d.open(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	if err := errors.Join(ballast.Close(), os.Remove(ballast.Name())); err != nil {
		t.Fatal(err)
	}
	checkEdges(t, d.store(t), 0, 0)
}
