package vcluster

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
)

// life25 is a cluster that is awake for some minutes every few weeks, for 25 years.
type life25 struct {
	*Cluster
	rand  *rand.Rand
	away  map[*Node]absence
	quiet bool // nobody comes or goes: nobody is to be refused

	authority []byte
	renewals  int // of the authority
	trusted   int // nodes that local root had to help
	readded   int
	failovers int
	returns   int
	first     map[string]time.Time // refusals of this quiet time, by who was refused where and why
	refused   []string
}

type absence struct {
	until     time.Duration
	authority []byte // when it left
}

// TestDecades: certificates and the authority renew by themselves while machines
// are down for months, roles change and masters die. In the end all of it is fresh,
// and nothing old is trusted by anybody.
func TestDecades(t *testing.T) {
	seeds := []uint64{1}
	if every {
		seeds = []uint64{1, 2, 3, 4}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			Run(t, 5, Options{Lease: time.Minute}, func(t *testing.T, c *Cluster) {
				l := &life25{Cluster: c, rand: rand.New(rand.NewPCG(seed, 0)), away: map[*Node]absence{}}
				c.logs.tap = l.hear
				for c.Now() < 25*year {
					l.weeks()
				}
				for len(l.away) > 0 {
					for n := range l.away {
						l.back(n)
					}
				}
				l.fresh()
				t.Logf("seed %d: %d authorities, %d returns of which %d by local root's word and %d readded, %d failovers",
					seed, l.renewals+1, l.returns, l.trusted, l.readded, l.failovers)
				if l.renewals == 0 || l.returns == 0 || l.failovers == 0 {
					t.Error("something was not tried")
				}
				if len(l.refused) > 0 {
					t.Errorf("%d calls were refused for long while nothing happened: %s", len(l.refused), l.refused[0])
				}
			})
		})
	}
}

// forLong is how long somebody may be refused while a map is on its way: two nodes
// that renew in one moment are ahead of each other.
const forLong = 3 * time.Second

// hear notes who is refused that is to be known, and for long.
func (l *life25) hear(line string) {
	if !l.quiet || !strings.Contains(line, "rpc refused") {
		return
	}
	for _, code := range []cluster.Code{cluster.CodeNoCertificate, cluster.CodeIdentityMismatch, cluster.CodeNotInRoster, cluster.CodeNotInMap, cluster.CodeNotMaster} {
		if !strings.Contains(line, "reason:"+string(code)) {
			continue
		}
		_, about, _ := strings.Cut(line, " ") // after the time
		about, _, _ = strings.Cut(about, " remote:")
		if at, again := l.first[about]; !again {
			l.first[about] = time.Now()
		} else if time.Since(at) > forLong {
			l.refused = append(l.refused, line)
		}
	}
}

// listen begins or ends a time in which nobody is to be refused for long.
func (l *life25) listen(quiet bool) {
	l.logs.mu.Lock() // held by whoever calls hear
	defer l.logs.mu.Unlock()
	l.first, l.quiet = map[string]time.Time{}, quiet
}

// weeks lets some weeks pass, and then something happen.
func (l *life25) weeks() {
	l.t.Helper()
	l.off(time.Duration(45+l.rand.IntN(90)) * day)
	l.Settle()
	l.listen(true)
	l.Await(10*time.Minute, l.young)
	l.listen(false)
	st, err := l.State()
	l.must(err)
	if !bytes.Equal(st.CA.Cert, l.authority) {
		if l.authority != nil {
			l.renewals++
		}
		l.authority = st.CA.Cert
	}
	for n, a := range l.away {
		if l.Now() > a.until {
			l.back(n)
		}
	}
	switch l.rand.IntN(8) {
	case 0, 1:
		l.leave()
	case 2:
		l.failover()
	case 3:
		l.move()
	}
}

// leave switches a machine off for months: one candidate at most, so that the
// others elect a master.
func (l *life25) leave() {
	st, err := l.State()
	l.must(err)
	candidate := func(n *Node) bool { return st.Node(n.ID).Flags.MasterCandidate }
	n := l.Nodes[l.rand.IntN(len(l.Nodes))]
	for o := range l.away {
		if candidate(o) && candidate(n) {
			return
		}
	}
	if n.Up() && len(l.away) < 2 {
		n.Stop()
		l.away[n] = absence{l.Now() + time.Duration(30+l.rand.IntN(300))*day, st.CA.Cert}
		l.Settle()
	}
}

// back switches it on again. Whoever was away while the authority was changed, and
// for longer than that waits, is readded.
func (l *life25) back(n *Node) {
	l.t.Helper()
	a := l.away[n]
	delete(l.away, n)
	l.returns++
	st, err := l.State()
	l.must(err)
	if bytes.Equal(a.authority, st.CA.Cert) || slices.ContainsFunc(st.CA.Roots(), func(der []byte) bool { return bytes.Equal(der, a.authority) }) {
		if l.wake(n) {
			l.trusted++
		}
		return
	}
	l.readded++
	l.Must(Remove(n))
	n.Start()
	l.Await(Limit, func() error { return n.local.Do(l.t.Context(), "POST", rpc.LocalLeave, nil, nil) })
	l.Join(n)
	l.Settle()
}

// failover has the master die, or another one take its place.
func (l *life25) failover() {
	l.t.Helper()
	old := l.Master()
	if l.rand.IntN(2) == 0 && len(l.Up()) == len(l.Nodes) {
		old.Stop()
		l.Await(Limit, func() error { _, err := l.one(); return err })
		old.Start()
		l.Settle()
	} else {
		for _, n := range l.Up() {
			if _, err := n.failover(""); err == nil {
				break
			}
		}
	}
	l.Settle()
	if l.Master() != old {
		l.failovers++
	}
}

// move gives the role of a candidate to another node.
func (l *life25) move() {
	l.t.Helper()
	st, err := l.State()
	l.must(err)
	var from, to *Node
	for _, n := range l.Up() {
		switch in := st.Node(n.ID); {
		case n == l.Master():
		case in.Flags.MasterCandidate:
			from = n
		default:
			to = n
		}
	}
	if from == nil || to == nil {
		return
	}
	l.Must(Candidate(to, true))
	l.Must(Candidate(from, false))
	l.Settle()
}

// fresh checks the end: nothing is due, half done, or of the past.
func (l *life25) fresh() {
	l.t.Helper()
	l.Settle()
	l.Await(20*time.Minute, func() error { return errors.Join(l.young(), l.renewedAll()) })
	st, err := l.State()
	l.must(err)
	ca, err := pki.ParseCertDER(st.CA.Cert)
	l.must(err)
	if left := time.Until(ca.NotAfter); left < pki.LifetimeCA/3 {
		l.t.Errorf("the authority ends in %v", left)
	}
	text := l.found()
	for try := 0; text != "" && try < 5; try++ { // gossip reaches those that came last a little later
		l.Pass(time.Minute)
		text = l.found()
	}
	if text != "" {
		l.t.Errorf("verify finds:\n%s", text)
	}
	pins := map[cluster.Digest]bool{}
	for _, p := range l.pins() {
		if pins[p] {
			l.t.Errorf("pin %s is listed twice", p.Short())
		}
		pins[p] = true
	}
	for _, n := range st.SortedNodes() {
		if n.Flags.Offline || !n.Joined || len(n.Certs.Server) == 0 {
			l.t.Errorf("%s: not a whole member", n.Name)
		}
	}
}
