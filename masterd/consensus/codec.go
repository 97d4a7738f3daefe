package consensus

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/seal"
)

// Numbers of the encodings inside sealed records.
const (
	entryFormat = 1
	metaFormat  = 1
)

// maxServers bounds a configuration that is read back.
const maxServers = 1024

func appendField[T ~string | ~[]byte](b []byte, field T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
	return append(b, field...)
}

// encodeEntry returns everything of a log entry but its index, which is the key
// of the record and part of its seal.
func encodeEntry(l *raft.Log) []byte {
	b := make([]byte, 0, 30+len(l.Data)+len(l.Extensions))
	b = append(b, entryFormat)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = append(b, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, uint64(l.AppendedAt.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(l.AppendedAt.Nanosecond()))
	b = appendField(b, l.Data)
	return appendField(b, l.Extensions)
}

// decodeEntry fills l, which keeps parts of b.
func decodeEntry(b []byte, index uint64, l *raft.Log) error {
	d := decoder{b: b}
	d.format(entryFormat)
	entry := raft.Log{Index: index, Term: d.u64(), Type: raft.LogType(d.u8())}
	seconds, nanos := int64(d.u64()), d.u32()
	entry.Data, entry.Extensions = d.field(), d.field()
	if nanos >= uint32(time.Second) {
		d.fail()
	}
	if err := d.end(); err != nil {
		return err
	}
	entry.AppendedAt = time.Unix(seconds, int64(nanos)).UTC()
	*l = entry
	return nil
}

// encodeMeta returns everything of a snapshot's metadata but its ID, which is
// part of the seal.
func encodeMeta(m *raft.SnapshotMeta) []byte {
	b := []byte{metaFormat}
	b = binary.BigEndian.AppendUint64(b, m.Index)
	b = binary.BigEndian.AppendUint64(b, m.Term)
	b = binary.BigEndian.AppendUint64(b, m.ConfigurationIndex)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Size))
	b = binary.BigEndian.AppendUint32(b, uint32(len(m.Configuration.Servers)))
	for _, s := range m.Configuration.Servers {
		b = append(b, byte(s.Suffrage))
		b = appendField(b, s.ID)
		b = appendField(b, s.Address)
	}
	return b
}

func decodeMeta(b []byte, id string) (*raft.SnapshotMeta, error) {
	d := decoder{b: b}
	d.format(metaFormat)
	m := &raft.SnapshotMeta{
		Version: raft.SnapshotVersionMax, ID: id,
		Index: d.u64(), Term: d.u64(), ConfigurationIndex: d.u64(), Size: int64(d.u64()),
	}
	n := d.u32()
	if n > maxServers || m.Size < 0 {
		d.fail()
	}
	for i := uint32(0); i < n && d.err == nil; i++ {
		s := raft.Server{
			Suffrage: raft.ServerSuffrage(d.u8()),
			ID:       raft.ServerID(d.field()), Address: raft.ServerAddress(d.field()),
		}
		if s.Suffrage > raft.Staging {
			d.fail()
		}
		m.Configuration.Servers = append(m.Configuration.Servers, s)
	}
	return m, d.end()
}

// decoder reads the encodings above. After the first failure it yields zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errMalformed
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail()
		return nil
	}
	taken := d.b[:n:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) format(want byte) {
	if got := d.u8(); d.err == nil && got != want {
		d.err = fmt.Errorf("content format %d: %w", got, seal.ErrUnknownFormat)
		d.b = nil
	}
}

func (d *decoder) u8() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// field returns nil for an empty field: raft does not tell nil from empty.
func (d *decoder) field() []byte {
	n := d.u32()
	if n == 0 || uint64(n) > uint64(len(d.b)) {
		if n != 0 {
			d.fail()
		}
		return nil
	}
	return d.take(int(n))
}

func (d *decoder) end() error {
	if len(d.b) > 0 {
		d.fail()
	}
	return d.err
}
