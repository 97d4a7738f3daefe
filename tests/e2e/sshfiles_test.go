package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rolekey/internal/lab"
)

// restoredIn bounds how long a node may be without its block.
const restoredIn = 30 * time.Second

// TestG8OthersRewriteFiles: whatever others do to root's files on a node, the
// master enters it again within seconds, by plain ssh, and so does the node the
// others.
func TestG8OthersRewriteFiles(t *testing.T) {
	w := rested(t)
	master, node5 := w.node(w.master()), w.node("node5")
	t.Cleanup(func() { // verify rightly complains of a fight for the file, of which this run of noded knows
		w.must(w.Kill(w.ctx, node5.Name, lab.Noded))
		w.must(w.Start(w.ctx, node5.Name))
		w.settle()
		w.clean()
	})
	keys, known := node5.AuthorizedKeys(), node5.KnownHosts()
	dropIn := filepath.Join(node5.Root, "etc/ssh/ssh_config.d/50-rolekey.conf")
	login := func(ctx context.Context) error { return w.Login(ctx, master, node5) }
	for _, c := range []struct {
		what   string
		change func() error
		gone   bool // the change took everything away
	}{
		{"authorized_keys is rewritten", func() error { return os.WriteFile(keys, []byte("# mine\n"), 0o600) }, true},
		{"authorized_keys is removed", func() error { return os.Remove(keys) }, true},
		{"others may write it", func() error { return errors.Join(os.Chmod(keys, 0o666), os.Chmod(filepath.Dir(keys), 0o777)) }, false},
		{"the folder is removed", func() error { return os.RemoveAll(filepath.Dir(keys)) }, true},
	} {
		w.must(c.change())
		if c.gone && exists(keys) && login(t.Context()) == nil {
			t.Log("put right before a login could fail: " + c.what)
		}
		if took := w.until("login after: "+c.what, login); took > restoredIn {
			t.Errorf("%s: the master entered again after %s", c.what, took)
		} else {
			t.Logf("%s: %s until the next login", c.what, took)
		}
	}
	w.must(errors.Join(os.Truncate(known, 0), os.Remove(dropIn)))
	took := w.until("known_hosts and the drop-in are back", func(context.Context) error {
		for _, path := range []string{known, dropIn} {
			if info, err := os.Stat(path); err != nil || info.Size() == 0 {
				return errors.Join(errors.New(path+" is not back"), err)
			}
		}
		return nil
	})
	if took > restoredIn {
		t.Errorf("known_hosts and the drop-in were back after %s", took)
	}
	t.Logf("known_hosts and the drop-in: %s", took)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
