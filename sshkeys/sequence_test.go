package sshkeys

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rolekey/cluster"
)

// choices makes blocks from bytes, so that both rapid and the fuzzer choose.
type choices struct{ bytes []byte }

func (c *choices) next(n int) int {
	if len(c.bytes) == 0 {
		return 0
	}
	b := c.bytes[0]
	c.bytes = c.bytes[1:]
	return int(b) % n
}

func (c *choices) addrs() []netip.Addr {
	all := []string{"192.0.2.1", "198.51.100.77", "2001:db8::1", "fd00:1:2:3:4:5:6:7"}
	n, list := 1+c.next(len(all)), []netip.Addr{}
	for _, a := range all[:n] {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

func (c *choices) authorized(t testing.TB) Block {
	options := []Options{{ExpiryZ: true}, {}, {NoExpiry: true}}[c.next(3)]
	var list []Authorized
	for range c.next(6) {
		a := Authorized{Node: nodeA, Keys: []cluster.SSHKey{fixedKey(byte(1 + c.next(9)))}}
		if c.next(4) == 0 {
			a.Node, a.Keys = nodeB, append(a.Keys, fixedKey(byte(1+c.next(9))))
		}
		for _, addr := range c.addrs() {
			a.From = append(a.From, netip.PrefixFrom(addr, addr.BitLen()))
		}
		list = append(list, a)
	}
	b, err := AuthorizedBlock(ourID, list, expires.Add(time.Duration(c.next(100))*time.Hour), options)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c *choices) hosts(t testing.TB) Block {
	var list []Host
	for i := range c.next(5) {
		list = append(list, Host{
			Node: nodeA, Name: cluster.Name(string('a'+rune(i)) + ".example"), Addresses: c.addrs(), Port: []uint16{22, 2222}[c.next(2)],
			Keys: []cluster.SSHKey{fixedKey(byte(1 + c.next(9)))},
		})
	}
	b, err := KnownHostsBlock(ourID, list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkSequence applies many blocks to a file one after the other. The foreign
// bytes, by the crude rule of checkForeign, are the same after each; splicing
// again changes nothing; what lies at last depends on the last block only; and
// the program that reads the file honours each line of the block.
func checkSequence(t *testing.T, old []byte, c *choices, kind fileKind) {
	t.Helper()
	text := old
	for range 1 + c.next(6) {
		b := c.hosts(t)
		if kind == authorizedKeys {
			b = c.authorized(t)
		}
		out, _, err := Splice(text, b)
		if err != nil {
			t.Fatal(err)
		}
		checkForeign(t, old, bytes.Replace(out, b.Bytes(), nil, 1))
		if again, r, err := Splice(out, b); err != nil || r.Changed || len(r.Damage) != 0 && b.Len() != 0 {
			t.Fatalf("not idempotent: %v, %+v\n%q\n%q", err, r, out, again)
		}
		if at := bytes.Index(out, b.Bytes()); at < 0 || at > 0 && b.Len() > 0 && out[at-1] != '\n' {
			t.Fatalf("the block is not whole in\n%q", out)
		}
		if kind == authorizedKeys {
			checkAdmits(t, string(out), b)
		}
		text = out
	}
	none := Block{cluster: ourID, file: kind}
	a, _, err1 := Splice(text, none)
	b, _, err2 := Splice(old, none)
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Fatalf("removal depends on what was there between: %v %v\n%q\n%q", err1, err2, a, b)
	}
}

// checkAdmits lets every key of the block in from every address of its own, as
// sshd would.
func checkAdmits(t *testing.T, text string, b Block) {
	t.Helper()
	for _, l := range b.lines {
		list, _, _ := strings.Cut(strings.TrimPrefix(l.text, `from="`), `"`)
		for a := range strings.SplitSeq(list, ",") {
			if !admits(text, cluster.SSHKey{Type: blobType([]byte(l.key)), Blob: []byte(l.key)}, netip.MustParseAddr(a), soon) {
				t.Fatalf("sshd would not honour %q in\n%q", l.text, text)
			}
		}
	}
}

// hostLines are foreign lines of known_hosts.
var hostLines = []string{
	"|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-ed25519 " + keyA64 + "\n",
	"@cert-authority *.example ssh-ed25519 " + keyA64 + " ca\n",
	"@revoked * ssh-ed25519 " + keyA64 + "\r\n",
	"a.example,192.0.2.1 ssh-ed25519 " + keyA64 + "\n",
	"[2001:db8::1]:2222 ssh-rsa AAAA\n",
	"*.example ssh-ed25519 " + keyA64 + " rolekey:me\n",
	"host ssh-ed25519 " + keyA64 + " # BEGIN ROLEKEY\n",
}

func TestG8AnySequenceOfBlocks(t *testing.T) {
	file := rapid.Custom(func(t *rapid.T) []byte {
		pieces := genFile().Draw(t, "pieces")
		for range rapid.IntRange(0, 3).Draw(t, "host lines") {
			pieces = append(pieces, piece{text: rapid.SampledFrom(hostLines).Draw(t, "host line")})
		}
		tail := rapid.SampledFrom([]string{"", "no newline", "\r", "\x00"}).Draw(t, "tail")
		return []byte(join(rapid.Permutation(pieces).Draw(t, "order"), func(piece) bool { return true }) + tail)
	})
	for name, kind := range map[string]fileKind{"authorized_keys": authorizedKeys, "known_hosts": knownHosts} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				checkSequence(t, file.Draw(rt, "file"), &choices{rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(rt, "blocks")}, kind)
			})
		})
	}
}

func fuzzSequence(f *testing.F, kind fileKind) {
	for _, s := range []string{"", blockA, begin + ownB, ownB + end, beginO + begin + ownB + endO + end, foreignC + "x", "\r\n\x00" + lineA, strings.Join(hostLines, ""), strings.Repeat("z", 5000)} {
		f.Add([]byte(s), []byte("\x05\x00\x03\x01\x02\x03\x04\x05\x06\x07\x08"))
	}
	b := (&choices{[]byte{4, 1, 2, 3, 4, 5, 6, 7, 8, 9}}).hosts(f)
	f.Add(b.Bytes(), []byte{3, 2, 1})
	f.Fuzz(func(t *testing.T, old, blocks []byte) {
		if len(old) > 1<<20 || len(blocks) > 1<<10 {
			t.Skip()
		}
		checkSequence(t, old, &choices{blocks}, kind)
	})
}

func FuzzAuthorizedKeys(f *testing.F) { fuzzSequence(f, authorizedKeys) }

func FuzzKnownHosts(f *testing.F) { fuzzSequence(f, knownHosts) }
