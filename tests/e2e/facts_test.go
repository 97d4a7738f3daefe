package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/internal/lab"
)

func fact(n lab.Node, name string) (string, error) {
	path := filepath.Join(n.Root, "var/lib/rolekey/ssconf_"+name)
	info, err := os.Lstat(path)
	if err == nil && info.Mode() != 0o444 {
		err = fmt.Errorf("%s has mode %v", path, info.Mode())
	}
	text, rerr := os.ReadFile(path)
	return string(text), errors.Join(err, rerr)
}

// TestSSConf: every node tells other programs the same, and redist-conf shows
// that it does.
func TestSSConf(t *testing.T) {
	w := rested(t)
	master := w.master()
	same := []string{"cluster_name", "master_node", "master_candidates", "master_candidates_ips", "master_candidates_certs", "node_list", "node_primary_ips", "online_nodes", "offline_nodes", "ssh_ports"}
	w.until("all nodes tell the same", func(context.Context) error {
		want := map[string]string{}
		for _, n := range w.nodes() {
			for _, name := range same {
				text, err := fact(n, name)
				if err != nil {
					return err
				}
				if have, ok := want[name]; ok && have != text {
					return fmt.Errorf("%s: ssconf_%s is %q, elsewhere %q", n.Name, name, text, have)
				}
				want[name] = text
			}
		}
		if n := strings.Count(want["master_candidates_certs"], "\n"); n < 3 || want["master_node"] != master+"\n" || strings.Count(want["node_list"], "\n") != 5 {
			return fmt.Errorf("%q", want)
		}
		return nil
	})
	path := filepath.Join(w.node("node5").Root, "var/lib/rolekey/ssconf_node_list")
	good, err := os.ReadFile(path)
	w.must(err)
	w.must(os.Remove(path))
	w.admin(0, "gnt-cluster", "redist-conf")
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, good) {
		t.Errorf("after redist-conf: %q, %v", got, err)
	}
	w.must(w.Kill(w.ctx, "node5", lab.Noded))
	if r := w.admin(3, "gnt-cluster", "redist-conf"); !strings.Contains(r.Stderr, "node5") {
		t.Errorf("the node that is down is not named: %s", r.Stderr)
	}
	// With noded down, the file still names the master.
	if r, err := w.Sh(w.ctx, "node5", "gnt-cluster", "getmaster"); err != nil || r.Stdout != master+"\n" {
		t.Errorf("getmaster: %+v, %v", r, err)
	}
	w.startAll()
	w.settle()
	w.clean()
}
