package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGanetiClient: Ganeti's own Python client, taken from Debian's package,
// works unchanged.
func TestGanetiClient(t *testing.T) {
	script, err := filepath.Abs("testdata/ganeti_client.py")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("../../tools/install/fetch-ganeti-client.sh").Output()
	if err != nil {
		t.Skipf("Ganeti's client cannot be had here: %v", err)
	}
	w := rested(t)
	master := w.master()
	w.script(master, `umask 077; mkdir -p "$ROLEKEY_ROOT"/tmp; printf 'ganeti password\n' >"$ROLEKEY_ROOT"/tmp/pw
gnt-cluster rapi-user add ganeti --permission write --password-file "$ROLEKEY_ROOT"/tmp/pw`)
	defer w.script(master, `gnt-cluster rapi-user remove ganeti; rm -r "$ROLEKEY_ROOT"/tmp`)
	candidate := ""
	for _, n := range w.nodes()[:3] {
		if n.Name != master {
			candidate = n.Name
		}
	}
	text := w.script(master, fmt.Sprintf(`PYTHONPATH='%s' /usr/bin/python3 '%s' %s 5080 ganeti 'ganeti password' "$ROLEKEY_ROOT"/var/lib/rolekey/node/ca.pem node5.example %s 2>&1`,
		strings.TrimSpace(string(out)), script, w.node(master).Address, candidate))
	if !strings.Contains(text, "calls as in Ganeti") {
		t.Errorf("the client says:\n%s", text)
	}
	t.Log(text)
	w.clean()
}
