package sshkeys

import (
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/cluster"
)

func host(name string, port uint16, addrs ...string) Host {
	h := Host{Node: nodeA, Name: cluster.Name(name), Port: port, Keys: []cluster.SSHKey{fixedKey(1)}}
	for _, a := range addrs {
		h.Addresses = append(h.Addresses, netip.MustParseAddr(a))
	}
	return h
}

func TestKnownHostsText(t *testing.T) {
	two := host("b.example", 2222, "192.0.2.2", "2001:db8::2")
	two.Keys = append(two.Keys, fixedKey(2))
	b, err := KnownHostsBlock(ourID, []Host{two, host("a.example", 22, "192.0.2.1", "2001:db8::1")})
	if err != nil {
		t.Fatal(err)
	}
	names := "b.example,[b.example]:2222,[192.0.2.2]:2222,[2001:db8::2]:2222 "
	want := begin + "a.example,192.0.2.1,2001:db8::1 " + keyText(fixedKey(1), nodeA) + "\n" +
		names + keyText(fixedKey(1), nodeA) + "\n" + names + keyText(fixedKey(2), nodeA) + "\n" + end
	if got := string(b.Bytes()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// What was written is recognised, and what others wrote is not.
	foreign := "|1|abc=|def= ssh-ed25519 AAAA\n*.example " + keyText(fixedKey(1), nodeA) + "\n@cert-authority a.example " + keyText(fixedKey(1), nodeA) + "\nno newline"
	old := begin + "c.example,[c.example]:99 " + keyText(fixedKey(5), nodeB) + "\n" + foreign
	got, report := splice(t, old, b)
	if got != want+foreign || len(report.Damage) != 1 || len(report.Foreign) != 0 {
		t.Errorf("%+v\n%s", report, got)
	}
	empty, err := KnownHostsBlock(ourID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := splice(t, got, empty); got != foreign {
		t.Errorf("after removal\n%s", got)
	}
}

// badHosts must reach neither file.
func badHosts() map[string]Host {
	noNode := host("x.example", 22, "192.0.2.9")
	noNode.Node = cluster.NodeID{}
	return map[string]Host{
		"pattern": host("*", 22, "192.0.2.9"), "comma": host("a,b", 22, "192.0.2.9"), "empty": host("", 22, "192.0.2.9"),
		"newline": host("a\nHost *", 22, "192.0.2.9"), "no address": host("x.example", 22), "no port": host("x.example", 0, "192.0.2.9"),
		"zone": host("x.example", 22, "fe80::1%eth0"), "no node": noNode,
	}
}

func TestG10HostsFailClosed(t *testing.T) {
	good := host("a.example", 22, "192.0.2.1")
	c := ClientConfig{KnownHosts: "/k"}
	wantText, err := c.Render([]Host{good})
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range badHosts() {
		b, err := KnownHostsBlock(ourID, []Host{bad, good})
		if err == nil || b.Len() != 1 {
			t.Errorf("%s: %v, %d lines", name, err, b.Len())
		}
		if text, err := c.Render([]Host{bad, good}); err == nil || string(text) != string(wantText) {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	for _, c := range []ClientConfig{
		{},
		{KnownHosts: "rel"},
		{KnownHosts: "/a\"b"},
		{KnownHosts: "/a\nb"},
		{KnownHosts: `/a\b`},
		{KnownHosts: "/${HOME}"},
		{KnownHosts: "/k", Identities: []string{"rel"}},
		{KnownHosts: "/k", User: "a b"},
		{KnownHosts: "/k", LocalUser: "*"},
	} {
		if text, err := c.Render([]Host{good}); err == nil {
			t.Errorf("%+v: accepted\n%s", c, text)
		}
	}
}

// awkward is a folder name as long and odd as a test cluster's may be.
var awkward = strings.Repeat("long folder ", 9) + "50%h 'q' #x"

func currentUser(t testing.TB) *user.User {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// sshG returns what ssh makes of the drop-in for one destination.
func sshG(t *testing.T, config string, args ...string) map[string]string {
	t.Helper()
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("no ssh program here")
	}
	out, err := exec.CommandContext(t.Context(), ssh, append([]string{"-F", config, "-G"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh -G: %v\n%s", err, out)
	}
	options := map[string]string{}
	for l := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(l), " ")
		if options[key] == "" {
			options[key] = value
		}
	}
	return options
}

func TestClientConfigBySSH(t *testing.T) {
	dir := filepath.Join(t.TempDir(), awkward)
	mkdir(t, dir, 0o700)
	me := currentUser(t).Username
	c := ClientConfig{LocalUser: me, Identities: []string{filepath.Join(dir, "id")}, KnownHosts: filepath.Join(dir, "known_hosts"), Bind: func(to netip.Addr) netip.Addr {
		switch {
		case to.Is4():
			return netip.MustParseAddr("192.0.2.100")
		case to == netip.MustParseAddr("2001:db8::6"):
			return netip.Addr{}
		}
		return netip.MustParseAddr("2001:db8::100")
	}}
	hosts := []Host{host("n2.example", 2222, "192.0.2.2", "192.0.2.22"), host("n1.example", 22, "192.0.2.1"), host("n6.example", 22, "2001:db8::6"), host("n46.example", 22, "192.0.2.46", "2001:db8::46"), host("n64.example", 22, "2001:db8::64", "192.0.2.64")}
	path := filepath.Join(dir, "d", "50-rolekey.conf")
	text, err := c.Render(hosts)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := WriteClientConfig(path, text); err != nil || !changed {
		t.Fatalf("write: %v, changed %v", err, changed)
	}
	if changed, err := WriteClientConfig(path, text); err != nil || changed {
		t.Errorf("write again: %v, changed %v", err, changed)
	}
	checkMode(t, path, 0o644)
	percent := strings.ReplaceAll(dir, "%", "%%")
	for _, w := range []struct{ dest, hostname, port, alias, bind string }{
		{"n2.example", "192.0.2.2", "2222", "n2.example", "192.0.2.100"},
		{"192.0.2.2", "192.0.2.2", "2222", "n2.example", "192.0.2.100"},
		{"192.0.2.22", "192.0.2.22", "2222", "n2.example", "192.0.2.100"},
		{"n1.example", "192.0.2.1", "22", "n1.example", "192.0.2.100"},
		{"n6.example", "2001:db8::6", "22", "n6.example", ""},
		{"n46", "192.0.2.46", "22", "n46.example", "192.0.2.100"},
		{"192.0.2.46", "192.0.2.46", "22", "n46.example", "192.0.2.100"},
		{"2001:db8::46", "2001:db8::46", "22", "n46.example", "2001:db8::100"},
		{"n64.example", "2001:db8::64", "22", "n64.example", "2001:db8::100"},
		{"192.0.2.64", "192.0.2.64", "22", "n64.example", "192.0.2.100"},
	} {
		got := sshG(t, path, w.dest)
		want := map[string]string{
			"hostname": w.hostname, "port": w.port, "hostkeyalias": w.alias, "bindaddress": w.bind, "user": "root",
			"stricthostkeychecking": "true", "identitiesonly": "yes", "updatehostkeys": "false", "identityfile": percent + "/id", "userknownhostsfile": dir + "/known_hosts",
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("ssh %s: %s is %q, want %q", w.dest, k, got[k], v)
			}
		}
	}
	if got := sshG(t, path, "n3.example"); got["hostkeyalias"] != "" || got["identitiesonly"] != "no" || got["hostname"] != "n3.example" {
		t.Errorf("another host: %v", got)
	}
	// The user's own alias of a node, read before the drop-in.
	plain := filepath.Join(t.TempDir(), "50-rolekey.conf")
	if _, err := WriteClientConfig(plain, text); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(dir, "config")
	writeFile(t, mine, "Host short\n\tHostName n2.example\nHost *\n\tInclude \""+filepath.Dir(plain)+"/*.conf\"\n")
	if got := sshG(t, mine, "short"); got["hostname"] != "n2.example" || got["hostkeyalias"] != "n2.example" || got["port"] != "2222" {
		t.Errorf("an alias of the user's: %v", got)
	}
	if err := RemoveClientConfig(path); err != nil {
		t.Fatal(err)
	}
	if err := RemoveClientConfig(path); err != nil {
		t.Errorf("remove again: %v", err)
	}
}

func TestClientConfigIsForItsUserOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "50-rolekey.conf")
	c := ClientConfig{LocalUser: "someone-else", Identities: []string{"/i"}, KnownHosts: "/k"}
	text, err := c.Render([]Host{host("n1.example", 2222, "192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := WriteClientConfig(path, text); err != nil {
		t.Fatal(err)
	}
	if got := sshG(t, path, "n1.example"); got["port"] != "22" || got["hostname"] != "n1.example" || got["user"] != currentUser(t).Username {
		t.Errorf("the drop-in took effect: %v", got)
	}
}

func TestKnownHostsFile(t *testing.T) {
	f := testFile(t)
	f.Path = filepath.Join(f.Account.Home, ".ssh", "known_hosts")
	mkdir(t, filepath.Dir(f.Path), 0o775)
	writeFile(t, f.Path, "|1|abc=|def= ssh-ed25519 AAAA")
	if err := os.Chmod(f.Path, 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := KnownHostsBlock(ourID, []Host{host("a.example", 22, "192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	if r := apply(t, f, b); !r.Changed || len(r.Repaired)+len(r.Unsafe) != 0 {
		t.Errorf("report %+v", r)
	}
	checkMode(t, f.Path, 0o644)
	checkMode(t, filepath.Dir(f.Path), 0o775)
	if got := readFile(t, f.Path); got != string(b.Bytes())+"|1|abc=|def= ssh-ed25519 AAAA" {
		t.Errorf("file is\n%s", got)
	}
}

func TestRenderShortNames(t *testing.T) {
	host := func(name string) Host {
		k := newKey(t)
		return Host{Name: cluster.Name(name), Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Port: 22, Keys: []cluster.SSHKey{k}}
	}
	short := shortNames([]Host{host("node1.a.example"), host("node2.a.example"), host("node2.b.example"), host("single"), host("7.example")})
	want := map[cluster.Name]string{"node1.a.example": "node1"}
	if !maps.Equal(short, want) {
		t.Errorf("short names %v, want %v: only what is one host's, and not its whole name or a number", short, want)
	}
}
