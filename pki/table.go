package pki

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"rolekey/cluster"
)

// Table holds the admission records of a cluster by id. It is part of the
// replicated state: every method is a function of the table and its arguments.
type Table map[cluster.UUID]Record

// Validate checks a table that was decoded.
func (t Table) Validate() error {
	if len(t) > maxRecords {
		return fmt.Errorf("check admission records: %d, at most %d", len(t), maxRecords)
	}
	for id, r := range t {
		if id != r.ID {
			return fmt.Errorf("check admission records: %s is filed under %s", r.ID, id)
		}
		if err := r.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// Add files a new record, forgets what nobody asks for any more, and revokes
// earlier records for the same node, whose ids it returns: the newest string
// alone is good, so that a lost one is dealt with by making another.
func (t Table) Add(r Record, now time.Time) (superseded []cluster.UUID, err error) {
	if err := r.Validate(); err != nil {
		return nil, cluster.Errorf(cluster.CodeBadFormat, "%v", err)
	}
	if r.State != RecordOpen {
		return nil, cluster.Errorf(cluster.CodeBadFormat, "new admission record in state %s", r.State)
	}
	if _, ok := t[r.ID]; ok {
		return nil, cluster.Errorf(cluster.CodeConflict, "admission record %s exists", r.ID)
	}
	t.Prune(now)
	if len(t) >= maxRecords {
		return nil, cluster.Errorf(cluster.CodeBusy, "%d admission records are kept, the most there may be", maxRecords).
			WithHint("Wait until old ones are forgotten, 7 days after they expire.")
	}
	for _, old := range t.List() {
		if (old.Name == r.Name || old.Node == r.Node) && (old.State == RecordOpen || old.State == RecordBound) {
			old.State = RecordRevoked
			t[old.ID] = old
			superseded = append(superseded, old.ID)
		}
	}
	t[r.ID] = r
	return superseded, nil
}

// Lookup returns a record, or CodeTokenUnknown.
func (t Table) Lookup(id cluster.UUID) (Record, error) {
	r, ok := t[id]
	if !ok {
		return Record{}, cluster.Errorf(cluster.CodeTokenUnknown, "the cluster does not know this admission string").
			WithHint("It was revoked or forgotten, or is of another cluster. Make a new one on the master: gnt-node add NAME")
	}
	return r, nil
}

// Bind is Record.Bind on the record id.
func (t Table) Bind(id cluster.UUID, now time.Time, name cluster.Name, remote netip.Addr, key cluster.Digest) (Record, error) {
	return t.update(id, func(r Record) (Record, error) { return r.Bind(now, name, remote, key) })
}

// Spend is Record.Spend on the record id.
func (t Table) Spend(id cluster.UUID, key cluster.Digest) (Record, error) {
	return t.update(id, func(r Record) (Record, error) { return r.Spend(key) })
}

// Revoke is Record.Revoke on the record id.
func (t Table) Revoke(id cluster.UUID) (Record, error) {
	return t.update(id, Record.Revoke)
}

func (t Table) update(id cluster.UUID, change func(Record) (Record, error)) (Record, error) {
	r, err := t.Lookup(id)
	if err != nil {
		return Record{}, err
	}
	if r, err = change(r); err != nil {
		return Record{}, err
	}
	t[id] = r
	return r, nil
}

// Binding returns the newest record that bound this key for this node, in
// whatever state: at the first use of an identity certificate, Spend tells
// whether it may go on. Whoever has neither a binding nor a pin in the roster
// is nobody.
func (t Table) Binding(node cluster.NodeID, key cluster.Digest) (Record, bool) {
	for _, r := range slices.Backward(t.List()) {
		if r.Node == node && r.Bound == key && !key.IsZero() {
			return r, true
		}
	}
	return Record{}, false
}

// Prune forgets records that nobody asks for any more.
func (t Table) Prune(now time.Time) {
	maps.DeleteFunc(t, func(_ cluster.UUID, r Record) bool { return !now.Before(r.keepUntil()) })
}

// List returns the records, the oldest first.
func (t Table) List() []Record {
	return slices.SortedFunc(maps.Values(t), func(a, b Record) int {
		return cmp.Or(a.Created.Compare(b.Created), slices.Compare(a.ID[:], b.ID[:]))
	})
}
