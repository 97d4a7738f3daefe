package noded

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// identityOf is the certificate by which a node asks the keyserver.
func identityOf(h *host) func() (*tls.Certificate, error) { return h.member().certs[identityPair].tls }

// TestG1IdentityIsNoCandidate: a certificate of the cluster's CA opens what a
// member may do, and nothing more.
func TestG1IdentityIsNoCandidate(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := joined(t, w)
	to := first.member().id.Node
	w.mustPush(to)
	caller := w.caller(identityOf(h))
	for _, m := range rpc.NodedMethods() {
		arg, body := "", any(nil)
		switch {
		case m.Name == rpc.MethodRosterGet.Name:
			arg = w.view.Load().Roster.Hash().String()
		case m.Query != "":
			arg = "1.0"
		case m.MaxBody > 0:
			body = struct{}{}
		}
		var sink []byte
		err := caller.Call(t.Context(), nodedOf(to), m, arg, body, &sink)
		switch {
		case m.Tier >= rpc.TierCandidate:
			wantCode(t, m.Name, err, cluster.CodeNotInMap)
		case m.Tier == rpc.TierMember && err != nil:
			t.Errorf("%s: %v", m.Name, err)
		}
	}
	stranger := w.caller(nil)
	err := stranger.Call(t.Context(), nodedOf(to), rpc.MethodMapGet, "1.0", nil, new([]byte))
	wantCode(t, "stranger", err, cluster.CodeNoCertificate)
}

// TestG2CandidateChangesNothing: a candidate that is not the master reads.
func TestG2CandidateChangesNothing(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	second := joined(t, w)
	w.promote(second, false)
	to := first.member().id.Node
	w.mustPush(to)
	caller := w.caller(second.masterd.certificate)
	var s rpc.NodeState
	if err := caller.Call(t.Context(), nodedOf(to), rpc.MethodState, "", nil, &s); err != nil {
		t.Errorf("state: %v", err)
	}
	for _, m := range []rpc.Method{rpc.MethodKeyCreate, rpc.MethodKeyDestroy, rpc.MethodHooks, rpc.MethodSSHProbe, rpc.MethodSSHSettle, rpc.MethodProbe} {
		wantCode(t, m.Name, caller.Call(t.Context(), nodedOf(to), m, "", struct{}{}, nil), cluster.CodeNotMaster)
	}
}

// TestG4AckComesLast: when a node acknowledges a demotion, its authorized_keys
// has lost the key and its masterd has confirmed the map.
func TestG4AckComesLast(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	second := joined(t, w)
	w.promote(second, false)
	id := second.member().id.Node
	w.mustPush(id)
	w.mustPush(first.member().id.Node)
	if !strings.Contains(first.authorizedKeys(), id.String()) {
		t.Fatal("the promoted node's key is not authorized")
	}
	caller := w.caller(second.masterd.certificate)
	state := func() error {
		return caller.Call(t.Context(), nodedOf(first.member().id.Node), rpc.MethodState, "", nil, new(rpc.NodeState))
	}
	if err := state(); err != nil {
		t.Fatal(err)
	}
	var told atomic.Bool
	first.masterd.setFail(func(path string) error {
		told.CompareAndSwap(false, path == rpc.LocalView)
		return nil
	})
	w.demote(id)
	ack := w.mustPush(first.member().id.Node)
	if strings.Contains(first.authorizedKeys(), id.String()) || !told.Load() {
		t.Errorf("at the acknowledgement: masterd told %v, keys\n%s", told.Load(), first.authorizedKeys())
	}
	if ack.Version != w.at() || !ack.Durable || !ack.Fresh || len(ack.Problems) > 0 || len(ack.Missing) > 0 {
		t.Errorf("ack %+v", ack)
	}
	lease := time.Until(ack.LeaseUntil)
	if lease <= 0 || lease > 120*time.Second || ack.SSHUntil.Before(time.Now()) {
		t.Errorf("lease ends in %s, ssh at %s", lease, ack.SSHUntil)
	}
	wantCode(t, "the demoted node", state(), cluster.CodeNotInMap)
}

// TestG4HungMasterdIsTold: a masterd that does not confirm is a problem of the
// acknowledgement, and delays it no longer than a second.
func TestG4HungMasterdIsTold(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	hang := make(chan struct{})
	first.masterd.setFail(func(string) error { <-hang; return nil })
	t.Cleanup(func() { close(hang) })
	w.next(func(*candmap.Map) {})
	ack := w.mustPush(first.member().id.Node)
	if ack.Version != w.at() || !slices.ContainsFunc(ack.Problems, func(p string) bool { return strings.Contains(p, "did not confirm the map") }) {
		t.Errorf("ack %+v", ack)
	}
}

// TestG4BlockProblemIsTold: what keeps authorized_keys from following is in
// the acknowledgement; the gate follows all the same.
func TestG4BlockProblemIsTold(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	// At once: noded puts back a file that is gone.
	link := filepath.Join(t.TempDir(), "link")
	if err := errors.Join(os.Symlink("/dev/null", link), os.Rename(link, first.cfg.SSH.AuthorizedKeys)); err != nil {
		t.Fatal(err)
	}
	w.next(func(*candmap.Map) {})
	ack := w.mustPush(first.member().id.Node)
	if ack.Version != w.at() || !slices.ContainsFunc(ack.Problems, func(p string) bool { return strings.Contains(p, "authorized_keys") }) {
		t.Errorf("ack %+v", ack)
	}
}

// TestG5DemotedLosesKeys: the keys go with the role, those of masterd too, and
// although the first attempt fails.
func TestG5DemotedLosesKeys(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	second := joined(t, w)
	w.promote(second, false)
	id := second.member().id.Node
	w.mustPush(id)
	dir := second.d.keys.dir
	if _, err := dir.Load(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "destroying a candidate's keys", w.call(id, rpc.MethodKeyDestroy, "", struct{}{}, nil), cluster.CodeConflict)
	second.masterd.setFail(failOnce(rpc.LocalKeysDestroy))
	w.demote(id)
	w.mustPush(id)
	select {
	case <-second.masterd.gone:
	case <-time.After(patience):
		t.Fatal("masterd was not asked")
	}
	if _, err := dir.Load(); !errors.Is(err, sshkeys.ErrNoKey) {
		t.Errorf("the ssh key: %v", err)
	}
	var reply rpc.KeyDestroyReply
	if err := w.call(id, rpc.MethodKeyDestroy, "", struct{}{}, &reply); err != nil || len(reply.Problems) > 0 {
		t.Errorf("destroying once more: %+v, %v", reply, err)
	}
}

// TestG5MasterdHearsFirst: a masterd to which the news of the role's end is still
// on its way hears it before it is to destroy keys; a new role waits for no more.
func TestG5MasterdHearsFirst(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	second := joined(t, w)
	w.promote(second, false)
	id := second.member().id.Node
	w.mustPush(id)
	second.masterd.setLate(true)
	second.masterd.setFail(func(path string) error {
		if path == rpc.LocalView {
			return errLost
		}
		return nil
	})
	w.demote(id)
	w.mustPush(id)
	var reply rpc.KeyDestroyReply
	if err := w.call(id, rpc.MethodKeyDestroy, "", struct{}{}, &reply); err != nil || len(reply.Problems) != 1 {
		t.Errorf("destroying keys that masterd uses: %+v, %v", reply, err)
	}
	wantCode(t, "making others meanwhile", w.call(id, rpc.MethodKeyCreate, "", rpc.KeyCreateRequest{Incarnation: 1}, nil), cluster.CodeBusy)
	second.masterd.setFail(nil)
	if err := w.call(id, rpc.MethodKeyCreate, "", rpc.KeyCreateRequest{Incarnation: 1}, nil); err != nil {
		t.Errorf("making the keys of a new role: %v", err)
	}
}

// TestG5StrayKeysGo: keys that an interrupted promotion left are destroyed
// when they are old, and only by a fresh map.
func TestG5StrayKeysGo(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := joined(t, w)
	m := h.member()
	if _, err := h.d.keys.ensure(m.id.Node); err != nil {
		t.Fatal(err)
	}
	if err := m.takeKeyTurn(t.Context()); err != nil { // no sweep comes between
		t.Fatal(err)
	}
	if m.hasStrayKeys() {
		t.Error("new keys may be those of a promotion under way")
	}
	old := time.Now().Add(-2 * strayAge)
	for _, p := range []string{h.cfg.Paths.SSHKey(), h.cfg.Paths.SSHPublicKey()} {
		if err := os.Chtimes(p, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if !m.hasStrayKeys() {
		t.Error("old keys are left")
	}
	// What a crash in the middle of writing a key left is one.
	temp := atomicfile.TempName(h.cfg.Paths.SSHKey())
	if err := errors.Join(os.Rename(h.cfg.Paths.SSHKey(), temp), os.Remove(h.cfg.Paths.SSHPublicKey())); err != nil {
		t.Fatal(err)
	}
	if !m.hasStrayKeys() {
		t.Error("a leftover is no key")
	}
	m.giveKeyTurn()
	h.up() // stale until a beacon arrives
	if m := h.member(); m.keeper.Fresh() || m.hasStrayKeys() {
		t.Error("a stale map decides")
	}
}

// TestG10OnlyTheMapAuthorizes: whatever the master itself asks for, the keys in
// authorized_keys are those of the signed map.
func TestG10OnlyTheMapAuthorizes(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := joined(t, w)
	id := h.member().id.Node
	before := h.authorizedKeys()
	evil := sshkeys.KeyOf(newSSHKey(t).PublicKey())
	body := map[string]any{"incarnation": 1, "ssh": []cluster.SSHKey{evil}, "keys": []cluster.SSHKey{evil}}
	wantCode(t, "key-create with a key", w.call(id, rpc.MethodKeyCreate, "", body, nil), cluster.CodeBadFormat)
	if err := w.call(id, rpc.MethodKeyCreate, "", rpc.KeyCreateRequest{Incarnation: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if after := h.authorizedKeys(); after != before {
		t.Errorf("authorized_keys changed without a map:\n%s", after)
	}
	w.next(func(m *candmap.Map) { m.Candidates[0].SSH = append(m.Candidates[0].SSH, evil) })
	w.mustPush(id)
	if !strings.Contains(h.authorizedKeys(), sshkeys.Comment(first.member().id.Node)) || strings.Count(h.authorizedKeys(), "ssh-ed25519") != 2 {
		t.Errorf("the map's keys:\n%s", h.authorizedKeys())
	}
}

func TestReachMaster(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	second := joined(t, w)
	w.promote(second, true)
	id, master := second.member().id.Node, first.member().id.Node
	w.next(func(m *candmap.Map) { m.SSHReach = cluster.ReachMaster })
	w.mustPush(id)
	if keys := second.authorizedKeys(); strings.Contains(keys, id.String()) || !strings.Contains(keys, master.String()) {
		t.Errorf("only the master's key should be there:\n%s", keys)
	}
	w.next(func(m *candmap.Map) { m.Master = id })
	w.mustPush(id)
	if keys := second.authorizedKeys(); !strings.Contains(keys, id.String()) || strings.Contains(keys, master.String()) {
		t.Errorf("only the new master's key should be there:\n%s", keys)
	}
}

// The master says whether there is to be an SSH key: right after that was
// changed, the map still tells the opposite. A master that does not say leaves
// it to the map.
func TestKeyCreateSSHSetup(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for name, c := range map[string]struct {
		order  *bool
		inMap  bool
		expect bool
	}{
		"on":              {&yes, true, true},
		"off":             {&no, false, false},
		"switched on":     {&yes, false, true},
		"switched off":    {&no, true, false},
		"not told, as on": {nil, true, true},
		"not told, off":   {nil, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := founded(t)
			h := joined(t, w)
			if !c.inMap {
				w.next(func(m *candmap.Map) { m.Candidates[0].SSH = nil })
			}
			id := h.member().id.Node
			w.mustPush(id)
			var keys rpc.CandidateKeys
			if err := w.call(id, rpc.MethodKeyCreate, "", rpc.KeyCreateRequest{Incarnation: 1, SSHSetup: c.order}, &keys); err != nil {
				t.Fatal(err)
			}
			if _, present := h.d.keys.load(nil); present != c.expect || (len(keys.SSH) == 1) != c.expect {
				t.Errorf("a key is there: %v, and told: %v; want %v", present, keys.SSH, c.expect)
			}
		})
	}
}

func TestKeyCreateOtherIncarnation(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := joined(t, w)
	err := w.call(h.member().id.Node, rpc.MethodKeyCreate, "", rpc.KeyCreateRequest{Incarnation: 2}, nil)
	wantCode(t, "key-create", err, cluster.CodeConflict)
	if _, present := h.d.keys.load(nil); present {
		t.Error("there is a key")
	}
}

func TestOldMapsAreRefused(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	old := w.boot.Map
	w.next(func(*candmap.Map) {})
	id := first.member().id.Node
	w.mustPush(id)
	w.mustPush(id) // what is known is no error
	err := w.call(id, rpc.MethodMapPut, "", rpc.MapDelivery{Maps: []candmap.Envelope{old}}, nil)
	wantCode(t, "an older map", err, cluster.CodeMapOlder)
	b := w.beacon()
	for range 2 {
		var ack rpc.MapAck
		if err := w.call(id, rpc.MethodBeaconPut, "", b, &ack); err != nil || ack.Version != w.at() || !ack.Fresh {
			t.Errorf("beacon: %+v, %v", ack, err)
		}
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	id := first.member().id.Node
	mine := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me\n"
	own, _ := first.d.keys.load(nil)
	copied := fmt.Sprintf("ssh-ed25519 %s copied\n", strings.Fields(first.authorizedKeys()[strings.Index(first.authorizedKeys(), " ssh-ed25519"):])[1])
	write(t, first.cfg.SSH.AuthorizedKeys, []byte(mine+first.authorizedKeys()+copied))
	var s rpc.NodeState
	if err := w.call(id, rpc.MethodState, "", nil, &s); err != nil {
		t.Fatal(err)
	}
	if s.Node != id || s.Version != w.at() || !s.Fresh || s.Roster != w.view.Load().Roster.Hash() || !s.SSHSetup || s.Forks != 0 {
		t.Errorf("state %+v", s)
	}
	if !s.PrivateKey || s.PublicKey == nil || string(s.PublicKey.Blob) != string(own.Blob) || !s.MasterKeys || len(s.Client) != 1 {
		t.Errorf("keys %+v", s)
	}
	if len(s.Authorized) != 1 || string(s.Authorized[0].Blob) != string(own.Blob) || !slices.Contains(s.Foreign, sshkeys.Fingerprint(*own)) {
		t.Errorf("authorized %v, foreign %v", s.Authorized, s.Foreign)
	}
	n := w.view.Load().Roster.Node(id)
	if s.Server != n.Server[0] || s.Identity != n.Identity[0] || s.ServerEnds.Before(time.Now()) {
		t.Errorf("certificates %+v", s)
	}
}
