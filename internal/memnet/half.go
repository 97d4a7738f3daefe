package memnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// bufferSize bounds what one direction of a stream holds.
const bufferSize = 4 << 20

// segment is a piece of a stream on its way. A segment with err instead of
// data ends the stream with that error.
type segment struct {
	data  []byte
	err   error
	ready time.Time
}

// half is one direction of a stream: the writer's end at one host and the
// reader's at the other.
type half struct {
	net      *Network
	from, to netip.Addr

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change below
	queue    []segment
	size     int
	wrote    error // why the writer may not write any more
	read     error // why the reader may not read any more
	gone     error // what the writer gets once it can know that the reader is gone
	readEnd  time.Time
	writeEnd time.Time
}

func newHalf(n *Network, from, to netip.Addr) *half {
	return &half{net: n, from: from, to: to, changed: make(chan struct{})}
}

// wake tells all waiters to look again; the caller holds mu.
func (h *half) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// set changes fields under the lock and wakes the waiters.
func (h *half) set(edit func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	edit()
	h.wake()
}

// wait releases mu until something changes or the first of the times comes;
// zero times never come.
func (h *half) wait(l *links, times ...time.Time) {
	changed := h.changed
	h.mu.Unlock()
	defer h.mu.Lock()
	var timeout <-chan time.Time
	if first := earliest(times); !first.IsZero() {
		timer := time.NewTimer(time.Until(first))
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-changed:
	case <-l.changed:
	case <-timeout:
	}
}

func earliest(times []time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

func passed(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// Read takes what has arrived, and waits if nothing has.
func (h *half) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		links := h.net.links.Load()
		if h.read != nil {
			return 0, h.read
		}
		if passed(h.readEnd) {
			return 0, os.ErrDeadlineExceeded
		}
		var next time.Time
		if len(h.queue) > 0 && !links.blocks(h.from, h.to) {
			if next = h.queue[0].ready; !time.Now().Before(next) {
				return h.take(p)
			}
		}
		if len(p) == 0 {
			return 0, nil
		}
		h.wait(links, h.readEnd, next)
	}
}

// take moves what is ready into p, or returns how the stream ended.
func (h *half) take(p []byte) (n int, err error) {
	if err := h.queue[0].err; err != nil {
		return 0, err
	}
	now := time.Now()
	for n < len(p) && len(h.queue) > 0 && h.queue[0].err == nil && !now.Before(h.queue[0].ready) {
		s := &h.queue[0]
		k := copy(p[n:], s.data)
		n += k
		if s.data = s.data[k:]; len(s.data) == 0 {
			h.queue = h.queue[1:]
		}
	}
	h.size -= n
	h.wake()
	return n, nil
}

// Write sends p, and waits while the buffer is full.
func (h *half) Write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		links := h.net.links.Load()
		if err := h.writeError(links); err != nil {
			return n, err
		}
		if room := bufferSize - h.size; room > 0 && n < len(p) {
			k := min(room, len(p)-n)
			h.push(links, segment{data: append([]byte(nil), p[n:n+k]...)})
			n += k
		}
		if n == len(p) {
			return n, nil
		}
		h.wait(links, h.writeEnd)
	}
}

func (h *half) writeError(l *links) error {
	switch {
	case h.wrote != nil:
		return h.wrote
	case passed(h.writeEnd):
		return os.ErrDeadlineExceeded
	case h.gone != nil && !l.blocks(h.to, h.from):
		return h.gone
	}
	return nil
}

// push appends a segment; it never overtakes an earlier one. The caller holds
// mu.
func (h *half) push(l *links, s segment) {
	s.ready = time.Now().Add(l.oneWay(h.from, h.to))
	if len(h.queue) > 0 {
		if last := h.queue[len(h.queue)-1].ready; s.ready.Before(last) {
			s.ready = last
		}
	}
	h.queue = append(h.queue, s)
	h.size += len(s.data)
	h.wake()
}

// finish ends the stream after what was written; the writer then gets err.
func (h *half) finish(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ended := h.wrote != nil
	h.wrote = err
	if ended {
		h.wake()
		return
	}
	h.push(h.net.links.Load(), segment{err: io.EOF})
}

// reset ends the stream with ECONNRESET and drops what has not arrived, as
// the loss of the sender's buffer does.
func (h *half) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	links := h.net.links.Load()
	h.wrote = net.ErrClosed
	arrived := h.queue[:0:0]
	now := time.Now()
	for _, s := range h.queue {
		if !links.blocks(h.from, h.to) && !now.Before(s.ready) && s.err == nil {
			arrived = append(arrived, s)
		}
	}
	h.queue, h.size = arrived, 0
	for _, s := range arrived {
		h.size += len(s.data)
	}
	h.push(links, segment{err: syscall.ECONNRESET})
}

// leave says that the reader is gone; the writer gets err once it can know.
func (h *half) leave(err error) {
	h.set(func() {
		h.read = net.ErrClosed
		if h.gone == nil {
			h.gone = err
		}
	})
}

// abort ends the stream at both ends now.
func (h *half) abort(err error) {
	h.set(func() {
		if h.wrote == nil {
			h.wrote = err
		}
		if h.read == nil {
			h.read = err
		}
	})
}
