package noded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/internal/buildinfo"
	"rolekey/internal/paths"
	"rolekey/noded/ssconf"
)

// Pauses of what writes ssconf: nothing waits for it, and much may come at once.
const (
	factsRest  = 250 * time.Millisecond
	factsRound = time.Minute
)

// factFiles are the ssconf files of this machine. It is their one writer.
type factFiles struct {
	mu    sync.Mutex
	dir   ssconf.Dir
	wrote map[string]string // last; nil: that is not known
}

func newFactFiles(at paths.Layout) *factFiles { return &factFiles{dir: ssconf.Dir{Path: at.SSConf}} }

// write makes them follow the view in force, asked for in its turn: of two
// calls the later one must not write the older view. With check it also looks
// whether they are as they were left.
func (f *factFiles) write(view func() *candmap.View, check bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	texts := ssconf.Render(view(), buildinfo.Version())
	if !check && f.wrote != nil && maps.Equal(texts, f.wrote) {
		return nil
	}
	err := f.dir.Write(texts)
	if f.wrote = nil; err == nil {
		f.wrote = texts
	}
	return err
}

func (f *factFiles) remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrote = nil
	return f.dir.Remove()
}

// followFacts writes ssconf after each map, and what others changed there.
func (m *member) followFacts(ctx context.Context) error {
	var due time.Time // for the look at all files
	for {
		news := m.news.wait()
		check := !time.Now().Before(due)
		if err := m.facts.write(m.keeper.View, check); err != nil && ctx.Err() == nil {
			m.log.Warn("ssconf files do not follow the map", zap.Error(err))
		}
		if check {
			due = time.Now().Add(factsRound)
		}
		if err := pause(ctx, time.Until(due), news); err != nil {
			return err
		}
		if err := pause(ctx, min(factsRest, max(0, time.Until(due))), nil); err != nil {
			return err
		}
	}
}

// derive writes the files that follow from map and roster for the convenience
// of other programs. All of them are rebuilt at start, and none is trusted.
func (m *member) derive(ctx context.Context, v *candmap.View) error {
	sshErr := m.ssh.derive(ctx, v, true)
	if sshErr != nil {
		sshErr = fmt.Errorf("SSH's client files do not follow the roster: %w", sshErr)
	}
	factsErr := m.facts.write(m.keeper.View, true)
	if factsErr != nil {
		factsErr = fmt.Errorf("ssconf files do not follow the map: %w", factsErr)
	}
	return errors.Join(sshErr, factsErr)
}
