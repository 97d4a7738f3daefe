package rpc

import "sync"

// slotKey is whom a call that holds memory is counted for.
type slotKey struct {
	tier Tier
	who  [16]byte // a stranger's network; anybody else's node, whichever certificate it shows
}

// slots bound how many large bodies and answers are in memory. Each tier has
// its own, so that strangers take none from members, nor those from candidates.
type slots struct {
	limits *Limits

	mu    sync.Mutex
	total [TierCandidate]int // of the tiers below
	each  map[slotKey]int
}

func newSlots(l *Limits) *slots { return &slots{limits: l, each: map[slotKey]int{}} }

// candidateShare is how many times more calls a candidate may have in flight.
const candidateShare = 8

func (s *slots) take(c *conn, g *Grant) (slotKey, bool) {
	key, most := slotKey{min(g.Tier, TierCandidate), g.Node}, s.limits.LargeCallsEach
	switch key.tier {
	case TierOpen:
		key.who = c.net.As16()
	case TierCandidate:
		most *= candidateShare
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.each[key]
	if n >= most || key.bounded() && s.total[key.tier] >= s.limits.LargeCalls {
		return slotKey{}, false
	}
	s.each[key] = n + 1
	if key.bounded() {
		s.total[key.tier]++
	}
	return key, true
}

func (s *slots) give(key slotKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.each[key]; n > 1 {
		s.each[key] = n - 1
	} else {
		delete(s.each, key)
	}
	if key.bounded() {
		s.total[key.tier]--
	}
}

// bounded says that all callers of the tier together are bounded too. There
// are few candidates.
func (k slotKey) bounded() bool { return k.tier < TierCandidate }
