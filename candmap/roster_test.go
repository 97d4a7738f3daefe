package candmap_test

import (
	"bytes"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

func ints(n int) (list []int) {
	for i := range n {
		list = append(list, i+1)
	}
	return list
}

func TestRosterRoundTrip(t *testing.T) {
	r := ct.Roster(ints(100)...)
	docs := r.Docs()
	got, err := candmap.AssembleRoster(r.Hash(), func(d cluster.Digest) []byte { return docs[d] })
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Nodes(), r.Nodes()) || got.Hash() != r.Hash() || !maps.EqualFunc(got.Docs(), docs, bytes.Equal) {
		t.Error("assembled another roster")
	}
	if cluster.DigestOf(r.Index()) != r.Hash() {
		t.Error("the roster's hash is not that of its index")
	}
}

func TestRosterDoesNotDependOnOrder(t *testing.T) {
	if ct.Roster(3, 1, 2).Hash() != ct.Roster(1, 2, 3).Hash() {
		t.Error("the order of the nodes changes the roster")
	}
}

func TestOneNodeMovesOneBucket(t *testing.T) {
	old := ct.Roster(ints(300)...)
	nodes := make([]candmap.RosterNode, 300)
	copy(nodes, old.Nodes())
	nodes[17].Flags.Drained = true
	next, err := candmap.NewRoster(nodes, nil)
	if err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for d := range next.Docs() {
		if old.Docs()[d] == nil {
			fresh++
		}
	}
	if fresh != 2 {
		t.Errorf("%d documents changed, want the index and one bucket", fresh)
	}
}

// TestRosterFollows: a roster that is assembled with the help of the one before is
// the same as without; of the documents that both have none is asked for, and a
// bucket in another's place is refused.
func TestRosterFollows(t *testing.T) {
	assembled := func(before, r *candmap.Roster) (*candmap.Roster, map[cluster.Digest]bool) {
		t.Helper()
		asked := map[cluster.Digest]bool{}
		got, err := candmap.AssembleAfter(before, r.Hash(), func(d cluster.Digest) []byte {
			asked[d] = true
			return r.Docs()[d]
		})
		if err != nil {
			t.Fatal(err)
		}
		return got, asked
	}
	before, asked := assembled(nil, ct.Roster(ints(300)...))
	if len(asked) != len(before.Docs()) {
		t.Errorf("%d of %d documents were read", len(asked), len(before.Docs()))
	}
	for round := range 20 {
		nodes := slices.Clone(before.Nodes())
		nodes[13*round].Flags.Drained = true
		nodes = slices.Delete(nodes, 7*round+1, 7*round+2)
		want, err := candmap.NewRoster(nodes, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, asked := assembled(before, want)
		if len(asked) > 3 { // the index and two buckets
			t.Errorf("%d documents were read", len(asked))
		}
		if !reflect.DeepEqual(got.Nodes(), want.Nodes()) || got.Hash() != want.Hash() || !maps.EqualFunc(got.Docs(), want.Docs(), bytes.Equal) {
			t.Fatal("assembled another roster")
		}
		before = got
	}
	docs := before.Docs()
	for _, bad := range []func(ri *candmap.RosterIndex){
		func(ri *candmap.RosterIndex) { ri.Buckets[0], ri.Buckets[1] = ri.Buckets[1], ri.Buckets[0] },
		func(ri *candmap.RosterIndex) { ri.Buckets[0] = ri.Buckets[1] },
		func(ri *candmap.RosterIndex) { ri.Count++ },
	} {
		ri, err := candmap.ParseRosterIndex(before.Index(), before.Hash())
		if err != nil {
			t.Fatal(err)
		}
		bad(ri)
		index, err := candmap.EncodeIndex(ri)
		if err != nil {
			t.Fatal(err)
		}
		all := maps.Clone(docs)
		all[cluster.DigestOf(index)] = index
		if _, err := candmap.AssembleAfter(before, cluster.DigestOf(index), func(d cluster.Digest) []byte { return all[d] }); err == nil {
			t.Error("a roster with its buckets in the wrong places is taken")
		}
	}
}

// BenchmarkRosterFollows is what each of 1000 nodes does when one of them changes.
func BenchmarkRosterFollows(b *testing.B) {
	first := ct.Roster(ints(1000)...)
	nodes := slices.Clone(first.Nodes())
	nodes[17].Flags.Drained = true
	next, err := candmap.NewRoster(nodes, nil)
	if err != nil {
		b.Fatal(err)
	}
	find := func(r *candmap.Roster) func(cluster.Digest) []byte {
		return func(d cluster.Digest) []byte { return r.Docs()[d] }
	}
	before, err := candmap.AssembleRoster(first.Hash(), find(first))
	if err != nil {
		b.Fatal(err)
	}
	for what, known := range map[string]*candmap.Roster{"alone": nil, "after another": before} {
		b.Run(what, func(b *testing.B) {
			for b.Loop() {
				if _, err := candmap.AssembleAfter(known, next.Hash(), find(next)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestRosterLookups(t *testing.T) {
	r := ct.Roster(1, 2, 3)
	want := ct.NodeID(2)
	for name, n := range map[string]*candmap.RosterNode{
		"Node": r.Node(want), "ByName": r.ByName(ct.Name(2)),
		"ByIdentity": r.ByIdentity(ct.Pin("identity", 2)), "ByServer": r.ByServer(ct.Pin("server", 2)),
	} {
		if n == nil || n.UUID != want {
			t.Errorf("%s = %v", name, n)
		}
	}
	if r.Node(ct.NodeID(9)) != nil || r.ByName("x") != nil || r.ByIdentity(ct.Pin("server", 2)) != nil || r.ByServer(ct.Pin("identity", 2)) != nil {
		t.Error("found what is not there")
	}
	pin := ct.Pin("identity", 2)
	if n := testing.AllocsPerRun(100, func() { _, _, _ = r.ByIdentity(pin), r.ByServer(pin), r.Node(want) }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

func TestBadRosters(t *testing.T) {
	for name, change := range map[string]func(a, b *candmap.RosterNode){
		"one uuid twice":       func(a, b *candmap.RosterNode) { a.UUID = b.UUID },
		"no uuid":              func(a, _ *candmap.RosterNode) { a.UUID = cluster.NodeID{} },
		"no incarnation":       func(a, _ *candmap.RosterNode) { a.Incarnation = 0 },
		"pattern as name":      func(a, _ *candmap.RosterNode) { a.Name = "*" },
		"one name twice":       func(a, b *candmap.RosterNode) { a.Name = b.Name },
		"no address":           func(a, _ *candmap.RosterNode) { a.Addresses = nil },
		"one address twice":    func(a, b *candmap.RosterNode) { a.Addresses = b.Addresses },
		"multicast":            func(a, _ *candmap.RosterNode) { a.Addresses = []netip.Addr{netip.MustParseAddr("224.0.0.1")} },
		"no port":              func(a, _ *candmap.RosterNode) { a.Ports.Noded = 0 },
		"contradicting flags":  func(a, _ *candmap.RosterNode) { a.Flags.Drained, a.Flags.Offline = true, true },
		"nine host keys":       func(a, _ *candmap.RosterNode) { a.HostKeys = sshKeys(9) },
		"one host key twice":   func(a, _ *candmap.RosterNode) { a.HostKeys = append(a.HostKeys, a.HostKeys[0]) },
		"odd host key":         func(a, _ *candmap.RosterNode) { a.HostKeys[0].Type = "* ssh-ed25519" },
		"no server pin":        func(a, _ *candmap.RosterNode) { a.Server = nil },
		"one server pin twice": func(a, b *candmap.RosterNode) { a.Server = b.Server },
		"no identity":          func(a, _ *candmap.RosterNode) { a.Identity = nil },
		"zero identity":        func(a, _ *candmap.RosterNode) { a.Identity = []cluster.Digest{{}} },
		"three identities":     func(a, _ *candmap.RosterNode) { a.Identity = pins(3) },
		"identity is server":   func(a, b *candmap.RosterNode) { a.Identity = b.Server },
	} {
		nodes := []candmap.RosterNode{ct.RosterNode(1), ct.RosterNode(2)}
		change(&nodes[0], &nodes[1])
		if _, err := candmap.NewRoster(nodes, nil); cluster.CodeOf(err) != cluster.CodeBadFormat {
			t.Errorf("%s: %v, want bad_format", name, err)
		}
	}
	if _, err := candmap.NewRoster(nil, nil); err == nil {
		t.Error("a roster of no nodes was made")
	}
}

func TestSharedHostKeysAreAllowed(t *testing.T) {
	a, b := ct.RosterNode(1), ct.RosterNode(2)
	a.HostKeys = b.HostKeys
	if _, err := candmap.NewRoster([]candmap.RosterNode{a, b}, nil); err != nil {
		t.Errorf("machines of one image: %v", err)
	}
}

// A document whose hash is right may still be wrong: the map's signers made it.
func TestAssembleRefuses(t *testing.T) {
	r := ct.Roster(1, 2, 3)
	ri, err := candmap.ParseRosterIndex(r.Index(), r.Hash())
	if err != nil {
		t.Fatal(err)
	}
	first := ri.Missing(func(cluster.Digest) bool { return false })[0]
	put := func(old, new []byte) (cluster.Digest, map[cluster.Digest][]byte) {
		docs := maps.Clone(r.Docs())
		index := bytes.Replace(r.Index(), []byte(cluster.DigestOf(old).String()), []byte(cluster.DigestOf(new).String()), 1)
		docs[cluster.DigestOf(new)], docs[cluster.DigestOf(index)] = new, index
		return cluster.DigestOf(index), docs
	}
	bucket := r.Docs()[first]
	later := bytes.Replace(bucket, []byte(".v1+"), []byte(".v2+"), 1)
	for name, c := range map[string]struct {
		doc  []byte
		want cluster.Code
	}{
		"other bucket's node": {otherBucket(r, first), cluster.CodeBadFormat},
		"empty bucket":        {[]byte(`{"type":"` + candmap.RosterBucketType + `","nodes":[]}`), cluster.CodeBadFormat},
		"later format":        {later, cluster.CodeUnsupportedFormat},
		"no document":         {[]byte("{}"), cluster.CodeBadFormat},
		"trailing byte":       {append(bytes.Clone(bucket), '\n'), cluster.CodeBadFormat},
		"too large":           {append(bytes.Clone(bucket), make([]byte, candmap.MaxBucket)...), cluster.CodeTooLarge},
	} {
		want, docs := put(bucket, c.doc)
		if _, err := candmap.AssembleRoster(want, func(d cluster.Digest) []byte { return docs[d] }); cluster.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	wrong := func(cluster.Digest) []byte { return r.Index() }
	if _, err := candmap.AssembleRoster(r.Hash(), wrong); cluster.CodeOf(err) != cluster.CodeBadFormat {
		t.Errorf("a document of another hash: %v", err)
	}
	none := func(cluster.Digest) []byte { return nil }
	if _, err := candmap.AssembleRoster(r.Hash(), none); cluster.CodeOf(err) != cluster.CodeNotFound {
		t.Errorf("no documents: %v", err)
	}
}

func otherBucket(r *candmap.Roster, not cluster.Digest) []byte {
	for d, b := range r.Docs() {
		if d != not && d != r.Hash() {
			return b
		}
	}
	panic("a roster of one bucket")
}

func TestIndexCountsNodes(t *testing.T) {
	r := ct.Roster(1, 2, 3)
	index := bytes.Replace(r.Index(), []byte(`"nodes":3`), []byte(`"nodes":2`), 1)
	docs := maps.Clone(r.Docs())
	docs[cluster.DigestOf(index)] = index
	if _, err := candmap.AssembleRoster(cluster.DigestOf(index), func(d cluster.Digest) []byte { return docs[d] }); err == nil {
		t.Error("an index with a wrong count was accepted")
	}
}
