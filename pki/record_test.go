package pki

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
)

var (
	keyA = cluster.DigestOf([]byte("key A"))
	keyB = cluster.DigestOf([]byte("key B"))
	here = netip.MustParseAddr("192.0.2.7")
	away = netip.MustParseAddr("198.51.100.1")
)

func newRecord(t testing.TB) Record {
	t.Helper()
	r, seed, err := NewRecord(RecordSpec{Name: "node7.example", Addresses: testAddrs, Actor: "root@node1"}, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if !public(seed.Reveal()).Equal(r.PublicKey) {
		t.Fatal("the seed is not that of the public key")
	}
	return r
}

// step is one transition in a table of transitions.
type step func(Record) (Record, error)

func bind(after time.Duration, key cluster.Digest) step {
	return func(r Record) (Record, error) { return r.Bind(testNow.Add(after), "node7.example", here, key) }
}

func bindAs(name cluster.Name, from netip.Addr, key cluster.Digest) step {
	return func(r Record) (Record, error) { return r.Bind(testNow, name, from, key) }
}

func spend(key cluster.Digest) step { return func(r Record) (Record, error) { return r.Spend(key) } }

func TestRecordTransitions(t *testing.T) {
	revoke := step(Record.Revoke)
	last := DefaultTTL - time.Second
	for name, c := range map[string]struct {
		before []step // must succeed
		last   step
		code   cluster.Code // "" is success
		state  RecordState
	}{
		"bind":                   {nil, bind(0, keyA), "", RecordBound},
		"bind in time":           {nil, bind(last, keyA), "", RecordBound},
		"bind too late":          {nil, bind(DefaultTTL, keyA), cluster.CodeTokenExpired, RecordOpen},
		"again, same key":        {[]step{bind(0, keyA)}, bind(last, keyA), "", RecordBound},
		"again, too late":        {[]step{bind(0, keyA)}, bind(DefaultTTL, keyA), cluster.CodeTokenExpired, RecordBound},
		"other key":              {[]step{bind(0, keyA)}, bind(0, keyB), cluster.CodeTokenUsed, RecordBound},
		"other key, too late":    {[]step{bind(0, keyA)}, bind(DefaultTTL, keyB), cluster.CodeTokenUsed, RecordBound},
		"no key":                 {nil, bind(0, cluster.Digest{}), cluster.CodeBadFormat, RecordOpen},
		"other name":             {nil, bindAs("node8.example", here, keyA), cluster.CodeTokenNodeMismatch, RecordOpen},
		"other address":          {nil, bindAs("node7.example", away, keyA), cluster.CodeTokenNodeMismatch, RecordOpen},
		"no address":             {nil, bindAs("node7.example", netip.Addr{}, keyA), cluster.CodeTokenNodeMismatch, RecordOpen},
		"IPv4 in IPv6":           {nil, bindAs("node7.example", netip.AddrFrom16(here.As16()), keyA), "", RecordBound},
		"other family":           {nil, bindAs("node7.example", testAddrs[1], keyA), "", RecordBound},
		"wrong burns nothing":    {[]step{refused(bindAs("node7.example", away, keyB)), refused(bindAs("x.example", here, keyB))}, bind(0, keyA), "", RecordBound},
		"spend":                  {[]step{bind(0, keyA)}, spend(keyA), "", RecordSpent},
		"spend unbound":          {nil, spend(keyA), cluster.CodeConflict, RecordOpen},
		"spend other key":        {[]step{bind(0, keyA)}, spend(keyB), cluster.CodeTokenUsed, RecordBound},
		"spend twice":            {[]step{bind(0, keyA), spend(keyA)}, spend(keyA), "", RecordSpent},
		"spend after renewal":    {[]step{bind(0, keyA), spend(keyA)}, spend(keyB), "", RecordSpent},
		"bind spent":             {[]step{bind(0, keyA), spend(keyA)}, bind(0, keyA), cluster.CodeTokenUsed, RecordSpent},
		"bind spent, too late":   {[]step{bind(0, keyA), spend(keyA)}, bind(MaxTTL, keyB), cluster.CodeTokenUsed, RecordSpent},
		"revoke":                 {nil, revoke, "", RecordRevoked},
		"revoke twice":           {[]step{revoke}, revoke, "", RecordRevoked},
		"revoke bound":           {[]step{bind(0, keyA)}, revoke, "", RecordRevoked},
		"revoke spent":           {[]step{bind(0, keyA), spend(keyA)}, revoke, cluster.CodeConflict, RecordSpent},
		"bind revoked":           {[]step{revoke}, bind(0, keyA), cluster.CodeTokenUnknown, RecordRevoked},
		"bind revoked, too late": {[]step{revoke}, bind(DefaultTTL, keyA), cluster.CodeTokenUnknown, RecordRevoked},
		"spend revoked":          {[]step{bind(0, keyA), revoke}, spend(keyA), cluster.CodeTokenUnknown, RecordRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecord(t)
			for _, s := range c.before {
				r = must(s(r))(t)
			}
			next, err := c.last(r)
			if wantCode(t, err, c.code); next.State != c.state {
				t.Errorf("state %s, want %s", next.State, c.state)
			}
			if err != nil && (!reflect.DeepEqual(next, r) || cluster.HintOf(err) == "" && c.code != cluster.CodeConflict && c.code != cluster.CodeBadFormat) {
				t.Errorf("a refusal changed the record, or has no hint: %v", err)
			}
			if err := next.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

// refused turns a step that must fail into one that must succeed.
func refused(s step) step {
	return func(r Record) (Record, error) {
		next, err := s(r)
		if err == nil {
			return r, cluster.Errorf(cluster.CodeInternal, "a wrong request was admitted")
		}
		return next, nil
	}
}

// Each refusal says something of its own.
func TestRecordMessagesDiffer(t *testing.T) {
	open := newRecord(t)
	bound := must(bind(0, keyA)(open))(t)
	spent := must(spend(keyA)(bound))(t)
	revoked := must(bound.Revoke())(t)
	seen := map[string]bool{}
	for _, err := range []error{
		open.Check(testNow, "other.example", here, keyA),
		open.Check(testNow, open.Name, away, keyA),
		open.Check(open.Expires, open.Name, here, keyA),
		bound.Check(testNow, open.Name, here, keyB),
		spent.Check(testNow, open.Name, here, keyA),
		revoked.Check(testNow, open.Name, here, keyA),
	} {
		if err == nil || seen[err.Error()] {
			t.Errorf("%v: missing or said twice", err)
			continue
		}
		seen[err.Error()] = true
	}
	if err := open.Check(testNow, open.Name, here, keyA); err != nil {
		t.Error(err)
	}
	anywhere := open
	anywhere.Addresses = nil
	if err := anywhere.Check(testNow, open.Name, away, keyA); err != nil {
		t.Errorf("no binding to addresses, yet: %v", err)
	}
}

func TestNewRecordRefuses(t *testing.T) {
	for name, spec := range map[string]RecordSpec{
		"name":       {Name: "*"},
		"ttl long":   {Name: "n", TTL: MaxTTL + time.Second},
		"ttl short":  {Name: "n", TTL: time.Second},
		"ttl past":   {Name: "n", TTL: -time.Hour},
		"address":    {Name: "n", Addresses: []netip.Addr{{}}},
		"many":       {Name: "n", Addresses: make([]netip.Addr, maxAddresses+1)},
		"long actor": {Name: "n", Actor: strings.Repeat("x", maxActor+1)},
	} {
		if _, seed, err := NewRecord(spec, testNow); err == nil || !seed.IsZero() {
			t.Errorf("%s: made", name)
		}
	}
	r, _, err := NewRecord(RecordSpec{Name: "n", Node: testNode, TTL: MaxTTL}, testNow)
	if err != nil || r.Node != testNode || r.Expires.Sub(r.Created) != MaxTTL {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRecordValidate(t *testing.T) {
	for name, spoil := range map[string]func(r *Record){
		"id":         func(r *Record) { r.ID = cluster.UUID{} },
		"node":       func(r *Record) { r.Node = cluster.UUID{} },
		"state":      func(r *Record) { r.State = "new" },
		"open bound": func(r *Record) { r.Bound = keyA },
		"bound open": func(r *Record) { r.State = RecordBound },
		"key":        func(r *Record) { r.PublicKey = nil },
		"weak key":   func(r *Record) { r.PublicKey = weakKey() },
		"expires":    func(r *Record) { r.Expires = r.Created.Add(MaxTTL + 1) },
	} {
		r := newRecord(t)
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
		if spoil(&r); r.Validate() == nil {
			t.Errorf("%s: valid", name)
		}
		if (Table{r.ID: r}).Validate() == nil {
			t.Errorf("%s: valid in a table", name)
		}
	}
}

func TestTable(t *testing.T) {
	tab := Table{}
	first, second := newRecord(t), newRecord(t)
	must(tab.Add(first, testNow))(t)
	_, err := tab.Add(first, testNow)
	wantCode(t, err, cluster.CodeConflict)
	bound := must(bind(0, keyA)(second))(t)
	_, err = tab.Add(bound, testNow)
	wantCode(t, err, cluster.CodeBadFormat)
	if ids := must(tab.Add(second, testNow))(t); !slices.Equal(ids, []cluster.UUID{first.ID}) {
		t.Errorf("superseded %v, want the first", ids)
	}
	_, err = tab.Bind(first.ID, testNow, first.Name, here, keyA)
	wantCode(t, err, cluster.CodeTokenUnknown)
	must(tab.Bind(second.ID, testNow, second.Name, here, keyA))(t)
	if r, ok := tab.Binding(second.Node, keyA); !ok || r.ID != second.ID {
		t.Error("the binding is not found")
	}
	for _, none := range []cluster.Digest{keyB, {}} {
		if _, ok := tab.Binding(second.Node, none); ok {
			t.Error("a binding is found that nobody made")
		}
	}
	must(tab.Spend(second.ID, keyA))(t)
	_, err = tab.Revoke(second.ID)
	wantCode(t, err, cluster.CodeConflict)
	_, err = tab.Revoke(cluster.NewUUID())
	wantCode(t, err, cluster.CodeTokenUnknown)
	if err := tab.Validate(); err != nil {
		t.Error(err)
	}
	if (Table{second.ID: first}).Validate() == nil {
		t.Error("a record filed under another's id is valid")
	}
}

// A new string for a node counts against the old one even under a new name.
func TestTableSupersedesByNode(t *testing.T) {
	tab, old := Table{}, newRecord(t)
	must(tab.Add(old, testNow))(t)
	must(tab.Add(newRecordFor(t, "other.example"), testNow))(t)
	renamed, _, err := NewRecord(RecordSpec{Name: "renamed.example", Node: old.Node}, testNow)
	if err != nil {
		t.Fatal(err)
	}
	if ids := must(tab.Add(renamed, testNow))(t); !slices.Equal(ids, []cluster.UUID{old.ID}) {
		t.Errorf("superseded %v, want %v", ids, old.ID)
	}
}

// When a node joins again with the key that it kept, the newer record counts.
func TestBindingIsTheNewest(t *testing.T) {
	for range 20 { // a map's order is random
		tab := Table{}
		first := newRecord(t)
		must(tab.Add(first, testNow))(t)
		must(tab.Bind(first.ID, testNow, first.Name, here, keyA))(t)
		second, _, err := NewRecord(RecordSpec{Name: first.Name, Node: first.Node}, testNow.Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		must(tab.Add(second, testNow))(t)
		if r, ok := tab.Binding(first.Node, keyA); !ok || r.State != RecordRevoked {
			t.Fatal("a superseded binding is not seen as revoked")
		}
		must(tab.Bind(second.ID, testNow.Add(time.Minute), second.Name, here, keyA))(t)
		if r, ok := tab.Binding(first.Node, keyA); !ok || r.ID != second.ID {
			t.Fatal("the older record counts")
		}
	}
}

func TestTablePrune(t *testing.T) {
	open, bound := newRecord(t), must(bind(0, keyA)(newRecord(t)))(t)
	for _, c := range []struct {
		r    Record
		kept time.Duration
	}{{open, retention}, {bound, LifetimeNode}} {
		tab := Table{c.r.ID: c.r}
		if tab.Prune(c.r.Expires.Add(c.kept - 1)); len(tab) != 1 {
			t.Errorf("%s record forgotten too early", c.r.State)
		}
		if tab.Prune(c.r.Expires.Add(c.kept)); len(tab) != 0 {
			t.Errorf("%s record never forgotten", c.r.State)
		}
	}
}

func TestTableIsBounded(t *testing.T) {
	tab := Table{}
	for range maxRecords {
		must(tab.Add(newRecordFor(t, cluster.Name("n"+cluster.NewUUID().String())), testNow))(t)
	}
	_, err := tab.Add(newRecord(t), testNow)
	wantCode(t, err, cluster.CodeBusy)
	must(tab.Add(newRecord(t), testNow.Add(DefaultTTL+retention)))(t)
	if len(tab) != 1 {
		t.Errorf("%d records, want the new one only", len(tab))
	}
}

func newRecordFor(t testing.TB, name cluster.Name) Record {
	t.Helper()
	r, _, err := NewRecord(RecordSpec{Name: name}, testNow)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
