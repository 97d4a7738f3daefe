package backup_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/backup"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// sample is a backup of a cluster of one node, whose signing key the test holds.
func sample(t testing.TB) *backup.Backup {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	g := statetest.Genesis()
	g.Node.Keys.Signing = candmap.SigningKey(public)
	l := &statetest.Lab{TB: t, S: state.New(), Now: statetest.Epoch, Term: 1}
	l.Do(state.KindGenesis, g)
	head := l.S.Head()
	sig, err := candmap.Sign(key, candmap.MapType, head.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return &backup.Backup{
		State: l.S, Maps: []candmap.Envelope{{PayloadType: candmap.MapType, Payload: head.Payload, Signatures: []candmap.Signature{sig}}},
		Header: backup.Header{
			Cluster: l.S.Cluster.UUID, Name: "lab.test", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Node: "node1.lab.test",
			Index: 7, Term: 3, Version: head.Version, Hash: head.Hash, Nodes: 1, FeatureLevel: 1, Software: "test",
		},
	}
}

func written(t testing.TB, b *backup.Backup) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := backup.Write(&out, b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRoundTrip(t *testing.T) {
	b := sample(t)
	text := written(t, b)
	back, err := backup.Read(iotest.HalfReader(bytes.NewReader(text)))
	if err != nil || back.Header != b.Header || !bytes.Equal(back.State.CA.Key.Reveal(), statetest.CAKey) {
		t.Fatalf("%v", err)
	}
	if !bytes.Equal(text, written(t, back)) {
		t.Error("written again it differs")
	}
}

// TestG9BackupMustBeWhole cuts it off at every byte, and adds one.
func TestG9BackupMustBeWhole(t *testing.T) {
	text := written(t, sample(t))
	for n := range len(text) {
		if _, err := backup.Read(bytes.NewReader(text[:n])); err == nil {
			t.Fatalf("the first %d of %d bytes are a backup", n, len(text))
		}
	}
	if _, err := backup.Read(bytes.NewReader(append(text, 0))); err == nil {
		t.Error("something may follow")
	}
	broken := iotest.TimeoutReader(io.MultiReader(bytes.NewReader(text), iotest.ErrReader(io.ErrUnexpectedEOF)))
	if _, err := backup.Read(broken); err == nil {
		t.Error("the end was not authenticated")
	}
}

func TestPartsMustAgree(t *testing.T) {
	for name, change := range map[string]func(b *backup.Backup){
		"another cluster": func(b *backup.Backup) { b.Header.Cluster = statetest.ID(9) },
		"another map":     func(b *backup.Backup) { b.Header.Hash = cluster.DigestOf(nil) },
		"another version": func(b *backup.Backup) { b.Header.Version.Version++ },
		"no map":          func(b *backup.Backup) { b.Maps = []candmap.Envelope{} },
		"unsigned":        func(b *backup.Backup) { b.Maps[0].Signatures = []candmap.Signature{} },
		"no cluster":      func(b *backup.Backup) { b.State = state.New() },
	} {
		b := sample(t)
		change(b)
		if _, err := backup.Read(bytes.NewReader(written(t, b))); err == nil {
			t.Errorf("%s: it is read", name)
		}
	}
}

func TestLaterFormat(t *testing.T) {
	text := written(t, sample(t))
	text[9] = 2
	if _, err := backup.Read(bytes.NewReader(text)); cluster.CodeOf(err) != cluster.CodeUnsupportedFormat {
		t.Errorf("%v", err)
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add(written(f, sample(f)))
	f.Add([]byte("RKBACKUP\x00\x01\x00\x00\x00\x02{}"))
	f.Add([]byte("RKBACKUP\x00\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := backup.ReadHeader(bytes.NewReader(b))
		if err != nil {
			return
		}
		text, err := json.Marshal(h)
		if err != nil || !bytes.Contains(b, text) {
			t.Fatalf("a header has two encodings: %v", err)
		}
		_, _ = backup.Read(bytes.NewReader(b)) // must not panic
	})
}
