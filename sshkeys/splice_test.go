package sshkeys

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rolekey/cluster"
)

var (
	expires = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	modern  = Options{ExpiryZ: true}
)

func mustUUID(s string) cluster.UUID {
	u, err := cluster.ParseUUID(s)
	if err != nil {
		panic(err)
	}
	return u
}

var (
	ourID = mustUUID("11111111-1111-4111-8111-111111111111")
	nodeA = mustUUID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")
	nodeB = mustUUID("bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb")
)

// fixedKey makes an Ed25519 public key from one byte.
func fixedKey(b byte) cluster.SSHKey {
	blob := append([]byte{0, 0, 0, 11}, "ssh-ed25519\x00\x00\x00\x20"...)
	return cluster.SSHKey{Type: "ssh-ed25519", Blob: append(blob, bytes.Repeat([]byte{b}, 32)...)}
}

func from(addrs ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		out = append(out, netip.MustParsePrefix(a))
	}
	return out
}

func block(t testing.TB, list ...Authorized) Block {
	t.Helper()
	b, err := AuthorizedBlock(ourID, list, expires, modern)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func entry(node cluster.NodeID, keys ...cluster.SSHKey) Authorized {
	return Authorized{Node: node, Keys: keys, From: from("192.0.2.1/32")}
}

func splice(t testing.TB, old string, b Block) (string, Report) {
	t.Helper()
	out, report, err := Splice([]byte(old), b)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), report
}

const (
	keyA64 = "AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
	lineA  = `from="192.0.2.1",expiry-time="20300102030405Z" ssh-ed25519 ` + keyA64 + " rolekey:aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa\n"
	begin  = "# BEGIN ROLEKEY 11111111-1111-4111-8111-111111111111\n"
	end    = "# END ROLEKEY 11111111-1111-4111-8111-111111111111\n"
	beginO = "# BEGIN ROLEKEY 22222222-2222-4222-8222-222222222222\n"
	endO   = "# END ROLEKEY 22222222-2222-4222-8222-222222222222\n"
	blockA = begin + lineA + end
)

// ownB is a line of ours with another key, as an earlier map made it.
var ownB = `from="192.0.2.2",expiry-time="20200102030405Z" ` + keyText(fixedKey(2), nodeB) + "\n"

// foreignC is a key of an administrator.
var foreignC = "ssh-ed25519 " + strings.Fields(keyText(fixedKey(3), nodeA))[1] + " admin@desk\n"

func TestBlockText(t *testing.T) {
	if got := string(block(t, entry(nodeA, fixedKey(1))).Bytes()); got != blockA {
		t.Errorf("got\n%s\nwant\n%s", got, blockA)
	}
	b := block(t,
		Authorized{nodeB, []cluster.SSHKey{fixedKey(3), fixedKey(2)}, from("2001:db8::1/128", "192.0.2.7/24", "10.0.0.1/32", "10.0.0.1/32")},
		entry(nodeA, fixedKey(1)))
	want := begin
	for _, k := range []byte{2, 3} {
		want += `from="10.0.0.1,192.0.2.0/24,2001:db8::1",expiry-time="20300102030405Z" ` + keyText(fixedKey(k), nodeB) + "\n"
	}
	want += lineA + end
	if got := string(b.Bytes()); got != want || b.Len() != 3 {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestBlockOptions(t *testing.T) {
	local := time.FixedZone("test", -2*3600)
	for _, c := range []struct {
		v    Version
		want string
	}{
		{Version{9, 2}, `from="192.0.2.1",expiry-time="20300102030405Z" ssh`},
		{Version{9, 1}, `from="192.0.2.1",expiry-time="20300102030405Z" ssh`},
		{Version{9, 0}, `from="192.0.2.1",expiry-time="20300102010405" ssh`},
		{Version{7, 7}, `from="192.0.2.1",expiry-time="20300102010405" ssh`},
		{Version{7, 6}, `from="192.0.2.1" ssh`},
		{Version{}, `from="192.0.2.1" ssh`},
	} {
		o := OptionsFor(c.v)
		o.Location = local
		b, err := AuthorizedBlock(ourID, []Authorized{entry(nodeA, fixedKey(1))}, expires, o)
		if err != nil || !strings.HasPrefix(b.lines[0].text, c.want) {
			t.Errorf("sshd %s: %v, %q", c.v, err, b.lines)
		}
	}
}

func TestG10BlockFailsClosed(t *testing.T) {
	good := entry(nodeA, fixedKey(1))
	for name, bad := range map[string]Authorized{
		"no from":     {Node: nodeB, Keys: []cluster.SSHKey{fixedKey(2)}},
		"no node":     {Keys: []cluster.SSHKey{fixedKey(2)}, From: good.From},
		"zero prefix": {Node: nodeB, Keys: []cluster.SSHKey{fixedKey(2)}, From: []netip.Prefix{{}}},
		"mapped":      {Node: nodeB, Keys: []cluster.SSHKey{fixedKey(2)}, From: from("::ffff:10.0.0.1/128")},
		"bad key":     {Node: nodeB, Keys: []cluster.SSHKey{{Type: "ssh-ed25519", Blob: []byte("x")}}, From: good.From},
		"injection":   {Node: nodeB, Keys: []cluster.SSHKey{{Type: "ssh-ed25519 AAAA\nssh-rsa", Blob: fixedKey(2).Blob}}, From: good.From},
	} {
		b, err := AuthorizedBlock(ourID, []Authorized{good, bad}, expires, modern)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if string(b.Bytes()) != blockA {
			t.Errorf("%s: the block is\n%s", name, b.Bytes())
		}
	}
	for _, at := range []time.Time{{}, time.Unix(-1, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if b, err := AuthorizedBlock(ourID, []Authorized{good}, at, modern); err == nil || b.Len() != 0 {
			t.Errorf("expiry %s: accepted", at)
		}
	}
	if _, _, err := Splice(nil, Block{}); err == nil {
		t.Error("a block of no cluster: accepted")
	}
}

func TestSplice(t *testing.T) {
	b := block(t, entry(nodeA, fixedKey(1)))
	long := "# " + strings.Repeat("x", 5000)
	for _, c := range []struct {
		name, old, want string
		damage          int
		kept            int
	}{
		{name: "missing or empty", old: "", want: blockA},
		{name: "foreign", old: foreignC, want: blockA + foreignC},
		{name: "no final newline", old: "ssh-ed25519 AAAA x", want: blockA + "ssh-ed25519 AAAA x"},
		{name: "CRLF", old: "# a\r\n\r\n" + long + "\r\n", want: blockA + "# a\r\n\r\n" + long + "\r\n"},
		{name: "same", old: foreignC + blockA + foreignC, want: foreignC + blockA + foreignC},
		{name: "replace in place", old: "# a\n" + begin + ownB + end + "# b", want: "# a\n" + blockA + "# b"},
		{name: "block with CRLF", old: strings.ReplaceAll(begin+ownB+end, "\n", "\r\n") + "# a", want: blockA + "# a"},
		{name: "indented", old: "  " + begin + "\t" + ownB + end, want: blockA},
		{name: "END without newline", old: begin + ownB + strings.TrimSuffix(end, "\n"), want: blockA},
		{name: "foreign inside", old: begin + ownB + foreignC + "# note\n" + end + "# b\n", want: blockA + foreignC + "# note\n# b\n", kept: 2},
		{name: "forced command inside", old: begin + `command="id",` + ownB + end, want: blockA + `command="id",` + ownB, kept: 1},
		{name: "later options inside", old: begin + `restrict,pty,` + ownB + end, want: blockA},
		{name: "extra blanks inside", old: begin + strings.ReplaceAll(ownB, " ", "\t  ") + end, want: blockA},
		{name: "disabled inside", old: begin + offPrefix + ownB[len(offPrefix):] + end, want: blockA},
		{name: "other cluster", old: beginO + ownB + endO, want: blockA + beginO + ownB + endO},
		{name: "nested in other", old: beginO + lineA + begin + ownB + end + lineA + endO, want: beginO + lineA + blockA + lineA + endO},
		{name: "other nested in ours", old: begin + beginO + ownB + endO + ownB + end, want: blockA + beginO + ownB + endO, kept: 3},
		{name: "BEGIN without END", old: "# a\n" + begin + ownB + foreignC + ownB, want: "# a\n" + blockA + foreignC, damage: 1, kept: 1},
		{name: "END without BEGIN", old: ownB + foreignC + ownB + ownB + end + ownB, want: ownB + foreignC + blockA + ownB, damage: 1},
		{name: "only END", old: "# a\n" + end, want: "# a\n" + blockA, damage: 1},
		{name: "two blocks", old: begin + ownB + end + "# a\n" + begin + ownB + end, want: blockA + "# a\n", damage: 1},
		{name: "BEGIN BEGIN END", old: begin + ownB + "# a\n" + begin + ownB + end, want: blockA + "# a\n", damage: 1, kept: 1},
		{name: "overlap", old: beginO + begin + lineA + endO + ownB + end, want: beginO + blockA + lineA + endO, damage: 1, kept: 2},
		{name: "overlap reversed", old: begin + ownB + beginO + lineA + end + lineA + endO, want: blockA + beginO + lineA + lineA + endO, kept: 2},
		{name: "END after the nest", old: beginO + begin + end + lineA + end + endO, want: beginO + blockA + lineA + endO, damage: 1},
		{name: "unclosed other before", old: beginO + begin + ownB + end, want: beginO + blockA},
		{name: "almost a marker", old: "# BEGIN ROLEKEY\n#BEGIN ROLEKEY 11111111-1111-4111-8111-111111111111\n", want: blockA + "# BEGIN ROLEKEY\n#BEGIN ROLEKEY 11111111-1111-4111-8111-111111111111\n"},
		{name: "own line outside", old: ownB + blockA, want: ownB + blockA},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, report := splice(t, c.old, b)
			if got != c.want {
				t.Fatalf("got\n%s\nwant\n%s", got, c.want)
			}
			if report.Changed != (c.old != c.want) || len(report.Damage) != c.damage || report.Kept != c.kept {
				t.Errorf("report %+v, want %d damage and %d kept", report, c.damage, c.kept)
			}
			if again, r := splice(t, got, b); again != got || r.Changed || len(r.Damage) != 0 {
				t.Errorf("again: %+v\n%s", r, again)
			}
		})
	}
}

func TestG8ForeignLinesAreReported(t *testing.T) {
	b := block(t, entry(nodeA, fixedKey(1)))
	b.Former = []cluster.SSHKey{fixedKey(3)}
	bare := "ssh-ed25519 " + keyA64
	old := "# " + bare + "\n" + // comment: no finding
		"\n \r\n\v\n" +
		bare + " copied by hand\n" + // 5: current
		`from="10.0.0.1" ` + foreignC + // 6: former
		ownB + // 7: our comment
		beginO + ownB + endO + // another cluster's own business
		begin + `from="192.0.2.9" ` + keyText(fixedKey(4), nodeB) + "\n" + end +
		"restrict " + keyText(fixedKey(4), nodeB) + "x\r\n" + // taken out of the block just now
		"ssh-ed25519 " + strings.Fields(keyText(fixedKey(5), nodeA))[1] + " unrelated"
	out, report := splice(t, old, b)
	want := []Foreign{
		{Line: 5, Key: fixedKey(1), Current: true},
		{Line: 6, Key: fixedKey(3)},
		{Line: 7, Key: fixedKey(2)},
		{Line: 14, Key: fixedKey(4)},
	}
	if !slices.EqualFunc(report.Foreign, want, func(x, y Foreign) bool { return fmt.Sprint(x) == fmt.Sprint(y) }) {
		t.Errorf("got  %v\nwant %v\nin\n%s", report.Foreign, want, out)
	}
	if strings.ReplaceAll(out, blockA, "") != strings.ReplaceAll(old, begin+`from="192.0.2.9" `+keyText(fixedKey(4), nodeB)+"\n"+end, "") {
		t.Errorf("foreign bytes changed:\n%s", out)
	}
}

func TestSpliceRefusesHugeFile(t *testing.T) {
	if _, _, err := Splice(make([]byte, MaxFile+1), block(t)); err == nil {
		t.Error("accepted")
	}
}

// piece is a stretch of a generated file.
type piece struct {
	text string
	ours bool // a marker of ours, or a key line that may be claimed
}

func genFile() *rapid.Generator[[]piece] {
	raw := rapid.Custom(func(t *rapid.T) piece {
		b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "raw")
		return piece{text: strings.ReplaceAll(string(b), "\n", "\r") + "\n"}
	})
	fixed := rapid.SampledFrom([]piece{
		{beginO, false},
		{endO, false},
		{foreignC, false},
		{"\n", false},
		{"# ROLEKEY OFF\n", false},
		{`command="x",` + ownB, false},
		{"#" + ownB, false},
		{strings.Repeat("y", 5000) + "\r\n", false},
		{"# BEGIN ROLEKEY 11111111-1111-4111-8111-11111111111\n", false},
		{"\xef\xbb\xbf" + begin, false},
		{begin, true},
		{end, true},
		{ownB, true},
		{lineA, true},
		{begin, true},
		{end, true},
		{strings.TrimSuffix(begin, "\n") + "\r\n", true},
		{offPrefix + ownB[len(offPrefix):], true},
	})
	return rapid.SliceOfN(rapid.OneOf(raw, fixed), 0, 12)
}

func join(pieces []piece, only func(piece) bool) string {
	var out strings.Builder
	for _, p := range pieces {
		if only(p) {
			out.WriteString(p.text)
		}
	}
	return out.String()
}

// TestG8ForeignBytesSurvive splices random files, damaged in every way, and
// takes from the result the block and what may be ours: the foreign bytes must
// be left, in order. The generator, not the parser, says which these are.
func TestG8ForeignBytesSurvive(t *testing.T) {
	full, none := block(t, entry(nodeA, fixedKey(1)), entry(nodeB, fixedKey(7))), block(t)
	rapid.Check(t, func(t *rapid.T) {
		pieces := genFile().Draw(t, "file")
		all := func(piece) bool { return true }
		file := join(pieces, all)
		tail := rapid.SampledFrom([]string{"", "no newline", "# END ROLEKEY"}).Draw(t, "tail")
		want := join(pieces, func(p piece) bool { return !p.ours }) + tail
		for _, b := range []Block{full, none} {
			out, _, err := Splice([]byte(file+tail), b)
			if err != nil {
				t.Fatal(err)
			}
			rest := strings.Replace(string(out), string(b.Bytes()), "", 1)
			for _, p := range pieces {
				if p.ours { // some may be kept: those that nobody claims
					rest = dropLine(rest, p.text)
				}
			}
			if rest != want {
				t.Fatalf("foreign bytes\n%q\nbecame\n%q", want, rest)
			}
			if again, r, err := Splice(out, b); err != nil || !bytes.Equal(again, out) || r.Changed || len(r.Damage) != 0 && b.Len() != 0 {
				t.Fatalf("not idempotent: %v\n%q\n%q", err, out, again)
			}
			if bytes.Contains(out, []byte(begin)) && b.Len() == 0 && !bytes.Contains(out, []byte("\xef\xbb\xbf"+begin)) {
				t.Fatalf("a marker is left: %q", out)
			}
		}
	})
}

// dropLine removes every line that is exactly l.
func dropLine(s, l string) string {
	var out strings.Builder
	for have := range strings.Lines(s) {
		if have != l {
			out.WriteString(have)
		}
	}
	return out.String()
}

func TestG8RemovalRestoresEveryByte(t *testing.T) {
	full, none := block(t, entry(nodeA, fixedKey(1))), block(t)
	rapid.Check(t, func(t *rapid.T) {
		pieces := genFile().Draw(t, "file")
		old := join(pieces, func(p piece) bool { return !p.ours || strings.Contains(p.text, commentPrefix) })
		old += rapid.SampledFrom([]string{"", "\r", "no newline"}).Draw(t, "tail")
		with, _, err := Splice([]byte(old), full)
		if err != nil {
			t.Fatal(err)
		}
		without, _, err := Splice(with, none)
		if err != nil || string(without) != old {
			t.Fatalf("%v\n%q\nbecame\n%q", err, old, without)
		}
	})
}

func FuzzSplice(f *testing.F) {
	for _, s := range []string{"", blockA, begin + ownB, ownB + end, beginO + begin + ownB + endO + end, foreignC + "x", "\r\n\x00" + lineA} {
		f.Add([]byte(s))
	}
	full, none := block(f, entry(nodeA, fixedKey(1))), block(f)
	f.Fuzz(func(t *testing.T, old []byte) {
		if len(old) > MaxFile {
			t.Skip()
		}
		with, _, err := Splice(old, full)
		if err != nil {
			t.Fatal(err)
		}
		checkForeign(t, old, bytes.Replace(with, full.Bytes(), nil, 1))
		if again, r, err := Splice(with, full); err != nil || !bytes.Equal(again, with) || r.Changed {
			t.Fatalf("not idempotent: %v\n%q\n%q", err, with, again)
		}
		a, _, err1 := Splice(with, none)
		b, _, err2 := Splice(old, none)
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Fatalf("removal depends on the insertion: %v %v\n%q\n%q", err1, err2, a, b)
		}
		checkForeign(t, old, a)
	})
}

// checkForeign says what is foreign in a cruder way than the parser does: what
// names neither a marker nor a key of Rolekey is.
func checkForeign(t *testing.T, old, out []byte) {
	t.Helper()
	foreign := func(b []byte) string {
		var keep strings.Builder
		for l := range strings.Lines(string(b)) {
			if !strings.Contains(l, " ROLEKEY ") && !strings.Contains(l, commentPrefix) {
				keep.WriteString(l)
			}
		}
		return keep.String()
	}
	if foreign(old) != foreign(out) {
		t.Fatalf("foreign bytes\n%q\nbecame\n%q", foreign(old), foreign(out))
	}
}
