package state_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// TestRAPIUsers: they come and go without a map, survive a snapshot, and no
// form of the state shows a hash.
func TestRAPIUsers(t *testing.T) {
	l := statetest.New(t)
	l.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelRAPI})
	head := l.S.Head().Version
	hash := []byte("$2a$10$notreallyahashbutlongenough")
	for _, name := range []string{"zoe", "amy"} {
		l.Do(state.KindRAPIUser, state.RAPIUserChange{Name: name, Permission: cluster.PermissionWrite, Hash: cluster.NewSecret(hash)})
	}
	l.Do(state.KindRAPIAdmin, state.RAPIAdminChange{Name: "root", Permission: cluster.PermissionAdmin, Digest: cluster.DigestOf([]byte("x")), NotAfter: l.Now.Add(time.Hour)})
	l.Do(state.KindRAPICert, state.RAPICertChange{Cert: []byte("cert"), Key: cluster.NewSecret([]byte("key"))})
	if l.S.Head().Version != head {
		t.Error("users of the remote API made a map")
	}
	text, err := state.EncodeSnapshot(l.S)
	if err != nil {
		t.Fatal(err)
	}
	s, err := state.DecodeSnapshot(text)
	if err != nil {
		t.Fatal(err)
	}
	u := s.RAPI.User("zoe")
	if u == nil || !bytes.Equal(u.Hash.Reveal(), hash) || s.RAPI.Users[0].Name != "amy" || string(s.RAPI.Key.Reveal()) != "key" {
		t.Errorf("after the snapshot: %+v", s.RAPI)
	}
	if shown := fmt.Sprintf("%+v %#v", s.RAPI, s.RAPI); strings.Contains(shown, "notreally") {
		t.Error("a hash is printed")
	}
	if a := s.RAPI.Admin(cluster.DigestOf([]byte("x"))); a == nil || a.Name != "root" || s.RAPI.Admin(cluster.Digest{}) != nil {
		t.Errorf("administrator: %+v", a)
	}
	l.Do(state.KindRAPIUser, state.RAPIUserChange{Name: "zoe"})
	l.Do(state.KindRAPIAdmin, state.RAPIAdminChange{Name: "root"})
	l.Do(state.KindRAPICert, state.RAPICertChange{})
	if l.S.RAPI.User("zoe") != nil || len(l.S.RAPI.Admins) > 0 || len(l.S.RAPI.Cert) > 0 || l.S.RAPI.Since.IsZero() {
		t.Errorf("left: %+v", l.S.RAPI)
	}
	for what, body := range map[string]any{
		"unknown":  state.RAPIUserChange{Name: "zoe"},
		"name":     state.RAPIUserChange{Name: "a:b", Permission: cluster.PermissionRead, Hash: cluster.NewSecret(hash)},
		"no right": state.RAPIUserChange{Name: "bob", Hash: cluster.NewSecret(hash)},
		"no hash":  state.RAPIUserChange{Name: "bob", Permission: cluster.PermissionRead, Hash: cluster.NewSecret([]byte("x"))},
	} {
		if _, err := state.Propose(l.S, state.KindRAPIUser, body, state.Meta{Time: l.Now}); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}
