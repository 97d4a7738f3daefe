package candmap

import (
	"time"

	"rolekey/cluster"
)

// BeaconType is the payloadType of a beacon.
const BeaconType = "application/vnd.rolekey.beacon.v1+json"

// Beacon states that, at Time, the map with this version and hash was still
// the current one. A majority of the voters signs it.
type Beacon struct {
	Cluster cluster.UUID   `json:"cluster"`
	Epoch   uint64         `json:"epoch"`
	Version uint64         `json:"version"`
	Map     cluster.Digest `json:"map"`  // SHA-256 of the map's payload
	Time    time.Time      `json:"time"` // UTC, whole milliseconds
}

// At returns the version that the beacon speaks for.
func (b *Beacon) At() cluster.Version { return cluster.Version{Epoch: b.Epoch, Version: b.Version} }
