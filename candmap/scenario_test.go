package candmap_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

// A scenario is a receiver and a list of maps offered to it, one a line:
//
//	NAME: CHANGE... sign=KEYS -> OUTCOME
//
// The first line makes the map that the receiver pins. Each later one changes
// the map of the line `from=NAME`, by default the one that the receiver holds,
// to its next version. Changes are: voters=1,2,3  standby=4  master=2  epoch=+1
// version=+2  recovery=2:8,9  prev=NAME (names another predecessor)  lease=60
// cluster=other  aged (the receiver's trust has expired)  again=NAME (offers
// the payload of that line once more). The outcome is ok, known, or a code.
type scenario struct {
	t    *testing.T
	held *candmap.Verified
	maps map[string]*candmap.Map
}

func play(t *testing.T, script string) *candmap.Verified {
	t.Helper()
	s := &scenario{t: t, maps: map[string]*candmap.Map{}}
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line != "" {
			s.line(line)
		}
	}
	return s.held
}

func (s *scenario) line(line string) {
	s.t.Helper()
	name, rest, ok := strings.Cut(line, ":")
	body, want, ok2 := strings.Cut(rest, "->")
	if !ok || !ok2 {
		s.t.Fatalf("%s: not a line of a scenario", line)
	}
	o := parseOffer(s.t, body)
	env := ct.Seal(s.build(name, o), o.ints("sign")...)
	if got := s.offer(env, o.has("aged")); got != strings.TrimSpace(want) {
		s.t.Errorf("%s: got %s", line, got)
	}
}

func (s *scenario) offer(env candmap.Envelope, aged bool) string {
	var next *candmap.Verified
	var err error
	if s.held == nil {
		next, err = candmap.Genesis(env, env.Hash())
	} else {
		next, err = candmap.FollowAged(s.held, env, aged)
	}
	switch {
	case errors.Is(err, candmap.ErrKnown):
		return "known"
	case err != nil:
		if next != nil {
			s.t.Errorf("a map came with the error %v", err)
		}
		return string(cluster.CodeOf(err))
	}
	s.held = next
	return "ok"
}

func (s *scenario) build(name string, o offer) *candmap.Map {
	s.t.Helper()
	if again := o.get("again"); again != "" {
		return s.maps[again]
	}
	var m *candmap.Map
	switch {
	case s.held == nil:
		m = ct.Map(o.ints("voters")...)
	case o.has("from"):
		m = ct.Next(s.maps[o.get("from")])
	default:
		m = ct.Next(s.held.Map)
	}
	if o.has("voters") {
		ct.SetVoters(m, o.ints("voters")...)
	}
	for _, n := range o.ints("standby") {
		m.Candidates = append(m.Candidates, ct.Candidate(n, false))
	}
	if o.has("master") {
		m.Master = ct.NodeID(o.int("master"))
	}
	if t, keys, ok := strings.Cut(o.get("recovery"), ":"); ok {
		ct.SetRecovery(m, number(s.t, t), numbers(s.t, keys)...)
	}
	if o.has("epoch") {
		m.Epoch += uint64(o.int("epoch"))
	}
	if o.has("version") {
		m.Version = uint64(int(m.Version) - 1 + o.int("version"))
	}
	if o.has("lease") {
		m.LeaseSeconds = uint32(o.int("lease"))
	}
	if o.has("prev") {
		m.Previous = ct.Pin("previous", 1)
	}
	if o.has("cluster") {
		m.Cluster = ct.NodeID(99)
	}
	s.maps[name] = m
	return m
}

// offer is the words of one line.
type offer struct {
	t     *testing.T
	words map[string]string
}

func parseOffer(t *testing.T, body string) offer {
	o := offer{t, map[string]string{}}
	for _, w := range strings.Fields(body) {
		k, v, _ := strings.Cut(w, "=")
		o.words[k] = v
	}
	return o
}

func (o offer) has(k string) bool   { _, ok := o.words[k]; return ok }
func (o offer) get(k string) string { return o.words[k] }
func (o offer) ints(k string) []int { return numbers(o.t, o.words[k]) }
func (o offer) int(k string) int    { return number(o.t, o.words[k]) }
func numbers(t *testing.T, s string) (ns []int) {
	for f := range strings.SplitSeq(s, ",") {
		if f != "" {
			ns = append(ns, number(t, f))
		}
	}
	return ns
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("scenario: %v", err)
	}
	return n
}
