package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rolekey/cluster"
)

var (
	uuidA = mustUUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8")
	uuidB = mustUUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427")
	uuidC = mustUUID("886313e1-3b8a-4372-9b90-0c9aee199e5d")
	ours  = Context{Cluster: uuidA, Node: uuidB, Incarnation: 1}
)

func mustUUID(s string) cluster.UUID {
	u, err := cluster.ParseUUID(s)
	if err != nil {
		panic(err)
	}
	return u
}

// ringOf makes a keyring in memory whose keys are filled with the given bytes,
// the first one active.
func ringOf(ctx Context, fill ...byte) *Keyring {
	var keys []*dataKey
	state := Active
	for _, b := range fill {
		key, err := newDataKey(bytes.Repeat([]byte{b}, keySize), state)
		if err != nil {
			panic(err)
		}
		keys, state = append(keys, key), Retiring
	}
	set, err := newKeySet(keys)
	if err != nil {
		panic(err)
	}
	k := &Keyring{path: "memory", ctx: ctx}
	k.keys.Store(set)
	return k
}

func TestRecordRoundTrip(t *testing.T) {
	k := ringOf(ours, 1)
	rapid.Check(t, func(t *rapid.T) {
		purpose := rapid.String().Draw(t, "purpose")
		index := rapid.Uint64().Draw(t, "index")
		plaintext := rapid.SliceOf(rapid.Byte()).Draw(t, "plaintext")
		record := k.Seal(purpose, index, plaintext)
		if len(record) != len(plaintext)+Overhead {
			t.Fatalf("record of %d bytes for %d", len(record), len(plaintext))
		}
		got, err := k.Open(purpose, index, record)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("got %x, %v; want %x", got, err, plaintext)
		}
		if bytes.Equal(record, k.Seal(purpose, index, plaintext)) {
			t.Fatal("sealing twice gave the same record")
		}
	})
}

// TestG9RecordBoundToItsPlace moves a record to every neighbouring place.
func TestG9RecordBoundToItsPlace(t *testing.T) {
	record := ringOf(ours, 1).Seal("raft-log", 7, []byte("add node5"))
	tests := []struct {
		name    string
		ctx     Context
		purpose string
		index   uint64
		key     byte
		want    error
	}{
		{"its place", ours, "raft-log", 7, 1, nil},
		{"other index", ours, "raft-log", 8, 1, ErrTampered},
		{"other purpose", ours, "raft-stable/CurrentTerm", 7, 1, ErrTampered},
		{"longer purpose", ours, "raft-log\x00", 7, 1, ErrTampered},
		{"other node", Context{uuidA, uuidC, 1}, "raft-log", 7, 1, ErrTampered},
		{"other cluster", Context{uuidC, uuidB, 1}, "raft-log", 7, 1, ErrTampered},
		{"cluster and node swapped", Context{uuidB, uuidA, 1}, "raft-log", 7, 1, ErrTampered},
		{"later incarnation", Context{uuidA, uuidB, 2}, "raft-log", 7, 1, ErrTampered},
		{"other node, other key", Context{uuidA, uuidC, 1}, "raft-log", 7, 2, ErrWrongKey},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ringOf(tt.ctx, tt.key).Open(tt.purpose, tt.index, record)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if (tt.want != nil) != (got == nil) {
				t.Fatalf("got plaintext %q with error %v", got, err)
			}
		})
	}
}

func TestG9RecordEveryBitCounts(t *testing.T) {
	k := ringOf(ours, 1)
	record := k.Seal("raft-log", 7, []byte("add node5"))
	for bit := range 8 * len(record) {
		bad := bytes.Clone(record)
		bad[bit/8] ^= 1 << (bit % 8)
		want := ErrTampered
		if bit < 8 {
			want = ErrUnknownFormat
		} else if bit < 8*headerSize {
			want = ErrWrongKey
		}
		if _, err := k.Open("raft-log", 7, bad); !errors.Is(err, want) {
			t.Fatalf("bit %d: got %v, want %v", bit, err, want)
		}
	}
}

func TestG9RecordCut(t *testing.T) {
	k := ringOf(ours, 1)
	record := k.Seal("raft-log", 7, []byte("add node5"))
	for n := range len(record) {
		want := ErrTampered
		if n < Overhead {
			want = ErrTruncated
		}
		if _, err := k.Open("raft-log", 7, record[:n]); !errors.Is(err, want) {
			t.Fatalf("%d bytes: got %v, want %v", n, err, want)
		}
	}
	if _, err := k.Open("raft-log", 7, append(record, 0)); !errors.Is(err, ErrTampered) {
		t.Fatalf("longer: got %v", err)
	}
}

// TestAssociatedDataIsInjective shifts bytes between neighbouring fields.
func TestAssociatedDataIsInjective(t *testing.T) {
	type place struct {
		ctx     Context
		purpose string
		index   uint64
	}
	gen := rapid.Custom(func(t *rapid.T) place {
		pick := rapid.SampledFrom([]cluster.UUID{uuidA, uuidB, uuidC})
		ctx := Context{pick.Draw(t, "cluster"), pick.Draw(t, "node"), rapid.Uint64Range(0, 3).Draw(t, "incarnation")}
		purpose := rapid.StringMatching("[ab\x00\x01]{0,9}").Draw(t, "purpose")
		return place{ctx, purpose, rapid.Uint64Range(0, 3).Draw(t, "index")}
	})
	h := newHeader(formatRecord, KeyID{1})
	rapid.Check(t, func(t *rapid.T) {
		p, q := gen.Draw(t, "p"), gen.Draw(t, "q")
		same := bytes.Equal(p.ctx.associated(h, p.purpose, p.index), q.ctx.associated(h, q.purpose, q.index))
		if same != (p == q) {
			t.Fatalf("%v and %v: same encoding is %t", p, q, same)
		}
	})
}

func TestRetiringKeyOpens(t *testing.T) {
	old := ringOf(ours, 1).Seal("p", 0, []byte("x"))
	k := ringOf(ours, 2, 1)
	if got, err := k.Open("p", 0, old); err != nil || string(got) != "x" {
		t.Fatalf("got %q, %v", got, err)
	}
	id, err := KeyOf(k.Seal("p", 0, nil))
	if err != nil || id != k.Keys()[0].ID || k.Keys()[0].State != Active {
		t.Fatalf("sealed with %s, %v; keys %v", id, err, k.Keys())
	}
}

func TestKeyOf(t *testing.T) {
	if _, err := KeyOf([]byte{formatRecord, 2}); !errors.Is(err, ErrTruncated) {
		t.Errorf("short: got %v", err)
	}
	if _, err := KeyOf(make([]byte, 99)); !errors.Is(err, ErrUnknownFormat) {
		t.Errorf("format 0: got %v", err)
	}
}

// TestG6NothingPrintsKeys prints everything that holds a key, alone and inside
// another value, with every verb.
func TestG6NothingPrintsKeys(t *testing.T) {
	k, err := Create(filepath.Join(t.TempDir(), "keyring"), ours)
	if err != nil {
		t.Fatal(err)
	}
	secret := k.keys.Load().active.secret.Reveal()
	w, err := k.NewStreamWriter(io.Discard, "p", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(secret); err != nil {
		t.Fatal(err)
	}
	type holder struct {
		a *Keyring
		b *dataKey
		c *keySet
		d *StreamWriter
	}
	set := k.keys.Load()
	values := []any{k, set.active, set, *set, w, holder{k, set.active, set, w}, []*dataKey{set.active}}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			out := fmt.Sprintf(verb, v)
			for _, leak := range []string{
				fmt.Sprintf("%x", secret[:6]), fmt.Sprint(secret[:4])[1:], string(secret[:6]),
				strings.Trim(fmt.Sprintf("%#v", secret[:4]), "[]byte{}"),
			} {
				if strings.Contains(out, leak) {
					t.Errorf("%s of %T shows the key", verb, v)
				}
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	k := ringOf(ours, 1)
	// A fixed nonce: each of the fuzzer's processes makes this record anew.
	good := k.seal([nonceSize]byte{}, "raft-log", 7, []byte("add node5"))
	f.Add(good)
	f.Add(good[:headerSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, record []byte) {
		got, err := k.Open("raft-log", 7, record)
		if err == nil && !bytes.Equal(record, good) {
			t.Fatalf("a forged record opens: %x -> %x", record, got)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	k := ringOf(ours, 1)
	plaintext := make([]byte, 512)
	b.SetBytes(512)
	b.ReportAllocs()
	for b.Loop() {
		k.Seal("raft-log", 7, plaintext)
	}
}
