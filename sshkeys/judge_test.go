package sshkeys

import (
	"encoding/base64"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
)

// admits says whether sshd, as we read its manual, lets a key in from an
// address by an authorized_keys file of this content. TestJudge compares it with
// a real sshd.
func admits(content string, key cluster.SSHKey, from netip.Addr, now time.Time) bool {
	for l := range strings.Lines(content) {
		if lineAdmits(l, key, from, now) {
			return true
		}
	}
	return false
}

func lineAdmits(l string, key cluster.SSHKey, from netip.Addr, now time.Time) bool {
	l, _, _ = strings.Cut(l, "\x00")
	l = strings.TrimLeft(l, " \t")
	if l == "" || l[0] == '\n' || l[0] == '#' {
		return false
	}
	if isKeyText(l, key) {
		return true
	}
	quoted, i := false, 0
	for ; i < len(l) && (quoted || l[i] != ' ' && l[i] != '\t'); i++ {
		if l[i] == '\\' && i+1 < len(l) && l[i+1] == '"' {
			i++
		} else if l[i] == '"' {
			quoted = !quoted
		}
	}
	return !quoted && isKeyText(strings.TrimLeft(l[i:], " \t"), key) && optionsAdmit(l[:i], from, now)
}

// isKeyText reads "type base64 anything".
func isKeyText(l string, key cluster.SSHKey) bool {
	i := strings.IndexAny(l, " \t")
	if i < 0 || l[:i] != key.Type {
		return false
	}
	rest := strings.TrimLeft(l[i:], " \t")
	if i = strings.IndexAny(rest, " \t\r\n"); i >= 0 {
		rest = rest[:i]
	}
	blob, err := base64.StdEncoding.DecodeString(rest)
	return err == nil && string(blob) == string(key.Blob)
}

func optionsAdmit(text string, from netip.Addr, now time.Time) bool {
	for text != "" {
		name := text
		if i := strings.IndexAny(text, ",="); i >= 0 {
			name = text[:i]
		}
		text = text[len(name):]
		value, valued := "", false
		if rest, ok := strings.CutPrefix(text, `="`); ok {
			end := strings.IndexByte(strings.ReplaceAll(rest, `\"`, "__"), '"')
			if end < 0 {
				return false
			}
			value, valued, text = strings.ReplaceAll(rest[:end], `\"`, `"`), true, rest[end+1:]
		}
		if !optionAdmits(strings.ToLower(name), value, valued, from, now) {
			return false
		}
		if text == "" {
			return true
		}
		if text[0] != ',' {
			return false
		}
		text = text[1:] // sshd lets a comma at the end pass
	}
	return true
}

func optionAdmits(name, value string, valued bool, from netip.Addr, now time.Time) bool {
	switch {
	case valued && name == "from":
		return addressListAdmits(value, from)
	case valued && name == "expiry-time":
		layout, loc := "20060102150405", time.Local
		if v, ok := strings.CutSuffix(value, "Z"); ok {
			value, loc = v, time.UTC
		}
		if len(value) != 8 && len(value) != 12 && len(value) != 14 {
			return false
		}
		until, err := time.ParseInLocation(layout[:len(value)], value, loc)
		return err == nil && now.Unix() <= until.Unix()
	case valued:
		return name == "command" || name == "environment"
	}
	return plainOptions[name]
}

// addressListAdmits reads addresses and prefixes; a name is of another host.
func addressListAdmits(list string, from netip.Addr) bool {
	ok := false
	for pattern := range strings.SplitSeq(list, ",") {
		text, no := strings.CutPrefix(pattern, "!")
		match := text == "*" || text == from.String()
		if p, err := netip.ParsePrefix(text); err == nil {
			if p != p.Masked() {
				return false // sshd refuses the whole list
			}
			match = p.Contains(from)
		}
		if match && no {
			return false
		}
		ok = ok || match
	}
	return ok
}

// strict says why StrictModes would refuse the file, or "".
func strict(f File) string {
	paths := []string{f.Path, f.Account.Home}
	dirs, _ := f.folders()
	for _, path := range append(paths, dirs...) {
		info, err := os.Stat(path)
		if err != nil {
			return err.Error()
		}
		if uid, _ := owner(info); uid != 0 && uid != f.Account.UID || info.Mode().Perm()&0o022 != 0 {
			return path
		}
	}
	return ""
}

// TestJudge logs in to a real sshd by many lines, each good for one thing only,
// and compares with admits.
func TestJudge(t *testing.T) {
	n := startNode(t)
	signer, key := newSigner(t)
	mkdir(t, filepath.Dir(n.authKey.Path), 0o700)
	text := key.Type + " " + base64.StdEncoding.EncodeToString(key.Blob)
	now := time.Now()
	past, future := now.Add(-time.Hour).UTC().Format("20060102150405Z"), now.Add(time.Hour).UTC().Format("20060102150405Z")
	local := func(d time.Duration) string { return now.Add(d).Format("200601021504") }
	admitted := 0
	for _, l := range []string{
		text, text + "\n", text + " c\r\n", "  \t" + text + "\n", "\v" + text + "\n", "#" + text + "\n", " # " + text, "ssh-rsa" + text[len("ssh-ed25519"):],
		"\r" + text + "\n", text + "\x00\n", "x\x00\n" + text, "\x00" + text, "# a\r" + text, strings.Repeat("# x", 4000) + "\n" + text,
		`from="127.77.0.9" ` + text, `from="127.77.0.8" ` + text, `from="127.77.0.0/24" ` + text, `from="127.77.0.9/24" ` + text,
		`from="127.77.0.9,10.0.0.1,2001:db8::1" ` + text, `from="!127.77.0.9,*" ` + text, `from="*" ` + text, `from= ` + text, `from="" ` + text,
		`expiry-time="` + future + `" ` + text, `expiry-time="` + past + `" ` + text, `expiry-time="` + local(time.Hour) + `" ` + text,
		`expiry-time="` + local(-time.Hour) + `" ` + text, `expiry-time="20300101000000+00" ` + text, `expiry-time="2030" ` + text,
		`from="127.77.0.9",expiry-time="` + future + "\"  \t" + text, `from="127.77.0.9", ` + text, `restrict,pty ` + text,
		`no-such-option ` + text, `command="echo \"x y\" , z" ` + text, `FROM="127.77.0.9" ` + text, `from="127.77.0.9" junk ` + text, "\xef\xbb\xbf" + text,
		offPrefix + (`from="127.77.0.9" ` + text)[len(offPrefix):], `from="127.77.0.9" ` + text[:40] + " " + text[40:], text[:40] + "\n" + text,
	} {
		writeFile(t, n.authKey.Path, l)
		want := admits(l, key, netip.MustParseAddr("127.77.0.9"), now)
		err := tryKey(t, n, signer, "127.77.0.9")
		if (err == nil) != want {
			t.Errorf("%q: sshd says %v, we say %v", l, err, want)
		}
		if want {
			admitted++
		}
	}
	if admitted < 12 || admitted > 30 {
		t.Errorf("%d lines let in: this tests too little", admitted)
	}
}

func newSigner(t *testing.T) (ssh.Signer, cluster.SSHKey) {
	t.Helper()
	d := KeyDir{Path: filepath.Join(t.TempDir(), "k")}
	key, _, err := d.Ensure(nodeB)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(d.PrivateFile())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return signer, key
}

// tryKey authenticates, and opens no session.
func tryKey(t *testing.T, n *node, signer ssh.Signer, from string) error {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	raw, err := d.DialContext(t.Context(), "tcp", n.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	conn, _, _, err := ssh.NewClientConn(raw, n.addr.String(), &ssh.ClientConfig{
		User: n.account.Name, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		return err
	}
	return conn.Close()
}

// expectFrom is where the keys of tests come from.
var expectFrom = func() map[byte]netip.Addr {
	m := map[byte]netip.Addr{}
	for k := range byte(10) {
		m[k] = netip.MustParseAddr("192.0.2.1")
	}
	m[2] = netip.MustParseAddr("192.0.2.2")
	return m
}()

func keyBase64(k cluster.SSHKey) string { return base64.StdEncoding.EncodeToString(k.Blob) }

func wants(b Block, k cluster.SSHKey) bool {
	for _, l := range b.lines {
		if l.key == string(k.Blob) {
			return true
		}
	}
	return false
}
