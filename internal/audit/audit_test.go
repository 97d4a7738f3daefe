package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"

	"rolekey/cluster"
)

// disk is a file that fails or hangs when told to.
type disk struct {
	mu     sync.Mutex
	err    error
	hang   chan struct{} // nil: it does not
	text   bytes.Buffer
	opened int
	synced int
}

func (d *disk) open(string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opened++
	return d, nil
}

func (d *disk) Write(b []byte) (int, error) {
	d.mu.Lock()
	hang := d.hang
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return 0, d.err
	}
	return d.text.Write(b)
}

func (d *disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.synced++
	return nil
}

func (d *disk) Close() error { return nil }

func (d *disk) set(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *disk) lines(t *testing.T) []line {
	d.mu.Lock()
	defer d.mu.Unlock()
	return decode(t, d.text.String())
}

func decode(t *testing.T, text string) []line {
	t.Helper()
	var list []line
	for l := range strings.Lines(text) {
		var got line
		d := json.NewDecoder(strings.NewReader(l))
		d.DisallowUnknownFields()
		if err := d.Decode(&got); err != nil {
			t.Fatalf("line %q: %v", l, err)
		}
		list = append(list, got)
	}
	return list
}

// start runs a log until the test ends, in a bubble of virtual time.
func start(t *testing.T, cfg Config) *Log {
	cfg.Daemon = "noded"
	l := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

func TestLineSaysAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(disk)
		l := start(t, Config{Path: "x", open: d.open}).With(
			func() string { return "node1.example.com" }, func() cluster.Version { return cluster.Version{Epoch: 1, Version: 7} })
		peer := cluster.NewUUID()
		l.Write(Event{
			Act: KeysDestroyed, Caller: Caller{Actor: "a", UID: new(uint32(0)), PeerNode: peer, PeerDigest: cluster.DigestOf([]byte("x")), Remote: "192.0.2.1:5", RequestID: "r"},
			Op: "o", Target: "t", Before: Values{"role": "regular"}, After: Values{"role": "drained"}, Count: 3,
		})
		l.Write(Event{Act: RPCRefused, Version: cluster.Version{Epoch: 2, Version: 1}}.Of(cluster.Errorf(cluster.CodeNotMaster, "secret text")))
		synctest.Wait()
		got := d.lines(t)
		if len(got) != 2 || strings.Contains(d.text.String(), "secret text") {
			t.Fatalf("written: %s", d.text.String())
		}
		first, second := got[0], got[1]
		if first.Node != "node1.example.com" || first.Daemon != "noded" || first.Outcome != OK || *first.UID != 0 || first.PeerNode != peer.String() ||
			first.MapVersion != "1.7" || first.Before["role"] != "regular" || first.After["role"] != "drained" || first.RequestID != "r" || !first.Time.Equal(time.Now()) {
			t.Errorf("first line: %+v", first)
		}
		if second.Outcome != Refused || second.Code != cluster.CodeNotMaster || second.MapVersion != "2.1" {
			t.Errorf("second line: %+v", second)
		}
	})
}

// A hung disk holds up nobody, and what does not fit is counted and said later.
func TestHungDiskBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs, seen := observer.New(zap.InfoLevel)
		d := &disk{hang: make(chan struct{})}
		l := start(t, Config{Path: "x", open: d.open, Log: zap.New(logs)})
		began := time.Now()
		target := strings.Repeat("x", 200)
		const all = 20_000
		for range all {
			l.Write(Event{Act: MapAccepted, Target: target})
		}
		synctest.Wait()
		if !time.Now().Equal(began) || l.Lost() == 0 || l.Lost() >= all {
			t.Fatalf("lost %d", l.Lost())
		}
		if l.bytes > maxQueue {
			t.Errorf("%d bytes wait", l.bytes)
		}
		close(d.hang)
		synctest.Wait()
		got := d.lines(t)
		if n := len(got) - 1; int64(n)+l.Lost() != all || got[n].Act != LinesLost || got[n].Count != l.Lost() {
			t.Errorf("%d lines, %d lost, the last: %+v", len(got), l.Lost(), got[len(got)-1])
		}
		if l.bytes != 0 || seen.FilterMessageSnippet("were lost").Len() != 1 {
			t.Errorf("%d bytes wait; logs: %v", l.bytes, seen.All())
		}
	})
}

func TestFullDiskIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs, seen := observer.New(zap.InfoLevel)
		d := &disk{err: errors.New("no space left on device")}
		l := start(t, Config{Path: "x", open: d.open, Log: zap.New(logs)})
		for range 10 {
			l.Write(Event{Act: MapAccepted})
			synctest.Wait()
		}
		time.Sleep(10 * retryPause)
		synctest.Wait()
		if n := seen.FilterMessageSnippet("cannot be written").Len(); n != 1 || d.opened > 15 {
			t.Errorf("said %d times, opened %d times", n, d.opened)
		}
		d.set(nil)
		time.Sleep(retryPause)
		synctest.Wait()
		if n := len(d.lines(t)); n != 10 || l.Lost() != 0 || seen.FilterMessageSnippet("written again").Len() != 1 {
			t.Errorf("%d lines, %d lost", n, l.Lost())
		}
	})
}

// A steady stream does not put off the sync, and silence needs none.
func TestLinesAreSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(disk)
		l := start(t, Config{Path: "x", open: d.open})
		for range 100 {
			l.Write(Event{Act: MapAccepted})
			time.Sleep(syncPause / 10)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if d.synced < 8 || d.synced > 11 {
			t.Errorf("synced %d times in 10 s", d.synced)
		}
	})
}

// Whatever peers do, they fill no disk; all is counted.
func TestPeersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(disk)
		l := start(t, Config{Path: "x", open: d.open})
		for range 3 * peerBurst {
			l.Write(Event{Act: RPCRefused, Code: cluster.CodeNotInMap})
		}
		time.Sleep(time.Second)
		l.Write(Event{Act: RPCRefused, Code: cluster.CodeNotInMap})
		synctest.Wait()
		got := d.lines(t)
		if len(got) != peerBurst+1 || got[peerBurst].Count != 2*peerBurst {
			t.Errorf("%d lines, the last: %+v", len(got), got[len(got)-1])
		}
	})
}

func TestEndDoesNotWaitForAHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{hang: make(chan struct{})}
		l := New(Config{Path: "x", open: d.open})
		l.Write(Event{Act: DaemonStopped})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		if err := l.Run(ctx); err == nil || time.Since(began) != flushLimit {
			t.Errorf("ended after %s: %v", time.Since(began), err)
		}
		close(d.hang)
	})
}

func TestEndWritesWhatWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "audit.log")
	l := New(Config{Path: path})
	l.Write(Event{Act: DaemonStopped})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, path); len(decode(t, got)) != 1 {
		t.Errorf("written: %q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fileMode {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		l := start(t, Config{Path: path})
		l.Write(Event{Act: MapAccepted, Target: "one"})
		synctest.Wait()
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		l.Write(Event{Act: MapAccepted, Target: "two"})
		synctest.Wait()
		l.Reopen()
		l.Write(Event{Act: MapAccepted, Target: "three"})
		synctest.Wait()
		old, now := decode(t, readFile(t, path+".1")), decode(t, readFile(t, path))
		if len(old) != 2 || len(now) != 1 || now[0].Target != "three" {
			t.Errorf("old %+v, new %+v", old, now)
		}
	})
}

// A line that a crash cut short spoils no other, and an administrator's mode
// stays.
func TestTornLineIsEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte(`{"time":"20`), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, path); got != "{\"time\":\"20\n{}\n" {
		t.Errorf("written: %q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
}

func TestLinksAndFoldersAreRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "link")} {
		if _, err := openFile(path); err == nil {
			t.Errorf("%s was opened", path)
		}
	}
}

// Whatever is in an event, its line is one line of bounded size that reads back.
func TestAnyEventIsOneBoundedLine(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringN(0, 2000, -1), rapid.Just(strings.Repeat("\x01", 5000)), rapid.Just("a\nb\xff"))
	rapid.Check(t, func(rt *rapid.T) {
		values := Values{}
		for range rapid.IntRange(0, 60).Draw(rt, "values") {
			values[text.Draw(rt, "key")] = text.Draw(rt, "value")
		}
		l := New(Config{Path: "x"})
		l.Write(Event{
			Act: MapAccepted, Op: text.Draw(rt, "op"), Target: text.Draw(rt, "target"), Before: values, After: values,
			Caller: Caller{Actor: text.Draw(rt, "actor"), Remote: text.Draw(rt, "remote"), RequestID: text.Draw(rt, "request")},
			Time:   time.Unix(rapid.Int64().Draw(rt, "time"), 0),
		})
		b := l.lines[0]
		if len(b) > MaxLine || bytes.Count(b, []byte{'\n'}) != 1 || !json.Valid(b) {
			rt.Fatalf("%d bytes: %s", len(b), b)
		}
	})
}

func TestNilLogWritesNothing(*testing.T) {
	var l *Log
	l.With(nil, nil).Write(Event{Act: MapAccepted})
	l.Reopen()
	_ = l.Lost()
}
