package keyserver

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
	"rolekey/rpc"
)

func TestAdmit(t *testing.T) {
	o := newOffice(t)
	n := newcomerOf(t, o, 2, pki.RecordSpec{Addresses: []netip.Addr{statetest.Addr(2)}})
	reply := n.mustAdmit()
	if reply.Node != n.rec.Node || !bytes.Equal(reply.CA, o.lab.S.CA.Cert) || !bytes.Equal(reply.Gossip, statetest.GossipKey) {
		t.Error("the reply is of another cluster or node")
	}
	verifyCert(t, o, pki.KindServer, reply.Server, n.server, n.rec.Node)
	verifyCert(t, o, pki.KindIdentity, reply.Identity, n.identity, n.rec.Node)
	node := n.node()
	if node == nil || node.Flags.MasterCandidate || node.Joined || !slices.Equal(node.Identity, []cluster.Digest{pinOf(t, n.identity)}) {
		t.Fatalf("node %+v", node)
	}
	if n.record().State != pki.RecordBound {
		t.Errorf("record is %s", n.record().State)
	}
	if last := reply.Maps[len(reply.Maps)-1]; last.Hash() != o.lab.S.Head().Hash || reply.Maps[0].Hash() != n.pin {
		t.Error("the maps do not lead from the pinned one to the newest")
	}
	docs := map[cluster.Digest][]byte{}
	for _, d := range reply.Docs {
		docs[cluster.DigestOf(d)] = d
	}
	roster, err := candmap.AssembleRoster(o.lab.S.HeadMap().Roster, func(d cluster.Digest) []byte { return docs[d] })
	if err != nil || roster.Node(n.rec.Node) == nil {
		t.Errorf("the roster does not come along: %v", err)
	}
}

// TestAdmitRefusals: each has its code, and none spends the string: with the
// right request it still works.
func TestAdmitRefusals(t *testing.T) {
	other := statetest.ID(77)
	for _, c := range []struct {
		name    string
		code    cluster.Code
		change  func(n *newcomer, r *rpc.AdmitRequest) // of the signed request
		prepare func(n *newcomer)                      // before it is signed
		useless bool                                   // the string is of no use afterwards either
	}{
		{name: "not the master", code: cluster.CodeNotMaster, prepare: func(n *newcomer) { n.o.ready = cluster.Errorf(cluster.CodeNotMaster, "no") }},
		{name: "no JSON", code: cluster.CodeBadFormat, change: func(_ *newcomer, r *rpc.AdmitRequest) { r.Request = []byte("{") }},
		{name: "unknown member", code: cluster.CodeBadFormat, change: func(_ *newcomer, r *rpc.AdmitRequest) { r.Request = []byte(`{"role":"master"}`) }},
		{name: "unknown record", code: cluster.CodeTokenUnknown, prepare: func(n *newcomer) { n.body.Record = other }},
		{name: "no proof", code: cluster.CodeBadSignature, change: func(_ *newcomer, r *rpc.AdmitRequest) { r.Proof = nil }},
		{name: "wrong proof", code: cluster.CodeBadSignature, change: func(_ *newcomer, r *rpc.AdmitRequest) { r.Proof[3] ^= 1 }},
		{name: "proof of another connection", code: cluster.CodeBadSignature, change: func(n *newcomer, _ *rpc.AdmitRequest) { n.call.Exporter[0] ^= 1 }},
		{name: "proof of another request", code: cluster.CodeBadSignature, change: func(_ *newcomer, r *rpc.AdmitRequest) {
			r.Request = append(r.Request, ' ')
		}},
		{name: "proof with another seed", code: cluster.CodeBadSignature, prepare: func(n *newcomer) { n.seed = cluster.NewSecret(make([]byte, 32)) }},
		{name: "another name", code: cluster.CodeTokenNodeMismatch, prepare: func(n *newcomer) { n.body.Name = "evil.lab.test" }},
		{name: "another address", code: cluster.CodeTokenNodeMismatch, prepare: func(n *newcomer) { n.call.Remote = statetest.Addr(66) }},
		{name: "expired", code: cluster.CodeTokenExpired, prepare: func(n *newcomer) { n.o.lab.Now = n.rec.Expires }, useless: true},
		{name: "revoked", code: cluster.CodeTokenUnknown, prepare: func(n *newcomer) {
			n.o.lab.Do(state.KindAdmissionRevoke, state.AdmissionRevoke{ID: n.rec.ID})
		}, useless: true},
		{name: "no identity request", code: cluster.CodeBadFormat, prepare: func(n *newcomer) { n.body.Identity = nil }},
		{name: "no server request", code: cluster.CodeBadFormat, prepare: func(n *newcomer) { n.body.Server = nil }},
		{name: "identity request with a bad signature", code: cluster.CodeBadSignature, prepare: func(n *newcomer) {
			n.body.Identity = spoilSignature(n.body.Identity)
		}},
		{name: "server request with a bad signature", code: cluster.CodeBadSignature, prepare: func(n *newcomer) {
			n.body.Server = spoilSignature(n.body.Server)
		}},
		{name: "an address of the master", code: cluster.CodeTokenNodeMismatch, prepare: func(n *newcomer) {
			n.body.Addresses = []netip.Addr{statetest.Addr(1)}
		}},
		{name: "an address that the string does not name", code: cluster.CodeTokenNodeMismatch, prepare: func(n *newcomer) {
			n.body.Addresses = append(n.body.Addresses, statetest.Addr(3))
		}},
		{name: "no address", code: cluster.CodeBadFormat, prepare: func(n *newcomer) { n.body.Addresses = nil }},
		{name: "the commit fails", code: cluster.CodeNoQuorum, prepare: func(n *newcomer) { n.o.fail = cluster.Errorf(cluster.CodeNoQuorum, "no") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{Addresses: []netip.Addr{statetest.Addr(2)}})
			body, call, seed, now := n.body, n.call, n.seed, n.o.lab.Now
			if c.prepare != nil {
				c.prepare(n)
			}
			before := n.record()
			req := n.request()
			if c.change != nil {
				c.change(n, &req)
			}
			reply, err := n.s.Admit(t.Context(), n.call, req)
			if got := cluster.CodeOf(err); err == nil || got != c.code {
				t.Fatalf("refused with %v (%s), want %s", err, got, c.code)
			}
			if reply.Node != (cluster.NodeID{}) || len(reply.Gossip)+len(reply.CA)+len(reply.Identity)+len(reply.Docs) > 0 {
				t.Error("the refusal gives something away")
			}
			if after := n.record(); after.State != before.State || after.Bound != before.Bound || n.node() != nil {
				t.Errorf("the record is %s now", after.State)
			}
			if c.useless {
				return
			}
			n.body, n.call, n.seed, n.o.lab.Now, n.o.ready = body, call, seed, now, nil
			n.mustAdmit()
		})
	}
}

// TestStrangersLearnNothing: whoever cannot prove that it holds the string is
// told the same about every record, whatever became of it.
func TestStrangersLearnNothing(t *testing.T) {
	var first string
	for name, prepare := range map[string]func(n *newcomer){
		"open":    func(*newcomer) {},
		"bound":   func(n *newcomer) { n.mustAdmit() },
		"spent":   func(n *newcomer) { n.mustAdmit(); _, _ = n.contact(rpc.CertificateRequest{}) },
		"revoked": func(n *newcomer) { n.o.lab.Do(state.KindAdmissionRevoke, state.AdmissionRevoke{ID: n.rec.ID}) },
		"expired": func(n *newcomer) { n.o.lab.Now = n.rec.Expires.Add(time.Hour) },
	} {
		n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
		prepare(n)
		n.seed = cluster.NewSecret(make([]byte, 32))
		for range 2 {
			_, err := n.admit()
			if cluster.CodeOf(err) != cluster.CodeBadSignature {
				t.Errorf("%s: %v", name, err)
			}
			if first == "" {
				first = err.Error()
			}
			if err.Error() != first {
				t.Errorf("%s: a stranger is told %q, and elsewhere %q", name, err, first)
			}
			n.body.Name, n.call.Remote = "other.lab.test", statetest.Addr(99)
		}
	}
}

func TestStringBindsOneKey(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	first := n.mustAdmit()
	head := n.o.lab.S.Head().Hash
	again := n.mustAdmit()
	if again.Node != first.Node || !bytes.Equal(again.Identity, first.Identity) || !bytes.Equal(again.Server, first.Server) {
		t.Error("the same key asked again, and got something else")
	}
	if n.o.lab.S.Head().Hash != head {
		t.Error("asking again changed the map")
	}
	thief := *n
	thief.body.Identity, thief.body.Server = csr(t, key(t)), csr(t, key(t))
	if _, err := thief.admit(); cluster.CodeOf(err) != cluster.CodeTokenUsed {
		t.Errorf("another key with the same string: %v", err)
	}
	if _, err := n.contact(rpc.CertificateRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.admit(); cluster.CodeOf(err) != cluster.CodeTokenUsed {
		t.Errorf("a string that was spent: %v", err)
	}
	if n.o.lab.S.Head().Hash != head {
		t.Error("something changed the map")
	}
}

// TestAdmitAfterRemoval: the UUID returns as the next incarnation, and the
// former string of the node is worthless.
func TestAdmitAfterRemoval(t *testing.T) {
	o := newOffice(t)
	former := newcomerOf(t, o, 2, pki.RecordSpec{})
	former.mustAdmit()
	o.lab.Do(state.KindNodeRemove, state.NodeRemove{Node: former.rec.Node})
	if _, err := former.admit(); cluster.CodeOf(err) != cluster.CodeTokenUnknown {
		t.Errorf("the string of a removed node: %v", err)
	}
	n := newcomerOf(t, o, 2, pki.RecordSpec{Node: former.rec.Node})
	n.mustAdmit()
	if got := n.node().Incarnation; got != 2 {
		t.Errorf("incarnation %d, want 2", got)
	}
}

// TestReaddition: a string for a node that is still a member replaces its keys.
func TestReaddition(t *testing.T) {
	o := newOffice(t)
	former := newcomerOf(t, o, 2, pki.RecordSpec{})
	former.mustAdmit()
	n := newcomerOf(t, o, 2, pki.RecordSpec{Node: former.rec.Node})
	reply := n.mustAdmit()
	verifyCert(t, o, pki.KindIdentity, reply.Identity, n.identity, former.rec.Node)
	if got := n.node(); got.Incarnation != 2 || slices.Contains(got.Identity, pinOf(t, former.identity)) {
		t.Errorf("incarnation %d, pins %v", got.Incarnation, got.Identity)
	}
	again := n.mustAdmit()
	if !bytes.Equal(again.Identity, reply.Identity) {
		t.Error("the reply that was lost cannot be had again")
	}
}

// TestWishes: what the administrator said of a node holds, whatever it says
// itself; what a node added again could be before, it can be again.
func TestWishes(t *testing.T) {
	o := newOffice(t)
	o.lab.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	second := statetest.Addr(99)
	said := pki.Wishes{Secondary: second, SSHPort: 2222, MasterCapable: new(false), VMCapable: new(false)}
	former := newcomerOf(t, o, 2, pki.RecordSpec{Addresses: []netip.Addr{statetest.Addr(2)}, Wishes: said})
	former.body.Addresses = append(former.body.Addresses, statetest.Addr(98))
	if _, err := former.admit(); cluster.CodeOf(err) != cluster.CodeTokenNodeMismatch {
		t.Errorf("an address that was not said: %v", err)
	}
	former.body.Addresses = former.body.Addresses[:1]
	reply := former.mustAdmit()
	got := former.node()
	if !slices.Equal(got.Addresses, []netip.Addr{statetest.Addr(2), second}) || got.Ports.SSH != 2222 || got.Flags.MasterCapable || got.Flags.VMCapable {
		t.Errorf("node %+v", got)
	}
	cert, err := pki.ParseCertDER(reply.Server)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := pki.Identify(cert); err != nil || !slices.Equal(id.Addresses, got.Addresses) {
		t.Errorf("the certificate is for %v: %v", id.Addresses, err)
	}
	again := newcomerOf(t, o, 2, pki.RecordSpec{Node: former.rec.Node, Wishes: pki.Wishes{VMCapable: new(true)}})
	again.mustAdmit()
	if f := again.node().Flags; f.MasterCapable || !f.VMCapable {
		t.Errorf("flags %+v", f)
	}
}

// TestReadditionOfACandidate: its role must have been taken away before.
func TestReadditionOfACandidate(t *testing.T) {
	o := newOffice(t)
	o.lab.Do(state.KindFeatureLevel, state.FeatureLevel{Level: 2})
	former := newcomerOf(t, o, 2, pki.RecordSpec{})
	former.mustAdmit()
	n := newcomerOf(t, o, 2, pki.RecordSpec{Node: former.rec.Node})
	keys := statetest.Keys(2, 7)
	promote := state.NodeChange{Node: former.rec.Node, Flags: &state.FlagPatch{MasterCandidate: new(true)}, Keys: &keys, Candidate: statetest.Cert(2, 7)}
	o.lab.Do(state.KindNodeChange, promote)
	if _, err := n.admit(); cluster.CodeOf(err) != cluster.CodeConflict {
		t.Errorf("a string from before the promotion: %v", err)
	}
	rec, _, err := pki.NewRecord(pki.RecordSpec{Name: n.rec.Name, Node: n.rec.Node}, o.lab.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.lab.Try(state.KindAdmissionCreate, state.AdmissionCreate{Record: rec}); cluster.CodeOf(err) != cluster.CodeConflict {
		t.Errorf("a string for a candidate: %v", err)
	}
	o.lab.Do(state.KindNodeChange, state.NodeChange{Node: former.rec.Node, Flags: &state.FlagPatch{MasterCandidate: new(false), Offline: new(true)}})
	n.mustAdmit()
	if f := n.node().Flags; f.Offline || f.Drained || n.node().WasCandidate {
		t.Errorf("flags %+v", f)
	}
}

func TestIntroduction(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	for _, raw := range []json.RawMessage{nil, json.RawMessage("null")} {
		reply, err := n.s.Admit(t.Context(), Call{}, rpc.AdmitRequest{Pin: n.pin, Request: raw})
		if err != nil || len(reply.Maps) == 0 || reply.Maps[0].Hash() != n.pin {
			t.Fatalf("%d maps, %v", len(reply.Maps), err)
		}
		if reply.Node != (cluster.NodeID{}) || len(reply.Gossip)+len(reply.CA)+len(reply.Docs) > 0 {
			t.Error("a stranger got more than maps")
		}
	}
	for name, pin := range map[string]cluster.Digest{"zero": {}, "of another cluster": cluster.DigestOf([]byte("x"))} {
		reply, err := n.s.Admit(t.Context(), Call{}, rpc.AdmitRequest{Pin: pin})
		if cluster.CodeOf(err) != cluster.CodeTokenUnknown || len(reply.Maps) > 0 {
			t.Errorf("pin %s: %d maps, %v", name, len(reply.Maps), err)
		}
	}
	n.o.ready = cluster.Errorf(cluster.CodeNotMaster, "no")
	if _, err := n.s.Admit(t.Context(), Call{}, rpc.AdmitRequest{Pin: n.pin}); err != nil {
		t.Errorf("a candidate that is not master does not introduce itself: %v", err)
	}
}

// TestIntroductionOutlivesManyMaps: the maps that changed the authority are
// kept for ever, so a string that pins one stays good.
func TestIntroductionOutlivesManyMaps(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	for i := range 2 * state.ChainRecent {
		n.o.lab.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(uint32(60 + i))}})
	}
	n.o.lab.Now = n.rec.Created
	n.mustAdmit()
}

func TestFirstContact(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	n.mustAdmit()
	n.o.calls = nil
	reply, err := n.contact(rpc.CertificateRequest{})
	if err != nil || !bytes.Equal(reply.Gossip, statetest.GossipKey) || len(reply.Certificate) > 0 {
		t.Fatalf("%v", err)
	}
	if !slices.Equal(n.o.calls, []string{"job", state.KindAdmissionSpent}) {
		t.Errorf("calls %q: the job comes first, or a crash between loses it", n.o.calls)
	}
	if n.record().State != pki.RecordSpent || !n.node().Joined || !slices.Equal(n.o.jobs, []cluster.Name{statetest.Name(2)}) {
		t.Errorf("record %s, joined %t, jobs %v", n.record().State, n.node().Joined, n.o.jobs)
	}
	if _, err := n.contact(rpc.CertificateRequest{}); err != nil || len(n.o.jobs) != 1 {
		t.Errorf("the second contact: %v, %d jobs", err, len(n.o.jobs))
	}
}

// TestG7FirstContactAfterACrash: between the job and the record.
func TestG7FirstContactAfterACrash(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	n.mustAdmit()
	n.o.fail = cluster.Errorf(cluster.CodeNoQuorum, "killed")
	if _, err := n.contact(rpc.CertificateRequest{}); err == nil {
		t.Fatal("no error")
	}
	if _, err := n.contact(rpc.CertificateRequest{}); err != nil || !n.node().Joined {
		t.Errorf("after the crash: %v", err)
	}
}

// TestRefusedContactQueuesNothing: a node may ask again every few seconds.
func TestRefusedContactQueuesNothing(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	n.mustAdmit()
	n.o.lab.Do(state.KindAdmissionRevoke, state.AdmissionRevoke{ID: n.rec.ID})
	for range 3 {
		if _, err := n.contact(rpc.CertificateRequest{}); cluster.CodeOf(err) != cluster.CodeTokenUnknown {
			t.Errorf("a string that was revoked before the first contact: %v", err)
		}
	}
	if len(n.o.jobs) > 0 || n.node().Joined {
		t.Errorf("%d jobs were queued, joined %t", len(n.o.jobs), n.node().Joined)
	}
}

func TestContactRefusals(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	n.mustAdmit()
	for name, c := range map[string]struct {
		call Call
		code cluster.Code
	}{
		"nobody":               {Call{}, cluster.CodeNotInRoster},
		"a node that is gone":  {Call{Node: statetest.ID(9), Pin: pinOf(t, n.identity)}, cluster.CodeNotInRoster},
		"a key never bound":    {Call{Node: n.rec.Node, Pin: pinOf(t, key(t))}, cluster.CodeTokenUnknown},
		"no key":               {Call{Node: n.rec.Node}, cluster.CodeTokenUnknown},
		"the server's own key": {Call{Node: n.rec.Node, Pin: pinOf(t, n.server)}, cluster.CodeTokenUnknown},
	} {
		reply, err := n.s.Certificate(t.Context(), c.call, rpc.CertificateRequest{})
		if cluster.CodeOf(err) != c.code || len(reply.Gossip) > 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	n.o.ready = cluster.Errorf(cluster.CodeNotMaster, "no")
	if _, err := n.contact(rpc.CertificateRequest{}); cluster.CodeOf(err) != cluster.CodeNotMaster {
		t.Errorf("not the master: %v", err)
	}
}

// TestRenewalOverlaps: the certificate in use stays pinned until the new one
// is, so that no crash locks the node out.
func TestRenewalOverlaps(t *testing.T) {
	for _, kind := range []string{state.CertServer, state.CertIdentity} {
		n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
		n.mustAdmit()
		pins := func() []cluster.Digest {
			if kind == state.CertServer {
				return n.node().Server
			}
			return n.node().Identity
		}
		first := pins()[0]
		n.due()
		second := key(t)
		reply, err := n.contact(rpc.CertificateRequest{Kind: kind, CSR: csr(t, second)})
		if err != nil {
			t.Fatal(err)
		}
		verifyCert(t, n.o, pki.Kind(kind), reply.Certificate, second, n.rec.Node)
		if !slices.Equal(pins(), []cluster.Digest{first, pinOf(t, second)}) {
			t.Errorf("%s: pins %v", kind, pins())
		}
		again, err := n.contact(rpc.CertificateRequest{Kind: kind, CSR: csr(t, second)})
		if err != nil || !bytes.Equal(again.Certificate, reply.Certificate) {
			t.Errorf("%s: asked again with the same key: %v", kind, err)
		}
		if kind == state.CertIdentity {
			n.identity = second // in use from now on
		}
		n.due()
		third := key(t)
		if _, err := n.contact(rpc.CertificateRequest{Kind: kind, CSR: csr(t, third)}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(pins(), []cluster.Digest{pinOf(t, second), pinOf(t, third)}) {
			t.Errorf("%s: after the next renewal the pins are %v", kind, pins())
		}
	}
}

// TestRenewalKeepsTheKeyInUse: a node that lost the new key before it used it
// makes another one, and still has only the old.
func TestRenewalKeepsTheKeyInUse(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	n.mustAdmit()
	lost, next := key(t), key(t)
	n.due()
	for _, k := range []crypto.Signer{lost, next} {
		if _, err := n.contact(rpc.CertificateRequest{Kind: state.CertIdentity, CSR: csr(t, k)}); err != nil {
			t.Fatal(err)
		}
		n.o.lab.Now = n.o.lab.Now.Add(renewPause)
	}
	if got := n.node().Identity; !slices.Equal(got, []cluster.Digest{pinOf(t, n.identity), pinOf(t, next)}) {
		t.Error("the key that the node still uses is not pinned any more")
	}
}

func TestRenewalRefusals(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	n.mustAdmit()
	n.due()
	good := csr(t, key(t))
	for name, c := range map[string]struct {
		req  rpc.CertificateRequest
		code cluster.Code
	}{
		"of a candidate":  {rpc.CertificateRequest{Kind: state.CertCandidate, CSR: good}, cluster.CodeBadFormat},
		"of RAPI":         {rpc.CertificateRequest{Kind: "rapi", CSR: good}, cluster.CodeBadFormat},
		"of what":         {rpc.CertificateRequest{Kind: "x", CSR: good}, cluster.CodeBadFormat},
		"without request": {rpc.CertificateRequest{Kind: state.CertServer}, cluster.CodeBadFormat},
		"bad signature":   {rpc.CertificateRequest{Kind: state.CertServer, CSR: spoilSignature(good)}, cluster.CodeBadSignature},
	} {
		if _, err := n.contact(rpc.CertificateRequest{}); err != nil {
			t.Fatal(err)
		}
		serial := n.node().Serial
		reply, err := n.contact(c.req)
		if cluster.CodeOf(err) != c.code || len(reply.Certificate) > 0 {
			t.Errorf("a certificate %s: %v", name, err)
		}
		if n.node().Serial != serial {
			t.Errorf("a certificate %s: the node changed", name)
		}
	}
}

// TestCertificateSaysWhatTheStateSays, whatever the request says.
func TestCertificateSaysWhatTheStateSays(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	n.mustAdmit()
	n.due()
	reply, err := n.contact(rpc.CertificateRequest{Kind: state.CertServer, CSR: csr(t, key(t))})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCertDER(reply.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.Identify(cert)
	if err != nil || id.Name != statetest.Name(2) || !slices.Equal(id.Addresses, []netip.Addr{statetest.Addr(2)}) {
		t.Errorf("certificate of %s at %v: %v", id.Name, id.Addresses, err)
	}
}

func TestAdmitWithADamagedCA(t *testing.T) {
	n := newcomerOf(t, newOffice(t), 2, pki.RecordSpec{})
	broken := *n.o.lab.S
	broken.CA.Key = cluster.NewSecret([]byte("SECRET that is no key"))
	n.o.lab.S = &broken
	_, err := n.admit()
	if err == nil || bytes.Contains([]byte(err.Error()), []byte("SECRET")) {
		t.Errorf("error %v", err)
	}
	if errors.Is(err, context.Canceled) || n.record().State != pki.RecordOpen {
		t.Error("the record is spent")
	}
}
