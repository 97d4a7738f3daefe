package gossip

import (
	"encoding/binary"
	"errors"

	"rolekey/cluster"
)

// A member's metadata: format, UUID, epoch, version, big-endian.
const (
	metaFormat = 1
	metaSize   = 1 + 16 + 8 + 8
)

func encodeMeta(self cluster.NodeID, at cluster.Version) []byte {
	b := make([]byte, 0, metaSize)
	b = append(b, metaFormat)
	b = append(b, self[:]...)
	b = binary.BigEndian.AppendUint64(b, at.Epoch)
	return binary.BigEndian.AppendUint64(b, at.Version)
}

// decodeMeta reads the metadata that the member of this name shows.
func decodeMeta(id cluster.NodeID, b []byte) (cluster.Version, error) {
	if len(b) != metaSize || b[0] != metaFormat {
		return cluster.Version{}, errors.New("decode metadata: not of format 1")
	}
	if cluster.NodeID(b[1:17]) != id {
		return cluster.Version{}, errors.New("decode metadata: it is another node's")
	}
	return cluster.Version{Epoch: binary.BigEndian.Uint64(b[17:]), Version: binary.BigEndian.Uint64(b[25:])}, nil
}
