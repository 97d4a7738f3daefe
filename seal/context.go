package seal

import (
	"encoding/binary"
	"errors"

	"rolekey/cluster"
)

// Context says whose data a keyring seals. It is bound into every record: what
// another node, another cluster or an earlier incarnation of this node sealed
// does not open, whatever the keys.
type Context struct {
	Cluster     cluster.UUID
	Node        cluster.NodeID
	Incarnation uint64
}

// label keeps this package's associated data apart from any other use of the
// same keys.
const label = "rolekey sealed data"

func (c Context) check() error {
	if c.Cluster.IsZero() || c.Node.IsZero() {
		return errors.New("seal context: cluster and node must be set")
	}
	return nil
}

// associated encodes all that a record or stream is bound to. Every field has
// its length in front, so that no two contexts share an encoding.
func (c Context) associated(h header, purpose string, index uint64) []byte {
	const fixed = len(label) + headerSize + 2*16 + 2*8 + 7*4
	b := make([]byte, 0, fixed+len(purpose))
	b = appendField(b, label)
	b = appendField(b, h[:])
	b = appendField(b, c.Cluster[:])
	b = appendField(b, c.Node[:])
	b = appendField(b, binary.BigEndian.AppendUint64(nil, c.Incarnation))
	b = appendField(b, purpose)
	return appendField(b, binary.BigEndian.AppendUint64(nil, index))
}

func appendField[T string | []byte](b []byte, field T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
	return append(b, field...)
}
