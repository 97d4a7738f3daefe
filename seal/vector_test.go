package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"rolekey/cluster"
)

var update = flag.Bool("update", false, "write testdata/vectors.json and testdata/keyring.v1 anew")

// hexBytes is written as hex.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

// vector is one example of docs/at-rest.rst. The plaintext is Plaintext, Repeat
// times; a sealed form longer than a few lines is given as a hash only.
type vector struct {
	Name        string       `json:"name"`
	Key         hexBytes     `json:"key"`
	KeyID       string       `json:"key_id"`
	Cluster     cluster.UUID `json:"cluster"`
	Node        cluster.UUID `json:"node"`
	Incarnation uint64       `json:"incarnation"`
	Purpose     string       `json:"purpose"`
	Index       uint64       `json:"index"`
	Stream      bool         `json:"stream"`
	Random      hexBytes     `json:"random"` // nonce of a record, salt of a stream
	Plaintext   string       `json:"plaintext"`
	Repeat      int          `json:"repeat"`
	Associated  hexBytes     `json:"associated"`
	Sealed      hexBytes     `json:"sealed,omitempty"`
	SealedHash  hexBytes     `json:"sealed_sha256"`
}

func (v *vector) ring(t *testing.T) *Keyring {
	t.Helper()
	key, err := newDataKey(v.Key, Active)
	if err != nil {
		t.Fatal(err)
	}
	set, err := newKeySet([]*dataKey{key})
	if err != nil {
		t.Fatal(err)
	}
	k := &Keyring{ctx: Context{v.Cluster, v.Node, v.Incarnation}}
	k.keys.Store(set)
	return k
}

// compute seals the vector's plaintext and returns the associated data too.
func (v *vector) compute(t *testing.T) (id string, associated, sealed []byte) {
	t.Helper()
	k := v.ring(t)
	key := k.keys.Load().active
	plaintext := bytes.Repeat([]byte(v.Plaintext), v.Repeat)
	if !v.Stream {
		h := newHeader(formatRecord, key.ID)
		sealed = k.seal([nonceSize]byte(v.Random), v.Purpose, v.Index, plaintext)
		return key.ID.String(), k.ctx.associated(h, v.Purpose, v.Index), sealed
	}
	var b bytes.Buffer
	w, err := k.newStreamWriter(&b, [saltSize]byte(v.Random), v.Purpose, v.Index)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plaintext); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	h := newHeader(formatStream, key.ID)
	return key.ID.String(), k.ctx.associated(h, v.Purpose, v.Index), b.Bytes()
}

func vectorInputs() []vector {
	count := func(from byte, n int) hexBytes {
		b := make(hexBytes, n)
		for i := range b {
			b[i] = from + byte(i)
		}
		return b
	}
	base := vector{
		Key: count(0, keySize), Cluster: uuidA, Node: uuidB, Incarnation: 1,
		Random: count(0x40, nonceSize), Repeat: 1,
	}
	with := func(name string, change func(v *vector)) vector {
		v := base
		v.Name = name
		change(&v)
		return v
	}
	stream := func(purpose, text string, repeat int) func(v *vector) {
		return func(v *vector) {
			v.Stream, v.Random = true, count(0x60, saltSize)
			v.Purpose, v.Index, v.Plaintext, v.Repeat = purpose, 4096, text, repeat
		}
	}
	return []vector{
		with("log entry", func(v *vector) { v.Purpose, v.Index, v.Plaintext = "raft-log", 42, "add node5" }),
		with("empty, no purpose", func(*vector) {}),
		with("greatest index", func(v *vector) { v.Purpose, v.Index, v.Incarnation = "raft-log", 1<<64-1, 1<<63 }),
		with("file", func(v *vector) { v.Purpose, v.Plaintext = "file/signing-key", "seed" }),
		with("stream", stream("raft-snapshot/3-4096-1700000000000", "state", 1)),
		with("empty stream", stream("raft-snapshot/3-4096-1700000000000", "", 1)),
		with("stream, one full chunk", stream("p", "x", chunkSize)),
		with("stream, one byte more", stream("p", "x", chunkSize+1)),
	}
}

func writeVectors(t *testing.T, path string) {
	t.Helper()
	vectors := vectorInputs()
	for i := range vectors {
		v := &vectors[i]
		id, associated, sealed := v.compute(t)
		sum := sha256.Sum256(sealed)
		v.KeyID, v.Associated, v.SealedHash = id, associated, sum[:]
		if len(sealed) < 512 {
			v.Sealed = sealed
		}
	}
	b, err := json.MarshalIndent(vectors, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVectors(t *testing.T) {
	path := filepath.Join("testdata", "vectors.json")
	if *update {
		writeVectors(t, path)
	}
	var vectors []vector
	d := json.NewDecoder(bytes.NewReader(readFile(t, path)))
	d.DisallowUnknownFields()
	if err := d.Decode(&vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) != len(vectorInputs()) {
		t.Fatalf("%d vectors, want %d", len(vectors), len(vectorInputs()))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			id, associated, sealed := v.compute(t)
			sum := sha256.Sum256(sealed)
			if id != v.KeyID || !bytes.Equal(associated, v.Associated) || !bytes.Equal(sum[:], v.SealedHash) {
				t.Fatalf("got id %s, associated %x, sealed %x", id, associated, sum)
			}
			if v.Sealed != nil && !bytes.Equal(sealed, v.Sealed) {
				t.Fatalf("got %x", sealed)
			}
		})
	}
}

func TestKeyringVector(t *testing.T) {
	path := filepath.Join("testdata", "keyring.v1")
	keys := ringOf(ours, 1, 2).keys.Load().all
	if *update {
		if err := os.WriteFile(path, encodeKeyring(ours, keys), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := readFile(t, path)
	ctx, set, err := parseKeyring(text)
	if err != nil || ctx != ours || set.active.ID != keys[0].ID || len(set.all) != 2 {
		t.Fatalf("got %v, %v, %v", ctx, set, err)
	}
	if !bytes.Equal(encodeKeyring(ours, keys), text) {
		t.Fatal("the keyring is written differently now")
	}
}
