package lab

import (
	"fmt"
	"os"
	"path/filepath"
)

// cleanFiles removes what means "running", and everything if asked.
func (h *holder) cleanFiles() {
	for _, n := range h.state.Nodes {
		removeRunFiles(n)
	}
	_ = os.Remove(socketPath(h.spec.Dir))
	_ = os.Remove(statePath(h.spec.Dir))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.purge {
		_ = purgeDir(h.spec.Dir)
	}
}

func removeRunFiles(n Node) {
	_ = os.RemoveAll(filepath.Join(n.Root, "run/rolekey"))
	_ = os.RemoveAll(filepath.Join(n.Root, "run/devcluster"))
	_ = os.Remove(filepath.Join(n.Root, "run/sshd.pid"))
}

// purgeDir removes what a cluster made in dir, and dir if nothing else is in it.
func purgeDir(dir string) error {
	if _, err := os.Stat(privateDir(dir)); err != nil {
		return fmt.Errorf("%s is not a cluster's folder: %w", dir, err)
	}
	err := removeFiles(dir)
	_ = os.Remove(dir) // not empty: the rest is somebody else's
	return err
}

// removeFiles removes what a cluster made in dir. The mark that it was a
// cluster's folder goes last.
func removeFiles(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "node[0-9]*"))
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	paths = append(paths, statePath(dir), statePath(dir)+".new", socketPath(dir), privateDir(dir))
	for _, p := range paths {
		if err := os.RemoveAll(p); err != nil {
			return fmt.Errorf("remove %s: %w", p, err)
		}
	}
	return nil
}
