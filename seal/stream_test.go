package seal

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func sealStream(t testing.TB, k *Keyring, index uint64, plaintext []byte) []byte {
	var b bytes.Buffer
	w, err := k.NewStreamWriter(&b, "p", index)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plaintext); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openStream(k *Keyring, index uint64, sealed []byte) ([]byte, error) {
	r, err := k.NewStreamReader(bytes.NewReader(sealed), "p", index)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// pattern returns n bytes in which no two chunks are alike.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16)*31
	}
	return b
}

func TestStreamRoundTrip(t *testing.T) {
	k := ringOf(ours, 1)
	for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 3*chunkSize + 7} {
		plaintext := pattern(n)
		sealed := sealStream(t, k, 3, plaintext)
		if int64(len(sealed)) != StreamSize(int64(n)) {
			t.Errorf("%d bytes: stream of %d, StreamSize says %d", n, len(sealed), StreamSize(int64(n)))
		}
		if got, err := openStream(k, 3, sealed); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
		r, err := k.NewStreamReader(bytes.NewReader(sealed), "p", 3)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(r, plaintext); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestStreamWriteInPieces(t *testing.T) {
	k := ringOf(ours, 1)
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOfN(rapid.IntRange(0, chunkSize+1), 0, 5).Draw(t, "pieces")
		var b bytes.Buffer
		w, err := k.NewStreamWriter(&b, "p", 0)
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for _, n := range pieces {
			p := pattern(n)
			if m, err := w.Write(p); m != n || err != nil {
				t.Fatalf("wrote %d of %d, %v", m, n, err)
			}
			want = append(want, p...)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := openStream(k, 0, b.Bytes())
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(want))
		}
	})
}

// TestG9StreamTampered changes a stream of three chunks in every way that keeps
// chunks whole, and some that do not.
func TestG9StreamTampered(t *testing.T) {
	k := ringOf(ours, 1)
	plaintext := pattern(2*chunkSize + 100)
	good := sealStream(t, k, 3, plaintext)
	other := sealStream(t, k, 3, plaintext)
	head := good[:streamHeader]
	c0, c1, c2 := good[streamHeader:][:boxSize], good[streamHeader+boxSize:][:boxSize], good[streamHeader+2*boxSize:]
	o1 := other[streamHeader+boxSize:][:boxSize]
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	tests := []struct {
		name   string
		sealed []byte
		want   error
	}{
		{"good", good, nil},
		{"empty", nil, ErrTruncated},
		{"half a head", head[:20], ErrTruncated},
		{"head only", head, ErrTruncated},
		{"without the last", join(head, c0, c1), ErrTruncated},
		{"without the last two", join(head, c0), ErrTruncated},
		{"cut inside a tag", join(head, c0, c1, c2[:9]), ErrTruncated},
		{"cut inside the last", good[:len(good)-1], ErrTampered},
		{"cut inside the first", good[:streamHeader+1000], ErrTampered},
		{"without the middle", join(head, c0, c2), ErrTampered},
		{"reordered", join(head, c1, c0, c2), ErrTampered},
		{"repeated", join(head, c0, c0, c1, c2), ErrTampered},
		{"last one twice", join(head, c0, c1, c2, c2), ErrTampered},
		{"a byte more", join(good, []byte{0}), ErrTampered},
		{"chunk of another stream", join(head, c0, o1, c2), ErrTampered},
		{"head of another stream", join(other[:streamHeader], c0, c1, c2), ErrTampered},
		{"a record", k.Seal("p", 3, plaintext), ErrUnknownFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := openStream(k, 3, tt.sealed)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if !bytes.HasPrefix(plaintext, got) {
				t.Fatal("bytes came out that were never written")
			}
		})
	}
	full := sealStream(t, k, 3, pattern(chunkSize))
	if _, err := openStream(k, 3, append(full, 0)); !errors.Is(err, ErrTampered) {
		t.Errorf("a byte after a full final chunk: got %v", err)
	}
}

func TestG9StreamBoundToItsPlace(t *testing.T) {
	sealed := sealStream(t, ringOf(ours, 1), 3, []byte("state"))
	tests := []struct {
		name  string
		k     *Keyring
		index uint64
		want  error
	}{
		{"its place", ringOf(ours, 1), 3, nil},
		{"retiring key", ringOf(ours, 2, 1), 3, nil},
		{"other index", ringOf(ours, 1), 4, ErrTampered},
		{"other node", ringOf(Context{uuidA, uuidC, 1}, 1), 3, ErrTampered},
		{"later incarnation", ringOf(Context{uuidA, uuidB, 2}, 1), 3, ErrTampered},
		{"other key", ringOf(ours, 2), 3, ErrWrongKey},
	}
	for _, tt := range tests {
		if _, err := openStream(tt.k, tt.index, sealed); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	k := ringOf(ours, 1)
	r, err := k.NewStreamReader(bytes.NewReader(sealed), "q", 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, ErrTampered) {
		t.Errorf("other purpose: got %v", err)
	}
}

func TestG9StreamEveryBitCounts(t *testing.T) {
	k := ringOf(ours, 1)
	good := sealStream(t, k, 3, []byte("state"))
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		if got, err := openStream(k, 3, bad); err == nil || len(got) > 0 {
			t.Fatalf("bit %d: got %q, %v", bit, got, err)
		}
	}
}

// TestStreamEmptyFinalChunk: no second encoding of the same content.
func TestStreamEmptyFinalChunk(t *testing.T) {
	k := ringOf(ours, 1)
	var b bytes.Buffer
	w, err := k.NewStreamWriter(&b, "p", 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(pattern(chunkSize)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.flush(false), w.flush(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := openStream(k, 3, b.Bytes()); !errors.Is(err, ErrTampered) {
		t.Fatalf("got %v", err)
	}
}

func TestStreamClose(t *testing.T) {
	k := ringOf(ours, 1)
	var b bytes.Buffer
	w, err := k.NewStreamWriter(&b, "p", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("write after close: want an error")
	}
	if int64(b.Len()) != StreamSize(0) {
		t.Errorf("closing twice wrote %d bytes", b.Len())
	}
}

var errFull = errors.New("no space left")

// fullWriter takes n bytes, then fails.
type fullWriter struct{ n int }

func (w *fullWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestStreamFullDisk(t *testing.T) {
	k := ringOf(ours, 1)
	if _, err := k.NewStreamWriter(&fullWriter{}, "p", 0); !errors.Is(err, errFull) {
		t.Errorf("head: got %v", err)
	}
	w, err := k.NewStreamWriter(&fullWriter{streamHeader + boxSize}, "p", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 3*chunkSize)); !errors.Is(err, errFull) {
		t.Errorf("chunk: got %v", err)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, errFull) {
		t.Errorf("after a failure: got %v", err)
	}
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("close after a failure: got %v", err)
	}
}

func TestStreamReadError(t *testing.T) {
	k := ringOf(ours, 1)
	sealed := sealStream(t, k, 0, pattern(2*chunkSize))
	for _, n := range []int{10, streamHeader, streamHeader + 99, streamHeader + boxSize} {
		broken := io.MultiReader(bytes.NewReader(sealed[:n]), iotest.ErrReader(errFull))
		r, err := k.NewStreamReader(broken, "p", 0)
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !errors.Is(err, errFull) {
			t.Errorf("after %d bytes: got %v", n, err)
		}
	}
}

func FuzzStream(f *testing.F) {
	k := ringOf(ours, 1)
	// A fixed salt: each of the fuzzer's processes makes this stream anew.
	var b bytes.Buffer
	w, err := k.newStreamWriter(&b, [saltSize]byte{}, "p", 3)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := w.Write([]byte("state")); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	good := b.Bytes()
	f.Add(good)
	f.Add(good[:streamHeader])
	f.Fuzz(func(t *testing.T, sealed []byte) {
		got, err := openStream(k, 3, sealed)
		if (err == nil || len(got) > 0) && !bytes.Equal(sealed, good) {
			t.Fatalf("a forged stream opens: %q, %v", got, err)
		}
	})
}
