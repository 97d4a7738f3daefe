// Package filewatch says that files may have changed, soon after they did.
//
// It watches the folder of each file, since programs replace files by renaming,
// and the folder above it, since folders are replaced and come into being as
// well. It promises nothing: the kernel's queue may overflow, its limits
// (fs.inotify.max_user_watches and max_user_instances) may be used up, and
// network file systems tell nothing. Whoever needs to know looks by itself now
// and then, too; what this package adds is speed.
//
// Methods may be called concurrently; Run is called once.
package filewatch

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// again is how often what could not be watched is tried again, and folders are
// compared with what is watched.
const again = 20 * time.Second

// Watcher watches files. Make it with New.
type Watcher struct {
	log  *zap.Logger
	news chan struct{}
	set  chan struct{}
	open func() (*fsnotify.Watcher, error)
	wait time.Duration // again, or what a test wants

	mu    sync.Mutex
	files []string
}

// New makes a watcher of no files.
func New(log *zap.Logger) *Watcher {
	return &Watcher{log: log, news: make(chan struct{}, 1), set: make(chan struct{}, 1), open: fsnotify.NewWatcher, wait: again}
}

// Set says which files to watch from now on, by absolute paths. They need not
// exist, nor their folders.
func (w *Watcher) Set(files []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.Equal(files, w.files) {
		return
	}
	w.files = slices.Clone(files)
	poke(w.set)
}

// News receives after something happened to one of the files, once for all that
// happened since the last time. Changes by this process count as well.
func (w *Watcher) News() <-chan struct{} { return w.news }

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	told := ""
	for ctx.Err() == nil {
		problem := w.watch(ctx)
		if text := errorText(problem); text != told {
			told = text
			if problem != nil {
				w.log.Warn("files are not watched, but looked at now and then", zap.Error(problem))
			}
		}
		w.rest(ctx)
	}
	return context.Cause(ctx)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (w *Watcher) rest(ctx context.Context) {
	timer := time.NewTimer(w.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// watch runs as long as the kernel plays along.
func (w *Watcher) watch(ctx context.Context) (err error) {
	n, err := w.open()
	if err != nil {
		return err
	}
	s := session{n: n, folders: map[string]id{}}
	defer func() { err = errors.Join(err, n.Close()) }()
	tick := time.NewTicker(w.wait)
	defer tick.Stop()
	for {
		if err := s.follow(w.wanted()); err != nil {
			return err
		}
		select {
		case e, ok := <-n.Events:
			if !ok {
				return errors.New("the kernel's queue was closed")
			}
			if w.concerns(e.Name) {
				poke(w.news)
			}
		case err := <-n.Errors:
			poke(w.news) // something was lost
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return err
			}
		case <-w.set:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *Watcher) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.files
}

// concerns reports whether path is a file that is watched, or on the way to one.
func (w *Watcher) concerns(path string) bool {
	return slices.ContainsFunc(w.list(), func(f string) bool { return f == path || strings.HasPrefix(f, path+"/") })
}

// wanted are the folders to watch: for each file the two nearest ones that
// exist.
func (w *Watcher) wanted() map[string]id {
	found := map[string]id{}
	for _, f := range w.list() {
		n := 0
		for dir := filepath.Dir(f); n < 2; dir = filepath.Dir(dir) {
			if i, ok := identify(dir); ok {
				found[dir] = i
				n++
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return found
}

// id tells a folder from another one of the same name.
type id struct{ dev, inode uint64 }

func identify(dir string) (id, bool) {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return id{}, false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return id{uint64(s.Dev), s.Ino}, ok
}

// session is one queue of the kernel's.
type session struct {
	n       *fsnotify.Watcher
	folders map[string]id // that are watched
}

// follow makes the session watch just the wanted folders.
func (s *session) follow(wanted map[string]id) error {
	for dir, have := range s.folders {
		if wanted[dir] != have {
			_ = s.n.Remove(dir) // the kernel may have done so already
			delete(s.folders, dir)
		}
	}
	for dir, want := range wanted {
		if _, ok := s.folders[dir]; ok {
			continue
		}
		if err := s.n.Add(dir); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				continue // gone again; the next round sees what is there
			}
			return err
		}
		s.folders[dir] = want
	}
	return nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
