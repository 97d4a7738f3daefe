package sshkeys

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeyCommand(t *testing.T) {
	for _, c := range []struct {
		command KeyCommand
		want    string
	}{
		{KeyCommand{Program: "/usr/sbin/noded", Args: []string{"authorized-keys", "--"}}, "/usr/sbin/noded authorized-keys -- %u %t %k"},
		{KeyCommand{Program: "/a b/noded", Args: []string{"--root", "/c d/50%"}}, `/"a b/noded" --root "/c d/50%%" %u %t %k`},
	} {
		if got, err := c.command.Line(); got != c.want || err != nil {
			t.Errorf("%+v: %q, %v", c.command, got, err)
		}
	}
	for _, bad := range []KeyCommand{
		{Program: "noded"},
		{Program: `/a"b`},
		{Program: `/a\b`},
		{Program: "/a\nAuthorizedKeysCommand /bin/true"},
		{Program: "/noded", Args: []string{"#"}},
		{Program: "/noded", Args: []string{"it's"}},
	} {
		if got, err := bad.Line(); err == nil {
			t.Errorf("%+v: %q", bad, got)
		}
	}
	if _, err := (KeyCommand{Program: "/noded", Account: "root Address *"}).Render(); err == nil {
		t.Error("an account with a space is rendered")
	}
}

func TestParseKeySource(t *testing.T) {
	got := parseKeySource("port 22\nauthorizedkeyscommand /usr/sbin/noded x %u\nauthorizedkeyscommanduser root\npidfile /run/sshd.pid\n")
	if got != (KeySource{"/usr/sbin/noded x %u", "root", "/run/sshd.pid"}) {
		t.Errorf("%+v", got)
	}
	if got := parseKeySource("authorizedkeyscommand none\npidfile none\n"); got != (KeySource{}) {
		t.Errorf("%+v", got)
	}
}

// TestCheckProgram: sshd refuses what others than root could have written.
func TestCheckProgram(t *testing.T) {
	if err := CheckProgram("/bin/sh"); err != nil {
		t.Error(err)
	}
	own := filepath.Join(t.TempDir(), "noded")
	writeFile(t, own, "x")
	if err := os.Chmod(own, 0o777); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{own: "may write", "/bin": "not a file", own + "x": "no such file"} {
		if err := CheckProgram(path); err == nil || os.Getuid() == 0 && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// wrapped is a program that runs sshd where it has an account for itself.
func wrapped(t *testing.T, sshd string) string {
	t.Helper()
	if os.Getuid() != 0 {
		return sshd
	}
	dir := t.TempDir()
	passwd, script := filepath.Join(dir, "passwd"), filepath.Join(dir, "sshd")
	writeFile(t, passwd, "root:x:0:0::/root:/bin/sh\nbin:x:2:2::/bin:/bin/false\nsshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
	writeFile(t, script, "#!/bin/sh\nexec unshare --mount sh -c '"+asRoot+"' sh "+passwd+" "+sshd+" \"$@\"\n")
	if err := errors.Join(os.Chmod(passwd, 0o644), os.Chmod(script, 0o700)); err != nil {
		t.Fatal(err)
	}
	return script
}

// TestDropInRealSSHD: what is rendered is what sshd understands; it takes
// effect for the account alone, ends with the file, and is left out when sshd is
// asked what else is configured.
func TestDropInRealSSHD(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a folder")
	mkdir(t, dir, 0o755)
	sshd := wrapped(t, findSSHD(t))
	hostKey := KeyDir{Path: filepath.Join(dir, "hostkey")}
	if _, _, err := hostKey.Ensure(nodeA); err != nil {
		t.Fatal(err)
	}
	config, dropIn := filepath.Join(dir, "sshd_config"), filepath.Join(dir, "50-rolekey.conf")
	writeFile(t, config, "Include \""+dir+"/*.conf\"\nHostKey \""+hostKey.PrivateFile()+"\"\nPidFile \""+dir+"/pid\"\n")
	c := KeyCommand{Account: "root", Program: "/usr/a b/noded", Args: []string{"--root", "/x y/100%", "authorized-keys", "--"}}
	text, err := c.Render()
	if err != nil {
		t.Fatal(err)
	}
	probe := func(account string, dropIn bool) KeySource {
		t.Helper()
		s, err := ProbeKeySource(t.Context(), sshd, account, dropIn, "-f", config)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got := probe("root", true); got.Command != "" || got.PidFile != dir+"/pid" {
		t.Errorf("without the drop-in: %+v", got)
	}
	if HasDropIn(dropIn, text) {
		t.Error("it is there before it is written")
	}
	if err := WriteDropIn(dropIn, text); err != nil || !HasDropIn(dropIn, text) {
		t.Fatal(err)
	}
	line, _ := c.Line()
	if got := probe("root", true); got != (KeySource{line, "root", dir + "/pid"}) {
		t.Errorf("with the drop-in: %+v, want %q", got, line)
	}
	if got := probe("root", false); got.Command != "" {
		t.Errorf("for nobody's address: %+v", got)
	}
	if got := probe("bin", true); got.Command != "" {
		t.Errorf("for another account: %+v", got)
	}
	writeFile(t, config, "Include \""+dir+"/*.conf\"\nHostKey \""+hostKey.PrivateFile()+"\"\nMatch User root\nAuthorizedKeysCommand /opt/keys\nAuthorizedKeysCommandUser root\n")
	if got := probe("root", false); got.Command != "/opt/keys" {
		t.Errorf("a foreign command beside the drop-in: %+v", got)
	}
	writeFile(t, config, "NoSuchOption\n")
	if err := CheckConfig(t.Context(), sshd, "-f", config); err == nil || !strings.Contains(err.Error(), "NoSuchOption") {
		t.Errorf("a bad configuration: %v", err)
	}
}
