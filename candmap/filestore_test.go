package candmap_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

func fileStore(t *testing.T, dir string) *candmap.FileStore {
	t.Helper()
	s, err := candmap.NewFileStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// stores are the implementations; each test of stores passes with all.
func stores(t *testing.T, f func(t *testing.T, s candmap.Store, again func() candmap.Store)) {
	t.Run("file", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "map")
		f(t, fileStore(t, dir), func() candmap.Store { return fileStore(t, dir) })
	})
	t.Run("memory", func(t *testing.T) {
		s := candmap.NewMemStore()
		f(t, s, func() candmap.Store { return s })
	})
	t.Run("fake", func(t *testing.T) {
		s := &ct.Store{}
		f(t, s, func() candmap.Store { return s })
	})
}

func TestStoreKeepsEverything(t *testing.T) {
	stores(t, func(t *testing.T, s candmap.Store, again func() candmap.Store) {
		empty, err := s.Load()
		if err != nil || !reflect.DeepEqual(empty, candmap.Saved{}) {
			t.Errorf("an empty store has %+v, %v", empty, err)
		}
		maps, envs := links(1, 2)
		a := candmap.Link{At: maps[0].At(), Hash: envs[0].Hash(), Authority: true}
		b := candmap.Link{At: maps[1].At(), Hash: envs[1].Hash()}
		r := ct.Roster(1, 2, 3)
		last := ct.Epoch0.Add(1234 * time.Millisecond)
		for i, err := range []error{
			s.SaveCurrent(envs[0]), s.SaveCurrent(envs[1]), s.SaveLink(a, envs[0]), s.SaveLink(b, envs[1]),
			s.SaveLast(ct.Epoch0), s.SaveLast(last), s.SaveRoster(ct.Roster(7).Hash(), ct.Roster(7).Docs()),
			s.SaveRoster(r.Hash(), r.Docs()),
		} {
			if err != nil {
				t.Errorf("operation %d: %v", i, err)
			}
		}
		for _, want := range []bool{true, false} {
			if kept, err := s.SaveEvidence(envs[0], envs[1]); err != nil || kept != want {
				t.Errorf("SaveEvidence = %v, %v, want %v", kept, err, want)
			}
		}
		s = again()
		got, err := s.Load()
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got.Links, func(a, b candmap.Link) int { return a.At.Compare(b.At) })
		want := candmap.Saved{Current: envs[1].Encode(), Links: []candmap.Link{a, b}, Last: last, Roster: r.Hash(), Forks: 1}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("Load = %+v\nwant %+v", got, want)
		}
		checkDocs(t, s, r)
		if env, err := s.Link(a); err != nil || env.Hash() != a.Hash {
			t.Errorf("Link = %v", err)
		}
		if err := errors.Join(s.DropLink(a), s.DropLink(a)); err != nil {
			t.Error(err)
		}
		if _, err := s.Link(a); err == nil {
			t.Error("a dropped map is still there")
		}
	})
}

func checkDocs(t *testing.T, s candmap.Store, r *candmap.Roster) {
	t.Helper()
	get := func(d cluster.Digest) []byte {
		b, err := s.Doc(d)
		if err != nil {
			t.Error(err)
		}
		return b
	}
	if got, err := candmap.AssembleRoster(r.Hash(), get); err != nil || got.Hash() != r.Hash() {
		t.Errorf("the roster cannot be assembled: %v", err)
	}
	if get(ct.Roster(7).Hash()) != nil {
		t.Error("an old document is still kept")
	}
}

func TestKeeperOnFiles(t *testing.T) {
	dir := t.TempDir()
	clock := ct.NewClock()
	open := func() *candmap.Keeper {
		t.Helper()
		k, err := candmap.NewKeeper(candmap.KeeperConfig{Cluster: ct.Cluster, Store: fileStore(t, dir), Clocks: clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k := open()
	r := ct.Roster(1, 2)
	m := ct.Map(1)
	m.Roster = r.Hash()
	if ack, err := k.Create(t.Context(), ct.Seal(m, 1), ct.Docs(r)); err != nil || !ack.Durable || len(ack.Problems) > 0 {
		t.Fatalf("Create = %+v, %v", ack, err)
	}
	next := ct.Next(m)
	ct.SetVoters(next, 2)
	if _, err := k.Deliver(t.Context(), []candmap.Envelope{ct.Seal(next, 1, 2)}, nil); err != nil {
		t.Fatal(err)
	}
	k = open()
	if v := k.View(); v.At() != next.At() || !v.Complete() {
		t.Errorf("after a restart: %s, complete %v", v.At(), v.Complete())
	}
	if got := ats(k.Since(cluster.Version{})); !slices.Equal(got, []string{"1.1", "1.2"}) {
		t.Errorf("chain %v", got)
	}
}

func TestFileStoreIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "map")
	s := fileStore(t, dir)
	_, envs := links(1)
	r := ct.Roster(1)
	if err := errors.Join(s.SaveCurrent(envs[0]), s.SaveLast(ct.Epoch0), s.SaveRoster(r.Hash(), r.Docs())); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Files that are damaged or foreign are as if they were not there, except the
// current map, whose bytes are returned for the Keeper to judge.
func TestFileStoreWithDamage(t *testing.T) {
	dir := t.TempDir()
	s := fileStore(t, dir)
	_, envs := links(1)
	r := ct.Roster(1)
	l := candmap.Link{At: cluster.Version{Epoch: 1, Version: 1}, Hash: envs[0].Hash(), Authority: true}
	if err := errors.Join(s.SaveCurrent(envs[0]), s.SaveLast(ct.Epoch0), s.SaveRoster(r.Hash(), r.Docs()), s.SaveLink(l, envs[0])); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.WriteFile(path, []byte("damage"), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"chain/README", "chain/1.1-x-authority.json", "roster/x", "evidence/.y.rolekey-tmp"} {
		if err := os.WriteFile(filepath.Join(dir, foreign), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = fileStore(t, dir)
	got, err := s.Load()
	if err != nil || string(got.Current) != "damage" || !got.Last.IsZero() || !got.Roster.IsZero() || len(got.Links) != 1 || got.Forks != 0 {
		t.Errorf("Load = %+v, %v", got, err)
	}
	if b, err := s.Doc(r.Hash()); b != nil || err != nil {
		t.Errorf("a damaged document was returned: %q, %v", b, err)
	}
	if _, err := s.Link(l); err == nil {
		t.Error("a damaged link was returned")
	}
	// Saving again repairs.
	if err := s.SaveRoster(r.Hash(), r.Docs()); err != nil {
		t.Fatal(err)
	}
	checkDocs(t, s, r)
}

func TestFileStoreReportsErrors(t *testing.T) {
	dir := t.TempDir()
	s := fileStore(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	_, envs := links(1)
	r := ct.Roster(1)
	l := candmap.Link{At: cluster.Version{Epoch: 1, Version: 1}, Hash: envs[0].Hash()}
	_, evidence := s.SaveEvidence(envs[0], envs[0])
	_, load := s.Load()
	for name, err := range map[string]error{
		"SaveCurrent": s.SaveCurrent(envs[0]), "SaveLink": s.SaveLink(l, envs[0]), "SaveLast": s.SaveLast(ct.Epoch0),
		"SaveRoster": s.SaveRoster(r.Hash(), r.Docs()), "SaveEvidence": evidence, "Load": load,
	} {
		if err == nil {
			t.Errorf("%s without its folder reports success", name)
		}
	}
	if _, err := candmap.NewFileStore(filepath.Join(string([]byte{0}), "x")); err == nil || !strings.Contains(err.Error(), "map store") {
		t.Errorf("NewFileStore = %v", err)
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	stores(t, func(t *testing.T, s candmap.Store, _ func() candmap.Store) {
		kept := 0
		for i := range candmap.MaxForks + 5 {
			other := ct.SealBytes(candmap.MapType, []byte{byte(i)})
			ok, err := s.SaveEvidence(ct.Seal(ct.Map(1)), other)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				kept++
			}
		}
		if kept != candmap.MaxForks {
			t.Errorf("%d pairs were kept, the limit is %d", kept, candmap.MaxForks)
		}
	})
}
