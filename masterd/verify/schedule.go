package verify

import (
	"cmp"

	"rolekey/cluster"
)

// Bounds of attempts at once. A sshd drops connections at random beyond its
// MaxStartups, and the administrator's own logins go through the same door.
const (
	atOnceTo   = 2 // to one sshd, of the whole cluster
	atOnceFrom = 8 // by one node
)

// kind is whether an attempt must succeed. A firewall that stops those that must
// not says nothing about those that must.
type kind int

const (
	proper kind = iota
	improper
	kinds
)

// attempt is something that one node tries with another.
type attempt struct {
	kind     kind
	from, to cluster.NodeID
	run      func() verdict
	skip     func(why string) // told when it is not made
}

// verdict tells what an attempt says about the ones of its kind that follow.
type verdict struct {
	fromGone string // why from makes no more; "": it does
	toGone   string // why nobody tries to any more
}

// schedule makes all attempts, as many at once as the bounds allow, and returns
// when all have ended. Nobody waits twice for a node that does not answer. The
// improper ones, last in the list, begin when all proper ones have begun.
func schedule(list []attempt) {
	s := scheduler{
		list: list, started: make([]bool, len(list)), done: make(chan ended),
		from: map[cluster.NodeID]*place{}, to: map[cluster.NodeID]*place{},
	}
	for _, a := range list {
		if s.from[a.from] == nil {
			s.from[a.from] = &place{}
		}
		if s.to[a.to] == nil {
			s.to[a.to] = &place{}
		}
	}
	for running := s.start(); running > 0; running += s.start() {
		e := <-s.done
		running--
		a := list[e.index]
		s.from[a.from].end(a.kind, e.verdict.fromGone)
		s.to[a.to].end(a.kind, e.verdict.toGone)
	}
}

type scheduler struct {
	list     []attempt
	first    int // all before it are started
	started  []bool
	from, to map[cluster.NodeID]*place
	done     chan ended
}

// place is one node as source, or as target.
type place struct {
	busy int
	gone [kinds]string
}

func (p *place) end(k kind, gone string) {
	p.busy--
	p.gone[k] = cmp.Or(p.gone[k], gone)
}

type ended struct {
	index   int
	verdict verdict
}

// start starts what may be started now, and returns how many that were.
func (s *scheduler) start() (n int) {
	for s.first < len(s.list) && s.started[s.first] {
		s.first++
	}
	waiting := false // a proper one does
	for i := s.first; i < len(s.list); i++ {
		a := s.list[i]
		if s.started[i] {
			continue
		}
		if a.kind == improper && waiting {
			break
		}
		from, to := s.from[a.from], s.to[a.to]
		gone := cmp.Or(from.gone[a.kind], to.gone[a.kind])
		switch {
		case gone != "":
			s.started[i] = true
			a.skip(gone)
		case from.busy < atOnceFrom && to.busy < atOnceTo:
			s.started[i] = true
			from.busy++
			to.busy++
			n++
			go func() { s.done <- ended{i, a.run()} }()
		default:
			waiting = true
		}
	}
	return n
}
