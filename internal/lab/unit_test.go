package lab

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"rolekey/cluster"
)

func TestEditPasswd(t *testing.T) {
	const in = "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/zsh\nlast:x:999:999::/:/bin/false\n"
	for name, tc := range map[string]struct {
		user labUser
		want string
	}{
		"known": {labUser{name: "ann", uid: 1000, gid: 1000}, "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/c d:/bin/sh\nlast:x:999:999::/:/bin/false\nsshd:x:998:65534::/run/sshd:/usr/sbin/nologin\n"},
		"new":   {labUser{name: "lab", uid: 7, gid: 8}, in + "lab:x:7:8::/c d:/bin/sh\nsshd:x:998:65534::/run/sshd:/usr/sbin/nologin\n"},
	} {
		if got := string(tc.user.editPasswd([]byte(in), "/c d")); got != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, tc.want)
		}
	}
	with := in + "sshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n"
	u := labUser{name: "ann", uid: 1000, gid: 1000}
	if got := string(u.editPasswd([]byte(with), "/h")); strings.Count(got, "sshd:x:") != 1 {
		t.Errorf("a second account sshd:\n%s", got)
	}
}

func TestMapSettled(t *testing.T) {
	const good = `{"candidates":[{},{}],"nodes":[{"name":"a","version":"0.3","hash":"ff","fresh":true},{"name":"b","version":"0.3","hash":"ff","fresh":true},{"name":"c","version":"0.3","hash":"ff","fresh":true}]}`
	for name, tc := range map[string]struct {
		old, new string
		ok       bool
	}{
		"all the same":   {"", "", true},
		"one is stale":   {`"hash":"ff","fresh":true}]`, `"hash":"ff","fresh":false}]`, false},
		"other version":  {`"b","version":"0.3"`, `"b","version":"0.2"`, false},
		"other hash":     {`"hash":"ff","fresh":true}]`, `"hash":"fe","fresh":true}]`, false},
		"no hash at all": {`"hash":"ff"`, `"hash":""`, false},
		"candidate less": {`[{},{}]`, `[{}]`, false},
		"a node missing": {`{"name":"a","version":"0.3","hash":"ff","fresh":true},`, ``, false},
	} {
		var m clusterMap
		text := strings.Replace(good, tc.old, tc.new, 1)
		if tc.old != tc.new && text == good {
			t.Fatalf("%s: changes nothing", name)
		}
		must(t, json.Unmarshal([]byte(text), &m))
		if err := m.settled(3, 2); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInitCommandPassesParameters(t *testing.T) {
	n := Node{Name: "node1.example", Address: "127.0.0.9", Addresses: []string{"127.0.0.9"}}
	got := strings.Join(initCommand(Config{}, n), " ")
	if got != "gnt-cluster init dev.example --node-name node1.example --address 127.0.0.9 --no-recovery-key" {
		t.Errorf("plain: %s", got)
	}
	got = strings.Join(initCommand(Config{CandidatePoolSize: 3, MapLease: 3e9, InitArgs: []string{"--ssh-reach", "master"}}, n), " ")
	if !strings.HasSuffix(got, " --candidate-pool-size 3 --map-lease 3s --ssh-reach master") {
		t.Errorf("with parameters: %s", got)
	}
}

func TestChooseNetOnSharedLoopback(t *testing.T) {
	ports := cluster.Ports{Noded: 31811, Masterd: 31812, Gossip: 31813, RAPI: 35080, SSH: 32222}
	a, err := chooseNet(spec{Nodes: 3, Ports: ports})
	must(t, err)
	if a.ports != ports || !strings.HasPrefix(a.address(3), "127.") || a.address(1) == a.address(2) {
		t.Errorf("chose %+v", a)
	}
	own, err := chooseNet(spec{Nodes: 3, Ports: ports, Namespaces: true})
	must(t, err)
	if own.address(2) != "127.77.0.2" {
		t.Errorf("in a namespace: %s", own.address(2))
	}
}

func TestCheckDir(t *testing.T) {
	for dir, ok := range map[string]bool{
		"/a b/ünï-c.d_e": true, "/a'b": false, `/a"b`: false, "/a%h": false, "/a$b": false, "/a\nb": false, "/a*": false, `/a\b`: false,
	} {
		if err := checkDir(dir); (err == nil) != ok {
			t.Errorf("%q: %v", dir, err)
		}
	}
}

func TestStrictModesRefuse(t *testing.T) {
	home := t.TempDir()
	open := filepath.Join(home, "open")
	dir := filepath.Join(open, "c")
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.Chmod(home, 0o755))
	if why := strictModesRefuse(dir, home, os.Getuid()); why != "" {
		t.Errorf("private folders up to home: %s", why)
	}
	must(t, os.Chmod(open, 0o775))
	if why := strictModesRefuse(dir, home, os.Getuid()); !strings.Contains(why, open+" may be written") {
		t.Errorf("a folder of the group: %q", why)
	}
	if why := strictModesRefuse(dir, dir, os.Getuid()); why != "" {
		t.Errorf("the same above home: %s", why)
	}
	if why := strictModesRefuse(dir, home, 4242); os.Getuid() != 0 && !strings.Contains(why, "belongs to") {
		t.Errorf("another user's folder: %q", why)
	}
}

func TestLookPathUsesGivenPath(t *testing.T) {
	if _, err := lookPath("sh", "/", []string{"PATH=/nowhere"}); err == nil {
		t.Error("found sh outside the given PATH")
	}
	if p, err := lookPath("sh", "/", []string{"PATH=/nowhere:/bin"}); err != nil || p != "/bin/sh" {
		t.Errorf("got %q, %v", p, err)
	}
	if p, err := lookPath("./sh", "/bin", nil); err != nil || p != filepath.Join("/bin", "sh") {
		t.Errorf("relative: got %q, %v", p, err)
	}
}

func TestSignalByName(t *testing.T) {
	for _, name := range []string{"STOP", "SIGSTOP", "stop"} {
		if s, err := SignalByName(name); err != nil || s.String() != "stopped (signal)" {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	if _, err := SignalByName("FOO"); err == nil {
		t.Error("FOO is a signal")
	}
}

func TestMakeAccounts(t *testing.T) {
	const passwd = "root:!:0:0:root:/elsewhere:/usr/sbin/nologin\nann:x:999:999::/home/ann:/bin/zsh\n"
	const group = "root:x:0:\ntty:x:5:\nann:x:999:\n"
	a, err := makeAccounts(passwd, group)
	must(t, err)
	want := "root:!:0:0:root:/root:/bin/sh\nann:x:999:999::/home/ann:/bin/zsh\n" +
		"rolekey:x:998:998:Rolekey master daemon:/var/lib/rolekey/masterd:/usr/sbin/nologin\nsshd:x:997:65534::/run/sshd:/usr/sbin/nologin\n"
	if a.Passwd != want || a.Group != group+"rolekey:x:998:\n" || a.UID != 998 || a.GID != 998 {
		t.Errorf("got %+v, want passwd\n%s", a, want)
	}
	again, err := makeAccounts(a.Passwd, a.Group)
	must(t, err)
	if *again != *a {
		t.Errorf("a machine with all accounts: %+v became %+v", a, again)
	}
	if got := unlockRoot("root:!x:1:0:::::\nann:secret:1:::::\n"); got != "root:*:1:0:::::\nann:secret:1:::::\n" {
		t.Errorf("shadow: %q", got)
	}
}

func TestMachinesHaveWhatAnInstallationMakes(t *testing.T) {
	b, err := os.ReadFile("../../tools/install/tmpfiles.conf")
	must(t, err)
	have := map[string]installed{}
	for _, d := range installedDirs {
		have["/"+d.path] = d
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[0] == "#" {
			continue
		}
		mode, err := strconv.ParseUint(f[2], 8, 32)
		must(t, err)
		owner := map[[2]string]byte{{"root", "root"}: 0, {"root", "rolekey"}: 'g', {"rolekey", "rolekey"}: 'u'}[[2]string{f[3], f[4]}]
		d, ok := have[f[1]]
		if f[0] == "f" {
			d, ok = installed{masterdAudit, 0o640, 'u'}, f[1] == "/"+masterdAudit
		}
		perm := uint64(d.mode.Perm())
		if d.mode&os.ModeSticky != 0 {
			perm |= 0o1000
		}
		if !ok || perm != mode || d.masterd != owner {
			t.Errorf("tmpfiles.conf says %q, a machine has %+v", line, d)
		}
	}
}

func TestWhatCannotBeShown(t *testing.T) {
	for dir, bad := range map[string]bool{
		"/": true, "/root": true, "/tmp": true, "/usr": true, "/var/lib": true, "/etc": true, "/dev": true,
		"/root/src/bin": false, "/tmp/c": false, "/work": false, "/usr/bin": false, "/roots": false,
	} {
		if got := holdsReplaced(dir); got != bad {
			t.Errorf("%s: %v", dir, got)
		}
	}
}
