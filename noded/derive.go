package noded

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"rolekey/candmap"
	"rolekey/internal/buildinfo"
	"rolekey/internal/paths"
	"rolekey/noded/ssconf"
)

// factFiles are the ssconf files of this machine. It is their one writer.
type factFiles struct {
	mu  sync.Mutex
	dir ssconf.Dir
}

func newFactFiles(at paths.Layout) *factFiles { return &factFiles{dir: ssconf.Dir{Path: at.SSConf}} }

// write makes them follow the view in force, asked for in its turn: of two
// calls the later one must not write the older view.
func (f *factFiles) write(view func() *candmap.View) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dir.Write(ssconf.Render(view(), buildinfo.Version()))
}

func (f *factFiles) remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dir.Remove()
}

// derive writes the files that follow from map and roster for the convenience
// of other programs. All of them are rebuilt at start, and none is trusted.
func (m *member) derive(ctx context.Context, v *candmap.View) error {
	sshErr := m.ssh.derive(ctx, v)
	if sshErr != nil {
		sshErr = fmt.Errorf("SSH's client files do not follow the roster: %w", sshErr)
	}
	factsErr := m.facts.write(m.keeper.View)
	if factsErr != nil {
		factsErr = fmt.Errorf("ssconf files do not follow the map: %w", factsErr)
	}
	return errors.Join(sshErr, factsErr)
}
