package gossip

import (
	"bytes"
	"sync"
)

// mailbox takes messages from memberlist without ever blocking it. It is
// small, gives out the newest first, and lets the oldest go when it is full:
// every message is a whole fact, and a newer one is worth more.
type mailbox struct {
	ready chan struct{} // holds a token while there may be messages

	mu   sync.Mutex
	msgs [][]byte // oldest first
}

func newMailbox() *mailbox { return &mailbox{ready: make(chan struct{}, 1)} }

// What became of a message that was put.
type putResult int

const (
	putTaken putResult = iota
	putEvicted
	putAgain
)

// put keeps a copy of msg.
func (m *mailbox) put(msg []byte) putResult {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, waiting := range m.msgs {
		if bytes.Equal(waiting, msg) {
			return putAgain
		}
	}
	result := putTaken
	if len(m.msgs) == maxWaiting {
		m.msgs = append(m.msgs[:0], m.msgs[1:]...)
		result = putEvicted
	}
	m.msgs = append(m.msgs, bytes.Clone(msg))
	select {
	case m.ready <- struct{}{}:
	default:
	}
	return result
}

// pop removes and returns the newest message, nil if there is none.
func (m *mailbox) pop() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := len(m.msgs) - 1
	if last < 0 {
		return nil
	}
	msg := m.msgs[last]
	m.msgs[last] = nil
	m.msgs = m.msgs[:last]
	return msg
}
