package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// TestRAPI: a user with a password and an administrator with a certificate work
// on the cluster from afar, within their rights and no longer than they have
// them; another candidate answers reads and names the master for changes.
func TestRAPI(t *testing.T) {
	w := rested(t)
	master, other := w.master(), ""
	for _, n := range w.nodes()[:3] {
		if n.Name != master {
			other = n.Name
		}
	}
	w.script(master, `umask 077; cd "$ROLEKEY_ROOT"/tmp 2>/dev/null || { mkdir -p "$ROLEKEY_ROOT"/tmp && cd "$ROLEKEY_ROOT"/tmp; }
printf 'a good password\n' >pw
gnt-cluster rapi-user add amy --permission write --password-file pw
openssl ecparam -name prime256v1 -genkey -noout -out alice.key
openssl req -new -key alice.key -subj /CN=alice -out alice.csr
gnt-cluster admin add alice --csr alice.csr >alice.pem`)
	curl := `curl -s --cacert "$ROLEKEY_ROOT"/var/lib/rolekey/node/ca.pem -u amy:%s https://%s:5080%s`
	get := func(password, node, path string) string {
		return w.script(master, fmt.Sprintf(curl, password, w.node(node).Address, path))
	}
	if out := get("'a good password'", master, "/version"); strings.TrimSpace(out) != "2" {
		t.Errorf("version: %q", out)
	}
	w.until("the other candidate knows the user", func(context.Context) error {
		if out := get("'a good password'", other, "/2/nodes"); !strings.Contains(out, "node5.example") {
			return fmt.Errorf("nodes: %q", out)
		}
		return nil
	})
	if out := get("wrong", master, "/2/info"); !strings.Contains(out, `"code":401`) {
		t.Errorf("a wrong password: %q", out)
	}
	if out := get(`'a good password' -X PUT -H 'Content-Type: application/json' -d '"drained"'`, other, "/2/nodes/node5.example/role"); !strings.Contains(out, master) {
		t.Errorf("a change on %s does not name the master: %q", other, out)
	}
	w.refusesWhenCutOff(other, func() string {
		return w.script(other, fmt.Sprintf(curl, "'a good password'", w.node(other).Address, "/2/nodes"))
	})
	far := fmt.Sprintf(`cd "$ROLEKEY_ROOT"/tmp && %%s --rapi https://%s --cert alice.pem --key alice.key `, w.node(master).Address)
	if out := w.script(master, fmt.Sprintf(far, "gnt-node")+"list --no-headers -o name"); !strings.Contains(out, "node4.example") {
		t.Errorf("from afar: %q", out)
	}
	w.script(master, fmt.Sprintf(far, "gnt-node")+"modify -C yes node4.example")
	w.script(master, fmt.Sprintf(far, "gnt-node")+"modify -C no node4.example")
	w.script(master, "gnt-cluster admin remove alice; gnt-cluster rapi-user remove amy")
	defer w.script(master, `rm -r "$ROLEKEY_ROOT"/tmp`) // another test looks for private keys
	if r, err := w.Sh(w.ctx, master, "sh", "-c", fmt.Sprintf(far, "gnt-node")+"list"); err == nil && r.Code == 0 {
		t.Error("a removed administrator is served")
	}
	if out := get("'a good password'", master, "/2/info"); !strings.Contains(out, `"code":401`) {
		t.Errorf("a removed user: %q", out)
	}
	w.clean()
}

// refusesWhenCutOff: a candidate that cannot hear who was removed serves nobody
// over the network once its lease is over, and serves again when it hears.
func (w *world) refusesWhenCutOff(node string, ask func() string) {
	w.t.Helper()
	if st, err := w.State(w.ctx); err != nil || !st.Namespaces {
		return // nothing can be cut here
	}
	says := func(what string) func(context.Context) error {
		return func(context.Context) error {
			if out := ask(); !strings.Contains(out, what) {
				return fmt.Errorf("it says %.200q", out)
			}
			return nil
		}
	}
	w.must(w.Partition(w.ctx, node))
	w.until("the candidate that is cut off refuses", says(`"reason":"map_stale"`))
	w.must(w.Heal(w.ctx))
	w.until("it serves again", says("node5.example"))
}

// script runs a shell script as on a node, which must succeed, and returns what
// it printed.
func (w *world) script(node, text string) string {
	w.t.Helper()
	r, err := w.Must(w.ctx, 0, node, "sh", "-e", "-c", text)
	w.must(err)
	return r.Stdout
}
