package verify

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rolekey/cluster"
)

// TestScheduleKeepsItsBounds: every attempt is made once, never more at once
// than a sshd bears, and as many as the bounds allow.
func TestScheduleKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		nodes, sources := rapid.IntRange(1, 12).Draw(r, "nodes"), rapid.IntRange(1, 5).Draw(r, "sources")
		id := func(i int) cluster.NodeID { return cluster.NodeID{byte(i + 1)} }
		var mu sync.Mutex
		from, to, made := map[cluster.NodeID]int{}, map[cluster.NodeID]int{}, map[string]int{}
		most := 0
		var list []attempt
		for s := range sources {
			for n := range nodes {
				if s == n {
					continue
				}
				a := attempt{from: id(s), to: id(n), skip: func(string) { r.Errorf("skipped") }}
				a.run = func() verdict {
					mu.Lock()
					from[a.from]++
					to[a.to]++
					made[fmt.Sprint(s, n)]++
					most = max(most, to[a.to])
					if from[a.from] > atOnceFrom || to[a.to] > atOnceTo {
						r.Errorf("%d from one, %d to one", from[a.from], to[a.to])
					}
					mu.Unlock()
					mu.Lock()
					defer mu.Unlock()
					from[a.from]--
					to[a.to]--
					return verdict{}
				}
				list = append(list, a)
			}
		}
		schedule(list)
		for what, n := range made {
			if n != 1 {
				r.Errorf("%s is made %d times", what, n)
			}
		}
		if len(made) != len(list) {
			r.Errorf("%d of %d are made", len(made), len(list))
		}
	})
}

// TestScheduleIsParallel: what could run side by side does.
func TestScheduleIsParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list []attempt
		for i := range 2 {
			for j := range 20 {
				list = append(list, attempt{
					from: cluster.NodeID{byte(i + 1)}, to: cluster.NodeID{byte(j + 10)},
					run: func() verdict { time.Sleep(time.Second); return verdict{} },
				})
			}
		}
		began := time.Now()
		schedule(list)
		if took := time.Since(began); took != 3*time.Second { // 20 targets, 8 at once
			t.Errorf("took %s", took)
		}
	})
}

// TestScheduleGivesUp: nobody waits a second time for who does not answer.
func TestScheduleGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var list []attempt
		skipped := 0
		for i := range 9 {
			for j := range 3 {
				list = append(list, attempt{
					from: cluster.NodeID{byte(i + 1)}, to: cluster.NodeID{byte(j + 100)},
					run: func() verdict {
						if j != 1 {
							return verdict{}
						}
						time.Sleep(askTimeout)
						return verdict{toGone: noAnswer}
					},
					skip: func(why string) {
						if why != noAnswer || j != 1 {
							t.Errorf("%d to %d is skipped: %s", i, j, why)
						}
						skipped++
					},
				})
			}
		}
		began := time.Now()
		schedule(list)
		if took := time.Since(began); took != askTimeout || skipped != 9-atOnceTo {
			t.Errorf("took %s, %d skipped", took, skipped)
		}
	})
}

// TestScheduleKeepsKindsApart: what must not work holds up nothing that must, and
// whoever does not answer to the one is still asked by the other.
func TestScheduleKeepsKindsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var list []attempt
		var mu sync.Mutex
		made := [kinds]int{}
		for _, k := range []kind{proper, improper} {
			for i := range 6 {
				list = append(list, attempt{
					kind: k, from: cluster.NodeID{byte(k), byte(i + 1)}, to: cluster.NodeID{9},
					run: func() verdict {
						mu.Lock()
						if made[k]++; k == improper && made[proper] != 6 {
							t.Errorf("an attempt that must fail is made before %d that must not", 6-made[proper])
						}
						mu.Unlock()
						time.Sleep(time.Second)
						if k == improper {
							return verdict{toGone: noAnswer}
						}
						return verdict{}
					},
					skip: func(string) {
						if k == proper {
							t.Error("skipped because of others")
						}
					},
				})
			}
		}
		schedule(list)
		if took := time.Since(began); made != [kinds]int{6, atOnceTo} || took != 4*time.Second {
			t.Errorf("%v in %s", made, took)
		}
	})
}
