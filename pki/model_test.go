package pki

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rolekey/cluster"
)

// modelRecord is what the model knows of one record: who won it, and whether
// it can be won or used at all.
type modelRecord struct {
	id      cluster.UUID
	name    cluster.Name
	expires time.Time
	winner  cluster.Digest
	spent   bool
	revoked bool
}

// Under any sequence of events a record is won by at most one key, in time,
// under its own name, while not revoked; and the table survives its way
// through JSON after every event.
func TestTableModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &tableModel{tab: Table{}, now: testNow}
		t.Repeat(map[string]func(*rapid.T){
			"add": m.add, "bind": m.bind, "spend": m.spend, "revoke": m.revoke,
			"wait": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes")) * time.Minute)
			},
			"": m.check,
		})
	})
}

type tableModel struct {
	tab     Table
	now     time.Time
	records []*modelRecord
}

var (
	modelNames = []cluster.Name{"node1.example", "node2.example"}
	modelKeys  = []cluster.Digest{keyA, keyB}
)

func (m *tableModel) pick(t *rapid.T) *modelRecord {
	if len(m.records) == 0 {
		t.Skip("no record")
	}
	return rapid.SampledFrom(m.records).Draw(t, "record")
}

func (m *tableModel) add(t *rapid.T) {
	r, _, err := NewRecord(RecordSpec{Name: rapid.SampledFrom(modelNames).Draw(t, "name")}, m.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.tab.Add(r, m.now); err != nil {
		t.Skip(err) // full
	}
	for _, old := range m.records {
		old.revoked = old.revoked || old.name == r.Name && !old.spent
	}
	m.records = append(m.records, &modelRecord{id: r.ID, name: r.Name, expires: r.Expires})
}

func (m *tableModel) bind(t *rapid.T) {
	r := m.pick(t)
	name, key := rapid.SampledFrom(modelNames).Draw(t, "name"), rapid.SampledFrom(modelKeys).Draw(t, "key")
	want := !r.revoked && !r.spent && name == r.name && m.now.Before(r.expires) && (r.winner.IsZero() || r.winner == key)
	if _, err := m.tab.Bind(r.id, m.now, name, here, key); (err == nil) != want {
		t.Fatalf("bind of %+v by %s as %s at %s: %v", *r, key.Short(), name, m.now, err)
	}
	if want {
		r.winner = key
	}
}

func (m *tableModel) spend(t *rapid.T) {
	r, key := m.pick(t), rapid.SampledFrom(modelKeys).Draw(t, "key")
	want := r.spent || !r.revoked && r.winner == key
	if _, ok := m.tab[r.id]; !ok {
		want = false // forgotten
	}
	if _, err := m.tab.Spend(r.id, key); (err == nil) != want {
		t.Fatalf("spend of %+v by %s: %v", *r, key.Short(), err)
	}
	r.spent = r.spent || want
}

func (m *tableModel) revoke(t *rapid.T) {
	r := m.pick(t)
	_, kept := m.tab[r.id]
	if _, err := m.tab.Revoke(r.id); (err == nil) != (kept && !r.spent) {
		t.Fatalf("revoke of %+v: %v", *r, err)
	}
	r.revoked = r.revoked || !r.spent
}

func (m *tableModel) check(t *rapid.T) {
	if err := m.tab.Validate(); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(m.tab)
	if err != nil {
		t.Fatal(err)
	}
	var again Table
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, m.tab) {
		t.Fatalf("through JSON: %v\n%s", err, text)
	}
	for _, r := range m.records {
		if got, ok := m.tab[r.id]; ok && got.Bound != r.winner {
			t.Fatalf("%s is bound to %s, won by %s", r.id, got.Bound.Short(), r.winner.Short())
		}
	}
}
