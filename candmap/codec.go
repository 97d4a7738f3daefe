package candmap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"rolekey/cluster"
)

// timeLayout is the one form of a time in signed bytes: UTC, milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z"

// maxMapItems bounds the values in a map's JSON, so that an array of empty
// values cannot make the decoder allocate many times the payload.
const maxMapItems = 32 + 3*MaxRecoveryKeys + MaxCandidates*(48+MaxAddresses+MaxFrom)

const maxBeaconItems = 16

// Stamp returns t as documents carry it: UTC, whole milliseconds, no
// monotonic reading.
func Stamp(t time.Time) time.Time { return t.Round(0).UTC().Truncate(time.Millisecond) }

// stamp gives a time its canonical text.
type stamp time.Time

func (s stamp) MarshalText() ([]byte, error) {
	return []byte(time.Time(s).UTC().Format(timeLayout)), nil
}

func (s *stamp) UnmarshalText(b []byte) error {
	t, err := time.Parse(timeLayout, string(b))
	if err != nil {
		return fmt.Errorf("parse time %.40q: want the form %s", b, timeLayout)
	}
	*s = stamp(t)
	return nil
}

func checkTime(what string, t time.Time) error {
	if t.Year() < 2000 || t.Year() > 9999 || t.Nanosecond()%int(time.Millisecond) != 0 {
		return bad("%s is not a time of this era in whole milliseconds", what)
	}
	return nil
}

// wireMap is Map in the form that is encoded; the order of the fields is the
// order of the members.
type wireMap struct {
	Cluster         cluster.UUID     `json:"cluster"`
	Epoch           uint64           `json:"epoch"`
	Version         uint64           `json:"version"`
	Previous        cluster.Digest   `json:"previous"`
	Issued          stamp            `json:"issued"`
	LeaseSeconds    uint32           `json:"lease_seconds"`
	SSHLeaseSeconds uint32           `json:"ssh_lease_seconds"`
	Policy          cluster.Policy   `json:"policy"`
	SSHReach        cluster.SSHReach `json:"ssh_reach"`
	Master          cluster.NodeID   `json:"master"`
	Candidates      []Candidate      `json:"candidates"`
	Roster          cluster.Digest   `json:"roster"`
	Recovery        Recovery         `json:"recovery"`
}

// Encode checks the map and returns its canonical JSON, the bytes to sign.
func (m *Map) Encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, wrapCode("encode map", err)
	}
	w := wireMap{
		m.Cluster, m.Epoch, m.Version, m.Previous, stamp(m.Issued), m.LeaseSeconds, m.SSHLeaseSeconds,
		m.Policy, m.SSHReach, m.Master, slices.Clone(notNil(m.Candidates)), m.Roster, m.Recovery,
	}
	for i := range w.Candidates {
		c := &w.Candidates[i]
		c.Addresses, c.Client = notNil(c.Addresses), notNil(c.Client)
		c.SSH, c.From = notNil(c.SSH), notNil(c.From)
	}
	w.Recovery.Keys = notNil(w.Recovery.Keys)
	return marshalWithin(w, MaxMapPayload)
}

// DecodeMap reads the canonical form of a valid map, and nothing else. Verify
// the signatures first.
func DecodeMap(payload []byte) (*Map, error) {
	var m *Map
	_, err := decodeCanonical(payload, MaxMapPayload, maxMapItems, func(w *wireMap) ([]byte, error) {
		m = &Map{
			w.Cluster, w.Epoch, w.Version, w.Previous, time.Time(w.Issued), w.LeaseSeconds, w.SSHLeaseSeconds,
			w.Policy, w.SSHReach, w.Master, w.Candidates, w.Roster, w.Recovery,
		}
		return m.Encode()
	})
	if err != nil {
		return nil, wrapCode("decode map", err)
	}
	return m, nil
}

type wireBeacon struct {
	Cluster cluster.UUID   `json:"cluster"`
	Epoch   uint64         `json:"epoch"`
	Version uint64         `json:"version"`
	Map     cluster.Digest `json:"map"`
	Time    stamp          `json:"time"`
}

// Encode checks the beacon and returns its canonical JSON.
func (b *Beacon) Encode() ([]byte, error) {
	if b.Cluster.IsZero() || b.Map.IsZero() || !inRange(b.Epoch) || !inRange(b.Version) {
		return nil, bad("encode beacon: cluster, map, epoch and version must be set")
	}
	if err := checkTime("time", b.Time); err != nil {
		return nil, wrapCode("encode beacon", err)
	}
	return marshalWithin(wireBeacon{b.Cluster, b.Epoch, b.Version, b.Map, stamp(b.Time)}, MaxBeaconPayload)
}

// DecodeBeacon reads the canonical form of a beacon, and nothing else.
func DecodeBeacon(payload []byte) (*Beacon, error) {
	var b *Beacon
	_, err := decodeCanonical(payload, MaxBeaconPayload, maxBeaconItems, func(w *wireBeacon) ([]byte, error) {
		b = &Beacon{w.Cluster, w.Epoch, w.Version, w.Map, time.Time(w.Time)}
		return b.Encode()
	})
	if err != nil {
		return nil, wrapCode("decode beacon", err)
	}
	return b, nil
}

// decodeCanonical reads b as a T and then demands that encode, which also
// validates, yields exactly b again. That one comparison refuses duplicate
// members, other spellings of member names, null for a list, white space,
// trailing bytes, redundant escapes and loose base64, all of which
// encoding/json would let pass.
func decodeCanonical[T any](b []byte, maxBytes, maxItems int, encode func(*T) ([]byte, error)) (*T, error) {
	if len(b) > maxBytes {
		return nil, cluster.Errorf(cluster.CodeTooLarge, "%d bytes, the limit is %d", len(b), maxBytes)
	}
	if err := scan(b, maxItems); err != nil {
		return nil, err
	}
	v := new(T)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return nil, bad("%.120s", err.Error()) // it may quote what the sender wrote
	}
	again, err := encode(v)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, bad("not the canonical encoding")
	}
	return v, nil
}

// scan bounds nesting and the number of values before the decoder allocates
// anything for them. It need not understand JSON: bytes that are not JSON fail
// in the decoder.
func scan(b []byte, maxItems int) error {
	depth, items, quoted := 0, 1, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case c == ',' || c == ':':
			items++
		}
		if depth > MaxDepth {
			return bad("nested deeper than %d", MaxDepth)
		}
		if items > maxItems {
			return cluster.Errorf(cluster.CodeTooLarge, "more than %d values", maxItems)
		}
	}
	return nil
}

func marshalWithin(v any, limit int) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, bad("%v", err)
	}
	if len(b) > limit {
		return nil, cluster.Errorf(cluster.CodeTooLarge, "%d bytes, the limit is %d", len(b), limit)
	}
	return b, nil
}

// notNil makes an absent list encode as [].
func notNil[S ~[]E, E any](s S) S {
	if s == nil {
		return S{}
	}
	return s
}

func bad(format string, args ...any) *cluster.Error {
	return cluster.Errorf(cluster.CodeBadFormat, format, args...)
}

// wrapCode puts "verb object: " before a message and keeps the code.
func wrapCode(what string, err error) error {
	if err == nil {
		return nil
	}
	e, ok := err.(*cluster.Error) //nolint:errorlint // a wrapped one keeps its wrapping, such as ForkError
	if !ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	c := *e
	c.Message = what + ": " + c.Message
	return &c
}
