package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/masterd/state"
)

func rapiMaster(t *testing.T, nodes int) *machine {
	m := master(t, nodes)
	m.b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelRAPI})
	return m
}

func (m *machine) file(name, text string) string {
	m.t.Helper()
	path := filepath.Join(m.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

func TestRAPIUsers(t *testing.T) {
	m := rapiMaster(t, 2)
	pw := m.file("pw", "a good password\nand more\n")
	m.want(Cluster, "rapi-user", "add", "amy", "--permission", "write", "--password-file", pw)
	m.fail(ExitFailed, "there is a user amy", Cluster, "rapi-user", "add", "amy", "--password-file", pw)
	m.fail(ExitFailed, "at least 8", Cluster, "rapi-user", "add", "bob", "--password-file", m.file("pw", "short\n"))
	m.fail(ExitFailed, "read, write or admin", Cluster, "rapi-user", "add", "bob", "--permission", "root", "--password-file", pw)
	m.want(Cluster, "rapi-user", "passwd", "amy", "--permission", "read")
	if out := m.want(Cluster, "rapi-user", "list", "--no-headers", "-o", "name,permission"); strings.Join(strings.Fields(out), " ") != "amy read" {
		t.Errorf("list: %q", out)
	}
	m.fail(ExitFailed, "line 2", Cluster, "rapi-user", "import", m.file("users", "zoe secretpassword write\nbad {crypt}xx\n# note\n"))
	r := m.run(Cluster, "rapi-user", "import", m.file("users", "zoe {cleartext}secretpassword write\njoe {HA1}0123456789abcdef0123456789ABCDEF read\n"))
	if r.code != ExitOK || !strings.Contains(r.err, "2 users") || strings.Contains(r.err, "secret") {
		t.Errorf("import: %+v", r)
	}
	m.want(Cluster, "rapi-user", "remove", "amy")
	m.fail(ExitFailed, "there is no user amy", Cluster, "rapi-user", "remove", "amy")
}

// TestFarFlags: what cannot reach a cluster is refused before anything is sent.
func TestFarFlags(t *testing.T) {
	m := rapiMaster(t, 2)
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	m.fail(ExitFailed, "--rapi needs --cert", Node, "--rapi", "https://node1:5080", "list")
	m.fail(ExitFailed, "belong to --rapi", Node, "--cert", "x", "list")
	m.fail(ExitFailed, "want https://", Node, "--rapi", "http://node1:5080", "--cert", "x", "--key", "y", "list")
	m.fail(ExitFailed, "exclude each other", Node, "--rapi", "https://node1", "--profile", "lab", "list")
	m.fail(ExitFailed, "lab.toml", Node, "--profile", "lab", "list")
	m.fail(ExitFailed, "want a name", Node, "--profile", "../lab", "list")
	m.fail(ExitFailed, "holds no certificate request", Cluster, "admin", "add", "alice", "--csr", m.file("csr", "x"))
}
