// Package backup is the format of backups: the replicated state and the signed
// maps, to be encrypted by age. See docs/backup.rst.
//
// Its functions may be called concurrently. They hold the whole state in memory,
// as masterd does.
package backup

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
)

const (
	magic  = "RKBACKUP\x00"
	format = 1
)

// Bounds of the fields.
const (
	maxHeader = 64 << 10
	maxMaps   = 64 << 20
)

// Header says what a backup is.
type Header struct {
	Cluster      cluster.UUID    `json:"cluster"`
	Name         cluster.Name    `json:"name"`
	Created      time.Time       `json:"created"`
	Node         cluster.Name    `json:"node"`
	Index        uint64          `json:"index"` // of raft, as far as it was applied
	Term         uint64          `json:"term"`
	Version      cluster.Version `json:"version"` // of the newest map that is signed
	Hash         cluster.Digest  `json:"hash"`
	Nodes        int             `json:"nodes"`
	FeatureLevel int             `json:"feature_level"`
	Software     string          `json:"software"`
}

// Backup is a whole one. It holds secrets.
type Backup struct {
	Header Header
	Maps   []candmap.Envelope // oldest first
	State  *state.State
}

// Newest returns the newest map that is signed, verified against its own voters.
func (b *Backup) Newest() (*candmap.Verified, error) {
	env := b.Maps[len(b.Maps)-1]
	return candmap.Genesis(env, env.Hash())
}

// Write writes the clear text of a backup.
func Write(w io.Writer, b *Backup) error {
	header, err := json.Marshal(b.Header)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	maps, err := json.Marshal(b.Maps)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	snapshot, err := state.EncodeSnapshot(b.State)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	defer clear(snapshot)
	if len(header) > maxHeader || len(maps) > maxMaps {
		return cluster.Errorf(cluster.CodeTooLarge, "write backup: a field is over its limit")
	}
	if _, err := w.Write(append([]byte(magic), format)); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	for _, f := range [][]byte{header, maps, snapshot} {
		if err := writeField(w, f); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
	}
	return nil
}

func writeField(w io.Writer, f []byte) error {
	if err := binary.Write(w, binary.BigEndian, uint32(len(f))); err != nil { // #nosec G115 -- bounded by the caller
		return err
	}
	_, err := w.Write(f)
	return err
}

// Read reads a backup to its end and checks that its parts agree.
func Read(r io.Reader) (*Backup, error) {
	b, err := read(r)
	if err != nil && cluster.CodeOf(err) == cluster.CodeInternal {
		err = cluster.Errorf(cluster.CodeBadFormat, "%v", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	return b, nil
}

func read(r io.Reader) (*Backup, error) {
	b := new(Backup)
	var err error
	if b.Header, err = ReadHeader(r); err != nil {
		return nil, err
	}
	maps, err := readField(r, maxMaps)
	if err != nil {
		return nil, err
	}
	if err := strict(maps, &b.Maps); err != nil {
		return nil, err
	}
	snapshot, err := readField(r, state.MaxSnapshot)
	if err != nil {
		return nil, err
	}
	defer clear(snapshot)
	if n, err := io.Copy(io.Discard, io.LimitReader(r, 1)); n > 0 || err != nil {
		return nil, errors.Join(err, errors.New("something follows its end, or the end is missing"))
	}
	if b.State, err = state.DecodeSnapshot(snapshot); err != nil {
		return nil, err
	}
	return b, b.check()
}

// ReadHeader reads what stands first; the rest is not looked at.
func ReadHeader(r io.Reader) (Header, error) {
	var h Header
	var head [len(magic) + 1]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return h, fmt.Errorf("its beginning: %w", err)
	}
	if string(head[:len(magic)]) != magic {
		return h, errors.New("this is no backup of a Rolekey cluster")
	}
	if head[len(magic)] != format {
		return h, cluster.Errorf(cluster.CodeUnsupportedFormat, "backup format %d, this build knows %d", head[len(magic)], format).
			WithHint("use the release that wrote it, or a later one")
	}
	text, err := readField(r, maxHeader)
	if err != nil {
		return h, err
	}
	return h, strict(text, &h)
}

// readField trusts the length only as far as bytes follow.
func readField(r io.Reader, limit uint32) ([]byte, error) {
	var n uint32
	if err := binary.Read(r, binary.BigEndian, &n); err != nil {
		return nil, fmt.Errorf("length of a field: %w", err)
	}
	if n > limit {
		return nil, cluster.Errorf(cluster.CodeTooLarge, "a field of %d bytes, the limit is %d", n, limit)
	}
	var buf bytes.Buffer
	if got, err := io.CopyN(&buf, r, int64(n)); err != nil {
		return nil, fmt.Errorf("a field of %d bytes ends after %d: %w", n, got, err)
	}
	return buf.Bytes(), nil
}

func strict(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errors.New("a field is not what it should be")
	}
	again, err := json.Marshal(into)
	if err != nil || !bytes.Equal(again, text) {
		return errors.New("a field is not in its only encoding")
	}
	return nil
}

func (b *Backup) check() error {
	if !b.State.Founded() || len(b.Maps) == 0 {
		return errors.New("it holds no cluster")
	}
	newest, err := b.Newest()
	if err != nil {
		return err
	}
	if b.Header.Cluster != b.State.Cluster.UUID || newest.Cluster != b.Header.Cluster ||
		newest.At() != b.Header.Version || newest.Hash != b.Header.Hash {
		return errors.New("header, maps and state do not belong together")
	}
	return nil
}
