package candmap_test

import (
	"bytes"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

func TestMapRoundTrip(t *testing.T) {
	m := ct.Map(1, 2, 3)
	ct.SetRecovery(m, 2, 7, 8, 9)
	m.Issued = m.Issued.Add(120 * time.Millisecond)
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := candmap.DecodeMap(b)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Fatalf("DecodeMap = %+v, %v\nwant %+v", got, err, m)
	}
	if !bytes.Contains(b, []byte(`"issued":"2026-01-02T03:04:05.120Z"`)) {
		t.Errorf("the time is not in its canonical form: %s", b)
	}
}

func TestEncodeDoesNotDependOnNilOrZone(t *testing.T) {
	a, b := ct.Map(1), ct.Map(1)
	a.Candidates[0].SSH, a.Candidates[0].From, a.Recovery.Keys = nil, nil, nil
	b.Candidates[0].SSH, b.Candidates[0].From, b.Recovery.Keys = []cluster.SSHKey{}, []netip.Prefix{}, []candmap.SigningKey{}
	b.Issued = b.Issued.In(time.FixedZone("east", 3600))
	x, err1 := a.Encode()
	y, err2 := b.Encode()
	if err1 != nil || err2 != nil || !bytes.Equal(x, y) {
		t.Errorf("two spellings of one map: %v, %v\n%s\n%s", err1, err2, x, y)
	}
	if a.Candidates[0].From != nil {
		t.Error("Encode changed its receiver")
	}
}

func TestDecodeMapIsStrict(t *testing.T) {
	b, err := ct.Map(1, 2, 3).Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	change := func(old, new string) string {
		s := strings.Replace(good, old, new, 1)
		if s == good {
			t.Fatalf("%q is not in the map", old)
		}
		return s
	}
	for name, in := range map[string]string{
		"empty":             "",
		"null":              "null",
		"unknown member":    change(`{`, `{"colour":"red",`),
		"unknown inside":    change(`"uuid"`, `"colour":1,"uuid"`),
		"member twice":      change(`"epoch":1`, `"epoch":1,"epoch":1`),
		"member twice, big": change(`"version":1`, `"version":9,"version":1`),
		"other case":        change(`"epoch"`, `"Epoch"`),
		"other order":       change(`"epoch":1,"version":1`, `"version":1,"epoch":1`),
		"white space":       change(`,`, `, `),
		"trailing":          good + " ",
		"null list":         change(`"keys":[]`, `"keys":null`),
		"list missing":      change(`,"keys":[]`, ``),
		"float":             change(`"epoch":1`, `"epoch":1.0`),
		"exponent":          change(`"epoch":1`, `"epoch":1e0`),
		"negative":          change(`"epoch":1`, `"epoch":-1`),
		"no milliseconds":   change(`05.000Z`, `05Z`),
		"comma in time":     change(`05.000Z`, `05,000Z`),
		"offset":            change(`05.000Z`, `05.000+00:00`),
		"microseconds":      change(`05.000Z`, `05.000000Z`),
		"upper-case UUID":   change(`aaaaaaaa-`, `AAAAAAAA-`),
		"escape":            change(`"strict"`, `"stric\u0074"`),
		"padded address":    change(`"192.0.0.1"`, `"192.0.0.001"`),
		"mapped address":    change(`"192.0.0.1"`, `"::ffff:192.0.0.1"`),
		"loose base64":      change(`="`, `=\n"`),
		"deep":              change(`[{`, strings.Repeat("[", 20)+`[{`),
	} {
		if _, err := candmap.DecodeMap([]byte(in)); cluster.CodeOf(err) != cluster.CodeBadFormat {
			t.Errorf("%s: %v, want bad_format", name, err)
		}
	}
	for name, in := range map[string]string{
		"too large":        good + strings.Repeat(" ", candmap.MaxMapPayload),
		"very many values": change(`"candidates":[`, `"candidates":[`+strings.Repeat("{},", 20_000)),
	} {
		if _, err := candmap.DecodeMap([]byte(in)); cluster.CodeOf(err) != cluster.CodeTooLarge {
			t.Errorf("%s: %v, want too_large", name, err)
		}
	}
}

// badMaps are changes that make a valid map of three voters invalid.
var badMaps = map[string]func(m *candmap.Map){
	"no cluster":           func(m *candmap.Map) { m.Cluster = cluster.UUID{} },
	"epoch 0":              func(m *candmap.Map) { m.Epoch = 0 },
	"version 0":            func(m *candmap.Map) { m.Version = 0 },
	"version not exact":    func(m *candmap.Map) { m.Version, m.Previous = candmap.MaxNumber, ct.Pin("x", 1) },
	"first with previous":  func(m *candmap.Map) { m.Previous = ct.Pin("x", 1) },
	"later without":        func(m *candmap.Map) { m.Version = 2 },
	"recovered without":    func(m *candmap.Map) { m.Epoch = 2 },
	"no time":              func(m *candmap.Map) { m.Issued = time.Time{} },
	"microseconds":         func(m *candmap.Map) { m.Issued = m.Issued.Add(time.Microsecond) },
	"far future":           func(m *candmap.Map) { m.Issued = m.Issued.AddDate(9000, 0, 0) },
	"no lease":             func(m *candmap.Map) { m.LeaseSeconds = 0 },
	"long lease":           func(m *candmap.Map) { m.LeaseSeconds = 86401 },
	"short ssh lease":      func(m *candmap.Map) { m.SSHLeaseSeconds = 59 },
	"long ssh lease":       func(m *candmap.Map) { m.SSHLeaseSeconds = 30*86400 + 1 },
	"no policy":            func(m *candmap.Map) { m.Policy = "" },
	"odd reach":            func(m *candmap.Map) { m.SSHReach = "all" },
	"foreign master":       func(m *candmap.Map) { m.Master = ct.NodeID(9) },
	"no candidates":        func(m *candmap.Map) { m.Candidates, m.Master = nil, cluster.NodeID{} },
	"no voters":            func(m *candmap.Map) { setVoter(m, false) },
	"eight voters":         func(m *candmap.Map) { ct.SetVoters(m, 1, 2, 3, 4, 5, 6, 7, 8) },
	"no roster":            func(m *candmap.Map) { m.Roster = cluster.Digest{} },
	"unsorted":             func(m *candmap.Map) { slices.Reverse(m.Candidates) },
	"one node twice":       func(m *candmap.Map) { m.Candidates[1] = m.Candidates[0] },
	"no uuid":              func(m *candmap.Map) { m.Candidates[0].UUID = cluster.NodeID{} },
	"no incarnation":       func(m *candmap.Map) { m.Candidates[0].Incarnation = 0 },
	"pattern as name":      func(m *candmap.Map) { m.Candidates[0].Name = "*" },
	"line as name":         func(m *candmap.Map) { m.Candidates[0].Name = "a\nb" },
	"one name twice":       func(m *candmap.Map) { m.Candidates[0].Name = m.Candidates[1].Name },
	"no address":           func(m *candmap.Map) { m.Candidates[0].Addresses = nil },
	"nine addresses":       func(m *candmap.Map) { m.Candidates[0].Addresses = addrs(9) },
	"zero address":         func(m *candmap.Map) { m.Candidates[0].Addresses = []netip.Addr{{}} },
	"zone":                 func(m *candmap.Map) { m.Candidates[0].Addresses[0] = netip.MustParseAddr("fe80::1%eth0") },
	"one address twice":    func(m *candmap.Map) { m.Candidates[0].Addresses = m.Candidates[1].Addresses },
	"no port":              func(m *candmap.Map) { m.Candidates[0].MasterdPort = 0 },
	"no client":            func(m *candmap.Map) { m.Candidates[0].Client = nil },
	"three clients":        func(m *candmap.Map) { m.Candidates[0].Client = pins(3) },
	"zero client":          func(m *candmap.Map) { m.Candidates[0].Client = []cluster.Digest{{}} },
	"one client twice":     func(m *candmap.Map) { m.Candidates[0].Client = m.Candidates[1].Client },
	"short key":            func(m *candmap.Map) { m.Candidates[0].Signing = m.Candidates[0].Signing[:31] },
	"zero key":             func(m *candmap.Map) { m.Candidates[0].Signing = make([]byte, 32) },
	"one key twice":        func(m *candmap.Map) { m.Candidates[0].Signing = m.Candidates[1].Signing },
	"signer recovers":      func(m *candmap.Map) { ct.SetRecovery(m, 1, 1) },
	"three ssh keys":       func(m *candmap.Map) { m.Candidates[0].SSH = sshKeys(3) },
	"one ssh key twice":    func(m *candmap.Map) { m.Candidates[0].SSH = m.Candidates[1].SSH },
	"ssh type":             func(m *candmap.Map) { m.Candidates[0].SSH[0].Type = "ssh-dss" },
	"ssh type not of blob": func(m *candmap.Map) { m.Candidates[0].SSH[0].Type = "ssh-rsa" },
	"empty blob":           func(m *candmap.Map) { m.Candidates[0].SSH[0].Blob = nil },
	"type and no key":      func(m *candmap.Map) { m.Candidates[0].SSH[0].Blob = m.Candidates[0].SSH[0].Blob[:15] },
	"huge blob":            func(m *candmap.Map) { growBlob(&m.Candidates[0].SSH[0]) },
	"key from nowhere":     func(m *candmap.Map) { m.Candidates[0].From = nil },
	"from everywhere":      func(m *candmap.Map) { m.Candidates[0].From[0] = netip.MustParsePrefix("0.0.0.0/0") },
	"from everywhere, 6":   func(m *candmap.Map) { m.Candidates[0].From[0] = netip.MustParsePrefix("::/0") },
	"from not masked":      func(m *candmap.Map) { m.Candidates[0].From[0] = netip.MustParsePrefix("10.0.0.1/8") },
	"from nothing":         func(m *candmap.Map) { m.Candidates[0].From[0] = netip.Prefix{} },
	"from mapped":          func(m *candmap.Map) { m.Candidates[0].From[0] = netip.MustParsePrefix("::ffff:10.0.0.0/104") },
	"from twice":           func(m *candmap.Map) { m.Candidates[0].From = append(m.Candidates[0].From, m.Candidates[0].From[0]) },
	"from 17 networks":     func(m *candmap.Map) { m.Candidates[0].From = prefixes(17) },
	"threshold of none":    func(m *candmap.Map) { m.Recovery.Threshold = 1 },
	"no threshold":         func(m *candmap.Map) { ct.SetRecovery(m, 0, 8, 9) },
	"threshold too high":   func(m *candmap.Map) { ct.SetRecovery(m, 3, 8, 9) },
	"threshold over all":   func(m *candmap.Map) { ct.SetRecovery(m, 9, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29) },
	"recovery key twice":   func(m *candmap.Map) { ct.SetRecovery(m, 1, 8, 8) },
	"recovery unsorted":    func(m *candmap.Map) { ct.SetRecovery(m, 1, 8, 9); slices.Reverse(m.Recovery.Keys) },
	"17 recovery keys": func(m *candmap.Map) {
		ct.SetRecovery(m, 1, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36)
	},
}

func TestBadMapsAreNotEncoded(t *testing.T) {
	for name, change := range badMaps {
		m := ct.Map(1, 2, 3)
		change(m)
		if _, err := m.Encode(); cluster.CodeOf(err) != cluster.CodeBadFormat {
			t.Errorf("%s: %v, want bad_format", name, err)
		}
	}
}

func TestGoodMaps(t *testing.T) {
	for name, change := range map[string]func(m *candmap.Map){
		"no master":      func(m *candmap.Map) { m.Master = cluster.NodeID{} },
		"two voters":     func(m *candmap.Map) { m.Candidates[0].Voter = false },
		"seven voters":   func(m *candmap.Map) { ct.SetVoters(m, 1, 2, 3, 4, 5, 6, 7) },
		"no ssh":         func(m *candmap.Map) { m.Candidates[0].SSH, m.Candidates[0].From = nil, nil },
		"two of each":    func(m *candmap.Map) { m.Candidates[0].SSH, m.Candidates[0].Client = sshKeys(2), pins(2) },
		"IPv6":           func(m *candmap.Map) { m.Candidates[0].Addresses[0] = netip.MustParseAddr("2001:db8::1") },
		"most recovery":  func(m *candmap.Map) { ct.SetRecovery(m, 8, 20, 21, 22, 23, 24, 25, 26, 27) },
		"raised epoch":   func(m *candmap.Map) { m.Epoch, m.Version, m.Previous = 2, 9, ct.Pin("x", 1) },
		"other policies": func(m *candmap.Map) { m.Policy, m.SSHReach = cluster.PolicyBestEffort, cluster.ReachMaster },
	} {
		m := ct.Map(1, 2, 3)
		change(m)
		b, err := m.Encode()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := candmap.DecodeMap(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The largest map that the limits on its parts allow must fit the limit on the
// whole, and its values the limit on values.
func TestLargestMapFits(t *testing.T) {
	m := ct.Map(1, 2, 3, 4, 5, 6, 7)
	for n := 8; n <= candmap.MaxCandidates; n++ {
		m.Candidates = append(m.Candidates, ct.Candidate(n, false))
	}
	for i := range m.Candidates {
		c := &m.Candidates[i]
		for j := range candmap.MaxAddresses - 1 {
			c.Addresses = append(c.Addresses, ct.Addr(1000+100*j+i))
		}
		c.Client = append(c.Client, ct.Pin("second", i))
		c.SSH = append(c.SSH, ct.SSHKey("second", i))
		c.From = prefixes(candmap.MaxFrom)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := candmap.DecodeMap(b); err != nil {
		t.Error(err)
	}
}

func TestBeaconRoundTrip(t *testing.T) {
	b := &candmap.Beacon{Cluster: ct.Cluster, Epoch: 1, Version: 7, Map: ct.Pin("map", 1), Time: ct.Epoch0}
	doc, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := candmap.DecodeBeacon(doc); err != nil || *got != *b {
		t.Errorf("DecodeBeacon = %+v, %v", got, err)
	}
	for name, change := range map[string]func(b *candmap.Beacon){
		"cluster": func(b *candmap.Beacon) { b.Cluster = cluster.UUID{} },
		"epoch":   func(b *candmap.Beacon) { b.Epoch = 0 },
		"version": func(b *candmap.Beacon) { b.Version = candmap.MaxNumber },
		"map":     func(b *candmap.Beacon) { b.Map = cluster.Digest{} },
		"time":    func(b *candmap.Beacon) { b.Time = time.Time{} },
	} {
		bad := *b
		change(&bad)
		if _, err := bad.Encode(); cluster.CodeOf(err) != cluster.CodeBadFormat {
			t.Errorf("bad %s: %v", name, err)
		}
	}
}

func setVoter(m *candmap.Map, voter bool) {
	for i := range m.Candidates {
		m.Candidates[i].Voter = voter
	}
}

func addrs(n int) (list []netip.Addr) {
	for i := range n {
		list = append(list, ct.Addr(500+i))
	}
	return list
}

func prefixes(n int) (list []netip.Prefix) {
	for _, a := range addrs(n) {
		list = append(list, netip.PrefixFrom(a, 32))
	}
	return list
}

func pins(n int) (list []cluster.Digest) {
	for i := range n {
		list = append(list, ct.Pin("extra", i))
	}
	return list
}

func sshKeys(n int) (list []cluster.SSHKey) {
	for i := range n {
		list = append(list, ct.SSHKey("extra", i))
	}
	return list
}

func growBlob(k *cluster.SSHKey) { k.Blob = append(k.Blob, make([]byte, candmap.MaxSSHBlob)...) }
