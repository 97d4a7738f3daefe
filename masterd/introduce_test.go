package masterd

import (
	"errors"
	"slices"
	"testing"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/masterd/state/statetest"
)

// Only what tells of a node that does not recognise this one is taken note of,
// and however often it is told, nobody waits.
func TestIntroducerNotes(t *testing.T) {
	i := newIntroducer(nil, nil, nil, zap.NewNop())
	for _, err := range []error{nil, errors.New("dead"), cluster.Errorf(cluster.CodeUnavailable, "away"), cluster.Errorf(cluster.CodeEvicted, "evicted"), cluster.Errorf(cluster.CodeIdentityMismatch, "impostor")} {
		i.refused(statetest.ID(1), err)
	}
	if n := len(i.queue); n != 0 {
		t.Errorf("%d nodes are to be told of the map, and none refused this one", n)
	}
	for range 2 * introduceQueue {
		i.refused(statetest.ID(2), cluster.Errorf(cluster.CodeNotInMap, "who are you"))
	}
	if n := len(i.queue); n != introduceQueue {
		t.Errorf("%d notes are kept, want %d", n, introduceQueue)
	}
}

func TestUpTo(t *testing.T) {
	docs := [][]byte{make([]byte, 5), make([]byte, 4), make([]byte, 3)}
	for limit, want := range map[int]int{1: 1, 5: 1, 8: 1, 9: 2, 11: 2, 12: 3, 99: 3} {
		if got := upTo(docs, limit); len(got) != want || !slices.EqualFunc(got, docs[:want], func(a, b []byte) bool { return len(a) == len(b) }) {
			t.Errorf("%d documents in %d bytes, want %d", len(got), limit, want)
		}
	}
	if got := upTo(nil, 1); len(got) != 0 {
		t.Errorf("%d documents of none", len(got))
	}
}
