package audit

import (
	"time"

	"go.uber.org/zap"
)

// writer is the one that touches the file.
type writer struct {
	*queue
	node func() string
	end  chan struct{}

	file    file      // nil: not open
	dirty   time.Time // since when something is written and not synced; zero: nothing
	failing bool      // since the last success
	rest    [][]byte
}

// run writes until end closes, and then whatever can be written at once.
func (w *writer) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ending := false; ; {
		ok := w.round()
		if ending {
			w.close()
			return
		}
		timer.Reset(w.pause(ok))
		select {
		case <-w.wake:
			if !ok { // more lines make no disk better
				select {
				case <-timer.C:
				case <-w.end:
					ending = true
				}
			}
		case <-timer.C:
			w.sync()
		case <-w.end:
			ending = true
		}
	}
}

// pause returns when to go on without being woken.
func (w *writer) pause(ok bool) time.Duration {
	switch {
	case !ok:
		return retryPause
	case w.dirty.IsZero():
		return time.Hour // for nothing
	default:
		return max(0, syncPause-time.Since(w.dirty))
	}
}

// round writes all that waits, and reports whether nothing is left.
func (w *writer) round() bool {
	for {
		if len(w.rest) == 0 {
			w.take()
		}
		if len(w.rest) == 0 {
			return true
		}
		if err := w.write(w.rest[0]); err != nil {
			w.fail(err)
			return false
		}
		w.written(len(w.rest[0]))
		w.rest = w.rest[1:]
	}
}

// take moves the queue here, with a word on what was lost at its end.
func (w *writer) take() {
	w.mu.Lock()
	reopen, lost := w.reopen, w.untold
	w.rest, w.lines, w.reopen, w.untold = w.lines, nil, false, 0
	w.mu.Unlock()
	if reopen {
		w.close() // not under mu: it waits for the disk
	}
	if lost == 0 {
		return
	}
	w.cfg.Log.Warn("audit lines were lost because the disk did not take them", zap.Int64("count", lost))
	b := w.encode(w.node(), Event{Act: LinesLost, Outcome: Failed, Count: lost})
	w.rest = append(w.rest, b)
	w.mu.Lock()
	w.bytes += len(b)
	w.mu.Unlock()
}

func (w *writer) write(b []byte) error {
	if w.file == nil {
		f, err := w.cfg.open(w.cfg.Path)
		if err != nil {
			return err
		}
		w.file = f
	}
	_, err := w.file.Write(b)
	return err
}

// written notes a success.
func (w *writer) written(n int) {
	w.mu.Lock()
	w.bytes -= n
	w.mu.Unlock()
	if w.dirty.IsZero() {
		w.dirty = time.Now()
	}
	if w.failing {
		w.failing = false
		w.cfg.Log.Info("audit log is written again", zap.String("path", w.cfg.Path))
	}
}

// fail notes a failure. The file is opened anew: that ends a line that was
// begun.
func (w *writer) fail(err error) {
	if !w.failing {
		w.failing = true
		w.cfg.Log.Error("audit log cannot be written; lines wait, and the newest are lost when there are too many", zap.Error(err))
	}
	w.close()
}

func (w *writer) sync() {
	if w.file == nil || w.dirty.IsZero() {
		return
	}
	w.dirty = time.Time{}
	if err := w.file.Sync(); err != nil {
		w.fail(err)
	}
}

func (w *writer) close() {
	if w.file == nil {
		return
	}
	f := w.file
	if !w.dirty.IsZero() {
		w.dirty = time.Time{}
		if err := f.Sync(); err != nil {
			w.cfg.Log.Warn("audit log is not on the disk yet", zap.Error(err))
		}
	}
	w.file = nil
	if err := f.Close(); err != nil {
		w.cfg.Log.Warn("cannot close audit log", zap.Error(err))
	}
}
