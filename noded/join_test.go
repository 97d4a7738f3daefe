package noded

import (
	"crypto/ed25519"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
)

func TestJoin(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := newHost(t)
	h.masterd.start()
	h.up()
	token := w.token(h.name)
	reply, err := h.join(token)
	if err != nil {
		t.Fatal(err)
	}
	s := h.status()
	if s.State != "member" || s.Cluster != w.id || s.Node != reply.Node || s.Name != h.name || s.Role != "regular" || s.Master != first.name || !s.Fresh {
		t.Errorf("status %+v", s)
	}
	if req := <-w.asked; req.Kind != "" {
		t.Errorf("first contact asks for %q", req.Kind)
	}
	master := first.member().id.Node
	if keys := h.authorizedKeys(); strings.Count(keys, "rolekey:"+master.String()) != 1 || strings.Count(keys, "ssh-ed25519") != 1 {
		t.Errorf("authorized_keys:\n%s", keys)
	}
	if known := h.read(h.cfg.SSH.KnownHosts); !strings.Contains(known, string(first.name)) || !strings.Contains(known, string(h.name)) {
		t.Errorf("known_hosts:\n%s", known)
	}
	again, err := h.join(token)
	if err != nil || again.Node != reply.Node {
		t.Errorf("the same string again: %+v, %v", again, err)
	}
	_, err = h.join(w.token(h.name))
	wantCode(t, "another string", err, cluster.CodeConflict)
	w.mustPush(master) // else it may tell the new node that it knows no such member
	h.up()
	if s := h.status(); s.State != "member" || s.Node != reply.Node {
		t.Errorf("after a restart: %+v", s)
	}
}

// TestG7JoinCrash crashes before every step; the same string then completes the
// join with the same keys.
func TestG7JoinCrash(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	for _, step := range []string{"request", "keys", "admit", "write", "map", "commit"} {
		t.Run(step, func(t *testing.T) {
			h := newHost(t)
			h.masterd.start()
			h.upWith(func(s string) error {
				if s == step {
					return errCrash
				}
				return nil
			})
			token := w.token(h.name)
			if _, err := h.join(token); err == nil {
				t.Fatal("join did not crash")
			}
			h.up()
			if s := h.status(); s.State != "joining" {
				t.Errorf("state %q", s.State)
			}
			reply, err := h.join(token)
			if err != nil {
				t.Fatal(err)
			}
			if s := h.status(); s.State != "member" || s.Node != reply.Node {
				t.Errorf("status %+v", s)
			}
			if exists(h.d.joinDir()) {
				t.Error("the temporary folder is still there")
			}
		})
	}
}

// A reply that is lost is asked for again with the same key: another would be
// another machine.
func TestG7JoinReplyLost(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := newHost(t)
	h.masterd.start()
	h.up()
	lost := true
	w.tamper = func(r *rpc.AdmitReply) {
		if len(r.Docs) > 0 && lost {
			lost, r.Docs = false, nil
		}
	}
	if _, err := h.join(w.token(h.name)); err != nil {
		t.Fatal(err)
	}
	if lost {
		t.Error("no reply was lost")
	}
}

func TestJoinRefusals(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := newHost(t)
	h.masterd.start()
	h.up()
	good := w.token(h.name)
	b := []byte(good)
	b[20]++
	expired := w.first.h.cfg.Now
	w.first.h.cfg.Now = func() time.Time { return time.Now().Add(-48 * time.Hour) }
	old := w.token(h.name)
	w.first.h.cfg.Now = expired
	nobody := netip.AddrPortFrom(h.addr(), 9)
	for name, c := range map[string]struct {
		token  string
		code   cluster.Code
		refuse error
	}{
		"mistyped":    {string(b), cluster.CodeBadFormat, nil},
		"empty":       {" \n", cluster.CodeBadFormat, nil},
		"expired":     {old, cluster.CodeTokenExpired, nil},
		"used":        {good, cluster.CodeTokenUsed, cluster.Errorf(cluster.CodeTokenUsed, "used")},
		"unreachable": {w.tokenAt(h.name, nobody), cluster.CodeUnavailable, nil},
	} {
		w.refuse = func() error { return c.refuse }
		_, err := h.join(c.token)
		wantCode(t, name, err, c.code)
		if err != nil && c.token != " \n" && strings.Contains(err.Error()+cluster.HintOf(err), c.token[30:60]) {
			t.Errorf("%s: the error repeats the string", name)
		}
	}
	w.refuse = nil
	if _, err := h.join(good); err != nil {
		t.Errorf("none of this should have spent the string: %v", err)
	}
}

// A string of a map whose masterd is somebody else's: the server cannot show
// the map, or is not in it.
func TestJoinImpostor(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := newHost(t)
	h.masterd.start()
	h.up()
	stranger, strange := founded(t)
	at := netip.AddrPortFrom(strange.addr(), cluster.DefaultPorts.Masterd)
	asked := false
	stranger.refuse = func() error { asked = true; return errors.New("asked") }
	_, err := h.join(w.tokenAt(h.name, at))
	wantCode(t, "another cluster's maps", err, cluster.CodeIdentityMismatch)
	stranger.tamper = func(r *rpc.AdmitReply) { r.Maps = w.chain } // all of it is public
	_, err = h.join(w.tokenAt(h.name, at))
	if wantCode(t, "stolen maps", err, cluster.CodeIdentityMismatch); !strings.Contains(cluster.HintOf(err), "impostor") {
		t.Errorf("hint %q", cluster.HintOf(err))
	}
	if asked {
		t.Error("the impostor was told the request")
	}
	_ = first
}

func TestJoinWrongAnswers(t *testing.T) {
	t.Parallel()
	w, first := founded(t)
	h := newHost(t)
	h.masterd.start()
	h.up()
	other, err := pki.NewCA(w.id, "dev.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pki.NewCA(cluster.NewUUID(), "dev.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	token := w.token(h.name)
	for name, tamper := range map[string]func(*rpc.AdmitReply){
		"another CA of that name": func(r *rpc.AdmitReply) { r.CA = other.Cert.Raw },
		"another cluster's CA":    func(r *rpc.AdmitReply) { r.CA = foreign.Cert.Raw },
		"another node":            func(r *rpc.AdmitReply) { r.Node = first.member().id.Node },
		"swapped certificates":    func(r *rpc.AdmitReply) { r.Server, r.Identity = r.Identity, r.Server },
	} {
		w.tamper = func(r *rpc.AdmitReply) {
			if len(r.Docs) > 0 {
				tamper(r)
			}
		}
		_, err := h.join(token)
		wantCode(t, name, err, cluster.CodeIdentityMismatch)
		if s := h.status(); s.State == "member" {
			t.Fatalf("%s: the node joined", name)
		}
	}
	w.tamper = nil
	if _, err := h.join(token); err != nil {
		t.Errorf("none of this should have spent the string: %v", err)
	}
}

// A candidate that is not master sends the node on; the string may name it
// alone.
func TestJoinByWayOfCandidate(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	second := joined(t, w)
	w.promote(second, false)
	w.serveAs(second.masterd)
	h := newHost(t)
	h.masterd.start()
	h.up()
	token := w.tokenAt(h.name, netip.AddrPortFrom(second.addr(), cluster.DefaultPorts.Masterd))
	if _, err := h.join(token); err != nil {
		t.Fatal(err)
	}
}

// During an election nobody is master; joining waits for a while.
func TestJoinDuringElection(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	h := newHost(t)
	h.masterd.start()
	h.up()
	tries := 0
	w.refuse = func() error {
		if tries++; tries == 1 {
			return cluster.Errorf(cluster.CodeNoQuorum, "no master at present")
		}
		return nil
	}
	if _, err := h.join(w.token(h.name)); err != nil || tries != 2 {
		t.Fatalf("after %d tries: %v", tries, err)
	}
}

// The maps from the pinned one on may cross changes of authority.
func TestJoinCrossesAuthority(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	second := joined(t, w)
	w.promote(second, true)
	w.mustPush(second.member().id.Node)
	w.next(func(*candmap.Map) {})
	third := joined(t, w)
	if got := third.at(); got != w.at() {
		t.Errorf("holds %s, want %s", got, w.at())
	}
	if len(w.signers) != 2 || len(ed25519.PublicKey(w.cur.Candidates[0].Signing)) == 0 {
		t.Error("there is one voter only")
	}
}

// A node joins while the authority is changed, with certificates of the former one
// and of a master that has them still: what the roster names is what it trusts.
func TestJoinBetweenAuthorities(t *testing.T) {
	t.Parallel()
	w, _ := founded(t)
	next, err := pki.NewCA(w.id, "cluster.example", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.masterd.start()
	h.up()
	token := w.token(h.name)
	w.tamper = func(r *rpc.AdmitReply) { r.CA = next.Cert.Raw } // it issues by now
	w.settle(candmap.Settings{Name: "cluster.example", CA: [][]byte{next.Cert.Raw}}, func(*candmap.Map) {})
	_, err = h.join(token)
	wantCode(t, "the master's authority is not in the roster", err, cluster.CodeIdentityMismatch)
	w.settle(candmap.Settings{Name: "cluster.example", CA: [][]byte{next.Cert.Raw, w.ca.Cert.Raw}}, func(*candmap.Map) {})
	if _, err := h.join(token); err != nil {
		t.Fatal(err)
	}
	if got := h.member().caRoots().Certificates(); len(got) != 2 || !got[0].Equal(next.Cert) {
		t.Errorf("it trusts %d authorities, or another first", len(got))
	}
}
