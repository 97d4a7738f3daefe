package candmap_test

import (
	"bytes"
	"testing"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

// Every decoder has the same law: what it accepts, it encodes to the very same
// bytes, and it never panics.

func FuzzParseEnvelope(f *testing.F) {
	f.Add(ct.Seal(ct.Map(1, 2, 3), 1, 2).Encode())
	f.Add(ct.Beacon(ct.Map(1), ct.Epoch0, 1).Encode())
	f.Add([]byte(`{"payloadType":"application/vnd.rolekey.x","payload":"","signatures":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if env, err := candmap.ParseEnvelope(b); err == nil && !bytes.Equal(env.Encode(), b) {
			t.Errorf("%q encodes as %q", b, env.Encode())
		}
	})
}

func FuzzDecodeMap(f *testing.F) {
	m := ct.Map(1, 2, 3)
	ct.SetRecovery(m, 1, 8, 9)
	for _, m := range []*candmap.Map{m, ct.Map(1), ct.Next(m)} {
		f.Add(ct.Seal(m).Payload)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := candmap.DecodeMap(b)
		if err != nil {
			return
		}
		if again, err := m.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q encodes as %q, %v", b, again, err)
		}
	})
}

func FuzzDecodeBeacon(f *testing.F) {
	f.Add(ct.Beacon(ct.Map(1), ct.Epoch0).Payload)
	f.Fuzz(func(t *testing.T, b []byte) {
		beacon, err := candmap.DecodeBeacon(b)
		if err != nil {
			return
		}
		if again, err := beacon.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q encodes as %q, %v", b, again, err)
		}
	})
}

func FuzzParseRosterIndex(f *testing.F) {
	f.Add(ct.Roster(1).Index())
	f.Add(ct.Roster(1, 2, 3).Index())
	f.Fuzz(func(t *testing.T, b []byte) {
		ri, err := candmap.ParseRosterIndex(b, cluster.DigestOf(b))
		if err == nil && len(ri.Missing(func(cluster.Digest) bool { return false })) > candmap.RosterBuckets {
			t.Error("more buckets than there are")
		}
	})
}

// The hash of what is fuzzed is right, as if the map's signers had made it.
func FuzzRosterBucket(f *testing.F) {
	r := ct.Roster(1)
	var good []byte
	for d, b := range r.Docs() {
		if d != r.Hash() {
			good = b
		}
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, bucket []byte) {
		d := cluster.DigestOf(bucket)
		index := bytes.Replace(r.Index(), []byte(cluster.DigestOf(good).String()), []byte(d.String()), 1)
		docs := map[cluster.Digest][]byte{cluster.DigestOf(index): index, d: bucket}
		got, err := candmap.AssembleRoster(cluster.DigestOf(index), func(d cluster.Digest) []byte { return docs[d] })
		if err != nil {
			return
		}
		again, err := candmap.NewRoster(got.Nodes(), got.Settings())
		if err != nil || again.Hash() != got.Hash() {
			t.Errorf("a roster that was accepted is made otherwise: %v", err)
		}
	})
}

// Whatever bytes an envelope carries, a receiver takes a map only with a
// majority of its voters, so with random signatures never.
func FuzzFollow(f *testing.F) {
	m := ct.Map(1, 2, 3)
	f.Add(ct.Seal(ct.Next(m), 1, 2).Encode())
	f.Add(ct.Seal(m, 1, 2).Encode())
	g := genesis(f, 1, 2, 3)
	f.Fuzz(func(t *testing.T, b []byte) {
		env, err := candmap.ParseEnvelope(b)
		if err != nil {
			return
		}
		v, err := candmap.Follow(g, env)
		if err == nil && (env.Signers(g.Authority().Voters) < 2 || !v.At().Newer(g.At())) {
			t.Errorf("took %s", b)
		}
	})
}
