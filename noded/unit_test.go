package noded

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/rpc"
)

func loadText(t *testing.T, text string) (Config, error) {
	t.Helper()
	at := paths.Layout{Root: t.TempDir()}
	if err := os.MkdirAll(at.ConfigDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, at.NodedConfig(), []byte(text))
	return LoadConfig(at)
}

func TestConfig(t *testing.T) {
	c, err := LoadConfig(paths.Layout{Root: t.TempDir()})
	if err != nil || c.Ports != cluster.DefaultPorts || len(c.Addresses) != 0 {
		t.Errorf("no file: %+v, %v", c, err)
	}
	c, err = loadText(t, "addresses = [\"192.0.2.1\", \"2001:db8::1\"]\nlog_level = \"debug\"\n[ports]\nnoded = 9\nssh = 2222\n[ssh]\nuser = \"toor\"\nhost_keys = [\"/a.pub\"]\n")
	if err != nil || c.Ports.Noded != 9 || c.Ports.SSH != 2222 || c.Ports.Masterd != 1812 || c.SSH.User != "toor" || len(c.Addresses) != 2 || c.LogLevel.String() != "debug" {
		t.Errorf("full file: %+v, %v", c, err)
	}
	if c.bindAddress() != netip.MustParseAddr("192.0.2.1") || c.askSSHPort {
		t.Errorf("bind %s, ask %v", c.bindAddress(), c.askSSHPort)
	}
	for text, want := range map[string]string{
		"adresses = []":                               ":1: unknown key \"adresses\"",
		"\n\n[port]\nnoded = 1":                       ":3: unknown key \"port\"",
		"log_level = \"info\"\n[ssh]\n\n usr = \"x\"": ":4: unknown key \"ssh.usr\"",
		"[ports]\nuser = 1\n[ssh]\nuser = \"x\"":      ":2: unknown key \"ports.user\"",
		"ssh.sshdd = \"/x\"":                          ":1: unknown key \"ssh.sshdd\"",
		"addresses = [\"224.0.0.1\"]":                 "addresses:",
		"addresses = [\"::1\", \"::1\"]":              "twice",
		"log_level = \"loud\"":                        "log_level",
		"[ports]\nnoded = 1812":                       "one port is used twice",
		"[ports]\nnoded = 70000":                      ":2:",
		"[ssh]\nsshd = \"sshd\"":                      "not an absolute path",
		"log_level = ":                                ":1:",
		"metrics_address = \"1814\"":                  "metrics_address",
		"metrics_address = \"localhost:1814\"":        "metrics_address",
		"metrics_address = \"127.0.0.1:0\"":           "metrics_address",
	} {
		if _, err := loadText(t, text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "noded.toml") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestIdentityIsStrict(t *testing.T) {
	dir := t.TempDir()
	good := identity{
		Cluster: ct.Cluster, Node: ct.NodeID(1), Incarnation: 1, Name: "a.example", Addresses: []netip.Addr{ct.Addr(1)}, Ports: cluster.DefaultPorts,
	}
	if id, err := readIdentity(dir); id != nil || err != nil {
		t.Errorf("none: %v, %v", id, err)
	}
	if err := good.write(dir); err != nil {
		t.Fatal(err)
	}
	id, err := readIdentity(dir)
	if err != nil || id.Node != good.Node || id.Name != good.Name {
		t.Errorf("good: %+v, %v", id, err)
	}
	path := filepath.Join(dir, identityFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for old, bad := range map[string]string{
		`"format": 1`:      `"format": 2`,
		`"incarnation": 1`: `"incarnation": 0`,
		`"a.example"`:      `"*"`,
		`"ssh": 22`:        `"ssh": 0`,
		`"record"`:         `"recrod"`,
		"}\n}\n":           "}\n}\n{}",
	} {
		damaged := strings.Replace(string(text), old, bad, 1)
		if damaged == string(text) && old != "}\n}\n" {
			t.Fatalf("nothing replaced for %s", old)
		}
		if old == "}\n}\n" {
			damaged += "{}"
		}
		write(t, path, []byte(damaged))
		if id, err := readIdentity(dir); err == nil {
			t.Errorf("%s instead of %s is read as %+v", bad, old, id)
		}
	}
}

func FuzzIdentity(f *testing.F) {
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, identityFile), b)
		id, err := readIdentity(dir)
		if err == nil && (id == nil || id.check() != nil) {
			t.Errorf("accepted %q", b)
		}
	})
}

func TestTerms(t *testing.T) {
	dir := t.TempDir()
	s, err := openTerms(dir)
	if err != nil || s.Highest() != (rpc.Stamp{}) {
		t.Fatalf("new: %v, %v", s.Highest(), err)
	}
	stamp := func(text string) rpc.Stamp {
		st, err := rpc.ParseStamp(text)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	for _, c := range []struct{ raise, want string }{
		{"1.1 0", "1.1 0"},
		{"1.1 5", "1.1 5"},
		{"1.1 3", "1.1 5"},
		{"1.1 18446744073709551615", "1.1 18446744073709551615"},
		{"1.2 4", "1.2 4"},
		{"1.1 9", "1.2 4"},
		{"2.1 3", "2.1 3"},
		{"1.9 9", "2.1 3"},
	} {
		if err := s.Raise(stamp(c.raise)); err != nil || s.Highest() != stamp(c.want) {
			t.Errorf("after %s: %s, %v", c.raise, s.Highest(), err)
		}
		if again, err := openTerms(dir); err != nil || again.Highest() != stamp(c.want) {
			t.Errorf("after %s, reopened: %v", c.raise, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Raise(stamp("2.1 10")); err == nil || s.Highest() != stamp("2.1 3") {
		t.Errorf("a term that is not stored counts: %s, %v", s.Highest(), err)
	}
	for _, damaged := range []string{"", "many", "7\n", "1.1 7", "1.1 7\n\n", "1.1 07\n", "1.1\n", "1.1 7 8\n"} {
		bad := t.TempDir()
		write(t, filepath.Join(bad, termFile), []byte(damaged))
		if _, err := openTerms(bad); err == nil {
			t.Errorf("%q is read as a term", damaged)
		}
	}
}

// The expiry of authorized keys: a stale node never prolongs trust.
func TestG4Expiry(t *testing.T) {
	m := ct.Map(1)
	lease := m.SSHLease()
	now := ct.Epoch0.Add(time.Hour)
	for name, c := range map[string]struct {
		until   time.Time
		trust   trust
		changed bool
		want    time.Time
	}{
		"first":                      {time.Time{}, trust{true, now}, true, now.Add(lease)},
		"fresh, most is left":        {now.Add(lease * 3 / 4), trust{true, now}, false, now.Add(lease * 3 / 4)},
		"fresh, half-life passed":    {now.Add(lease/2 - time.Second), trust{true, now}, false, now.Add(lease)},
		"fresh, lines change":        {now.Add(lease * 3 / 4), trust{true, now}, true, now.Add(lease)},
		"fresh, lease was shortened": {now.Add(2 * lease), trust{true, now}, false, now.Add(lease)},
		"stale, lines change":        {now.Add(time.Minute), trust{false, now.Add(-time.Hour)}, true, now.Add(time.Minute)},
		"stale, almost over":         {now.Add(time.Second), trust{false, now.Add(-time.Hour)}, false, now.Add(time.Second)},
		"stale after a restart":      {time.Time{}, trust{false, now.Add(-time.Hour)}, true, now.Add(lease - time.Hour)},
		"stale for longer than it":   {time.Time{}, trust{false, now.Add(-2 * lease)}, true, now.Add(-lease)},
		"stale, lease was shortened": {now.Add(2 * lease), trust{false, now.Add(-time.Hour)}, false, now.Add(lease - time.Hour)},
	} {
		s := &sshFiles{until: c.until, now: func() time.Time { return now }}
		if got := s.expiry(m, c.trust, c.changed); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestBlockKeys(t *testing.T) {
	a, b := ct.SSHKey("ssh", 1), ct.SSHKey("ssh", 2)
	line := func(k cluster.SSHKey) string { return string(marshal(t, k)) }
	text := line(b) + "# BEGIN ROLEKEY " + ct.Cluster.String() + "\nfrom=\"192.0.2.1\" " + line(a) + "# junk\n# END ROLEKEY " + ct.Cluster.String() + "\n" + line(b)
	keys := blockKeys(text, ct.Cluster)
	if len(keys) != 1 || string(keys[0].Blob) != string(a.Blob) {
		t.Errorf("%d keys", len(keys))
	}
}
