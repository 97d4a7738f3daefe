package audit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"rolekey/cluster"
)

// Bounds of what waits for the disk, and times.
const (
	maxQueue   = 1 << 20         // bytes
	retryPause = 2 * time.Second // before a disk that failed is tried again
	syncPause  = time.Second     // a line reaches the platter so long after the file at most
	flushLimit = 2 * time.Second // the end waits no longer for the disk
)

// Lines that peers can cause at will are limited in all, so that even many
// together fill no disk. Those left out are counted in the next that is written.
const (
	peerRate  = rate.Limit(20)
	peerBurst = 500
)

var byPeers = map[Act]bool{RPCRefused: true, AdmissionRefused: true, SignRefused: true, HostKeysRefused: true, ExpiredRenewed: true}

// Config says where a log is and what every line of it says.
type Config struct {
	Path   string           // empty: nothing is written
	Daemon string           // "noded" or "masterd"
	Now    func() time.Time // nil: time.Now
	Log    *zap.Logger      // for trouble with the file; nil: none

	open func(path string) (file, error) // nil: openFile
}

// Log is an audit log. New makes one, Run writes it.
type Log struct {
	*queue
	node    func() string
	version func() cluster.Version
}

// queue is what the logs of one file share.
type queue struct {
	cfg  Config
	lost atomic.Int64 // in all

	mu     sync.Mutex
	peers  *rate.Limiter
	skip   int64 // lines of peers left out since the last
	lines  [][]byte
	bytes  int   // of lines, those at the writer included
	untold int64 // lost and not said in the file yet
	reopen bool
	wake   chan struct{}
}

// New makes a log. Until Run is called lines wait in the queue.
func New(cfg Config) *Log {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.open == nil {
		cfg.open = openFile
	}
	return &Log{
		queue: &queue{cfg: cfg, wake: make(chan struct{}, 1), peers: rate.NewLimiter(peerRate, peerBurst)},
		node:  func() string { return "" }, version: func() cluster.Version { return cluster.Version{} },
	}
}

// With returns a log to the same file whose lines name a node and the map in
// force there. The functions are called by Write and must not block.
func (l *Log) With(node func() string, version func() cluster.Version) *Log {
	if l == nil {
		return nil
	}
	return &Log{l.queue, node, version}
}

// Write has an event written. It does not wait for the disk.
func (l *Log) Write(e Event) {
	if l == nil || l.cfg.Path == "" {
		return
	}
	if byPeers[e.Act] && !l.admit(&e) {
		return
	}
	if e.Version.IsZero() {
		e.Version = l.version()
	}
	l.push(l.encode(l.node(), e))
}

// admit reports whether a line that a peer caused may be written.
func (q *queue) admit(e *Event) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.peers.AllowN(q.cfg.Now(), 1) {
		q.skip += 1 + e.Count
		return false
	}
	e.Count, q.skip = e.Count+q.skip, 0
	return true
}

func (q *queue) encode(node string, e Event) []byte {
	w := line{Time: e.Time, Daemon: q.cfg.Daemon}
	if w.Time.IsZero() {
		w.Time = q.cfg.Now()
	}
	w.Time = w.Time.UTC().Round(0)
	w.Node = w.clip(node)
	w.of(e)
	return w.encode()
}

func (q *queue) push(b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes+len(b) > maxQueue {
		q.untold++
		q.lost.Add(1)
		return
	}
	q.lines = append(q.lines, b)
	q.bytes += len(b)
	q.poke()
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Lost returns how many lines were lost since New.
func (l *Log) Lost() int64 {
	if l == nil {
		return 0
	}
	return l.lost.Load()
}

// Reopen has the file opened anew before the next line: it may have been
// renamed.
func (l *Log) Reopen() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reopen = true
	l.poke()
}

// Start runs the log beside a daemon of this version, until stop is called:
// after the last of those who write to it.
func (l *Log) Start(ctx context.Context, software string) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	l.Write(Event{Act: DaemonStarted, Op: software})
	return func() {
		l.Write(Event{Act: DaemonStopped, Op: software})
		cancel()
		if err := <-ended; err != nil {
			l.cfg.Log.Error("the end of the audit log is lost", zap.Error(err))
		}
	}
}

// Run writes until ctx ends and then what is in the queue. It does not wait for
// ever for a disk that hangs.
func (l *Log) Run(ctx context.Context) error {
	w := &writer{queue: l.queue, node: l.node, end: make(chan struct{})}
	done := make(chan struct{})
	go func() { defer close(done); w.run() }()
	<-ctx.Done()
	close(w.end)
	limit := time.NewTimer(flushLimit)
	defer limit.Stop()
	select {
	case <-done:
		return nil
	case <-limit.C: // the one goroutine that nobody can wait for: the kernel has it
		return errors.New("write audit log: the disk does not answer")
	}
}
