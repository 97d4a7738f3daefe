package consensus

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func TestFoundThenNewLeadsWithThatState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := founded(t, newLAN())
		first := statetest.New(t).S
		if got := b.node.State().Head(); got.Hash != first.Head().Hash {
			t.Errorf("head is %s, want that of the founded state, %s", got.Version, first.Head().Version)
		}
		if got := b.node.State().CA.Key.Reveal(); !bytes.Equal(got, statetest.CAKey) {
			t.Error("the CA key did not survive the founding")
		}
		if err := Found(b.id, b.disk, b.snaps, first); err == nil {
			t.Error("a cluster was founded over another one")
		}
		b.kill()
		b.start() // from the disk alone
		until(t, 10*time.Second, "it leads again", b.node.Leads)
		if got := b.node.State().Head(); got.Hash != first.Head().Hash {
			t.Error("after a restart the state is another")
		}
	})
}

func TestProposeReachesEveryNode(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		lead := boxes[0]
		for i := 10; i < 15; i++ {
			if _, err := lead.admission(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		result, err := lead.node.Propose(t.Context(), state.KindParamsChange,
			state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(uint32(60))}}, meta())
		if err != nil {
			t.Fatal(err)
		}
		if want := (cluster.Version{Epoch: 1, Version: 2}); result.Version != want {
			t.Errorf("the change made map %s, want %s", result.Version, want)
		}
		if err := lead.node.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, b := range boxes {
			until(t, 5*time.Second, "follower has applied", func() bool { return b.node.State().Head().Hash == result.Hash })
			if b.admissions() != 5 {
				t.Errorf("%s has %d admission records, want 5", b.id, b.admissions())
			}
			if b.node.Leader() != lead.id {
				t.Errorf("%s follows %q, want %s", b.id, b.node.Leader(), lead.id)
			}
		}
	})
}

// TestKickMakesFollowersApplyAtOnce is DESIGN 4.3: without it a follower
// learns of a commit with the next heartbeat only.
func TestKickMakesFollowersApplyAtOnce(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		time.Sleep(time.Second) // all is quiet
		start := time.Now()
		if _, err := boxes[0].admission(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		boxes[0].node.Kick()
		for _, b := range boxes {
			until(t, time.Second, "applied", func() bool { return b.admissions() == 1 })
		}
		if took := time.Since(start); took >= DefaultTiming.Commit/2 {
			t.Errorf("the followers applied after %s of virtual time, in which messages take none", took)
		}
	})
}

func TestProposeRefusesWhatDoesNotFit(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		last := boxes[0].node.LastIndex()
		_, err := boxes[0].node.Propose(t.Context(), state.KindSetMaster, state.SetMaster{Node: statetest.ID(99)}, meta())
		if cluster.CodeOf(err) != cluster.CodeConflict {
			t.Errorf("error %v, want a conflict", err)
		}
		if boxes[0].node.LastIndex() != last {
			t.Error("a refused command reached the log")
		}
		if _, err := boxes[1].admission(t.Context(), 10); cluster.CodeOf(err) != cluster.CodeNotMaster {
			t.Errorf("a follower's proposal: %v, want not_master", err)
		}
	})
}

// TestWatchTellsOfChanges also pins the order: whoever takes the channel
// before reading the state misses nothing.
func TestWatchTellsOfChanges(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		changed := boxes[2].node.Watch()
		if _, err := boxes[0].admission(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			t.Fatal("the follower's watch did not wake")
		}
		if boxes[2].admissions() != 1 {
			t.Error("woken before the state had changed")
		}
	})
}

func TestG7KilledLeaderIsReplaced(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		old := boxes[0]
		if _, err := old.admission(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		old.kill()
		next := leaderOf(t, boxes[1], boxes[2])
		if took := time.Since(killed); took > 5*time.Second {
			t.Errorf("replaced after %s", took)
		}
		if err := next.node.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if next.admissions() != 1 {
			t.Error("what was committed is lost")
		}
		if _, err := next.admission(t.Context(), 11); err != nil {
			t.Fatal(err)
		}
		old.start()
		until(t, 10*time.Second, "the old leader has caught up", func() bool { return old.admissions() == 2 })
	})
}

// TestStoppedLeaderIsReplaced cuts the leader off, as kill -STOP or a pulled
// cable does. Alone it commits nothing and says so.
func TestStoppedLeaderIsReplaced(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		old := boxes[0]
		old.lan.cutOff(old.id, true)
		_, err := old.admission(t.Context(), 10)
		if c := cluster.CodeOf(err); c != cluster.CodeNotMaster && c != cluster.CodeNoQuorum {
			t.Errorf("a proposal without a majority: %v", err)
		}
		until(t, 5*time.Second, "it steps down", func() bool { return !old.node.Leads() })
		next := leaderOf(t, boxes[1], boxes[2])
		if _, err := next.admission(t.Context(), 11); err != nil {
			t.Fatal(err)
		}
		term := next.node.Term()
		time.Sleep(time.Minute)
		old.lan.cutOff(old.id, false)
		until(t, 30*time.Second, "it follows", func() bool { return old.node.Leader() == next.id && old.admissions() == 1 })
		if next.node.Term() != term {
			t.Errorf("its return deposed the new leader: term %d became %d", term, next.node.Term())
		}
	})
}

// TestHungDiskOfLeaderIsReplaced: raft's heartbeats touch no disk, so that such
// a leader would lead for ever.
func TestHungDiskOfLeaderIsReplaced(t *testing.T) {
	for _, busy := range []bool{false, true} {
		cluster3(t, func(t *testing.T, boxes []*box) {
			old := boxes[0]
			release := old.disk.hang()
			hung := time.Now()
			proposed := make(chan error, 1)
			if busy {
				go func() {
					_, err := old.admission(t.Context(), 10)
					proposed <- err
				}()
			} else {
				proposed <- errors.New("not asked")
			}
			next := leaderOf(t, boxes[1], boxes[2])
			if took := time.Since(hung); took > 3*DefaultTiming.Hung {
				t.Errorf("replaced after %s", took)
			}
			select {
			case err := <-old.fatal:
				if !strings.Contains(err.Error(), "disk") {
					t.Errorf("the reason is %q", err)
				}
			case <-time.After(time.Minute):
				t.Error("the daemon with the hung disk is not told to end")
			}
			if _, err := next.admission(t.Context(), 11); err != nil {
				t.Fatal(err)
			}
			release()
			if err := <-proposed; err == nil {
				t.Error("the silenced leader reported a commit")
			}
		})
	}
}

// TestHungDiskOfFollowerDisturbsNobody: only a leader is silenced.
func TestHungDiskOfFollowerDisturbsNobody(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		release := boxes[2].disk.hang()
		defer release()
		for i := range 20 {
			if _, err := boxes[0].admission(t.Context(), 10+i); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if len(boxes[2].fatal) > 0 {
			t.Errorf("the follower was ended: %v", <-boxes[2].fatal)
		}
		release()
		until(t, 20*time.Second, "it catches up", func() bool { return boxes[2].admissions() == 20 })
	})
}

// TestCloseEndsProposals: nothing may wait for ever for a node that is gone.
func TestCloseEndsProposals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lead := founded(t, newLAN())
		other := grow(t, lead, 2)
		other.kill()
		done := make(chan error, 1)
		go func() {
			_, err := lead.admission(context.Background(), 10)
			done <- err
		}()
		synctest.Wait()
		lead.kill()
		if err := <-done; cluster.CodeOf(err) != cluster.CodeNotMaster && cluster.CodeOf(err) != cluster.CodeNoQuorum {
			t.Errorf("the proposal ended with %v", err)
		}
	})
}

// TestCloseForgetsNobody closes a node while its state machine is behind. Raft
// would leave those waiting for ever whose commands were about to be applied,
// and then the bubble would not end.
func TestCloseForgetsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lead := founded(t, newLAN())
		lead.node.fsm.mu.Lock()
		for i := range 12 {
			ctx, cancel := context.WithCancel(context.Background())
			last, proposed := lead.node.LastIndex(), make(chan error, 1)
			go func() {
				_, err := lead.admission(ctx, 10+i)
				proposed <- err
			}()
			for lead.node.LastIndex() == last {
				runtime.Gosched()
			}
			cancel() // whoever proposes does not wait for the end
			if err := <-proposed; err == nil {
				t.Fatal("a command was applied by a state machine that stands still")
			}
		}
		for lead.node.raft.Stats()["fsm_pending"] == "0" {
			runtime.Gosched()
		}
		done := make(chan error, 1)
		go func() { done <- lead.node.Close() }()
		for range 1000 {
			runtime.Gosched()
		}
		lead.node.fsm.mu.Unlock()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTransferHandsLeadershipOn(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		if err := boxes[0].node.VerifyLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := boxes[0].node.Transfer(t.Context(), boxes[1].id); err != nil {
			t.Fatal(err)
		}
		until(t, 10*time.Second, "the other leads", boxes[1].node.Leads)
		if err := boxes[0].node.VerifyLeader(t.Context()); cluster.CodeOf(err) != cluster.CodeNotMaster {
			t.Errorf("the former leader verifies: %v", err)
		}
	})
}

func TestMembership(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		lead := boxes[0].node
		check := func(want map[raft.ServerID]raft.ServerSuffrage) {
			t.Helper()
			servers, err := lead.Servers()
			if err != nil {
				t.Fatal(err)
			}
			got := map[raft.ServerID]raft.ServerSuffrage{}
			for _, s := range servers {
				got[s.ID] = s.Suffrage
				if s.Address != raft.ServerAddress(s.ID) {
					t.Errorf("address of %s is %s: the map says where it is", s.ID, s.Address)
				}
			}
			if len(got) != len(want) {
				t.Errorf("servers %v, want %v", got, want)
			}
			for id, s := range want {
				if got[id] != s {
					t.Errorf("%s is %s, want %s", id, got[id], s)
				}
			}
		}
		a, b, c := boxes[0].id, boxes[1].id, boxes[2].id
		check(map[raft.ServerID]raft.ServerSuffrage{a: raft.Voter, b: raft.Voter, c: raft.Voter})
		if err := lead.DemoteVoter(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		check(map[raft.ServerID]raft.ServerSuffrage{a: raft.Voter, b: raft.Voter, c: raft.Nonvoter})
		if err := lead.RemoveServer(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		check(map[raft.ServerID]raft.ServerSuffrage{a: raft.Voter, b: raft.Voter})
	})
}

// TestCaughtUpForgetsAFormerLife: a node that was demoted destroys its log, so
// what it confirmed before its return says nothing.
func TestCaughtUpForgetsAFormerLife(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		lead, third := boxes[0], boxes[2]
		for i := range 20 {
			if _, err := lead.admission(t.Context(), 10+i); err != nil {
				t.Fatal(err)
			}
		}
		until(t, 10*time.Second, "caught up", func() bool { return lead.node.CaughtUp(third.id) })
		if err := lead.node.RemoveServer(t.Context(), third.id); err != nil {
			t.Fatal(err)
		}
		third.kill()
		third.disk, third.snaps = newHangDisk(), raft.NewInmemSnapshotStore()
		lead.lan.cutOff(third.id, true)
		third.start()
		if err := lead.node.AddNonvoter(t.Context(), third.id); err != nil {
			t.Fatal(err)
		}
		if lead.node.CaughtUp(third.id) {
			t.Error("a server with an empty disk counts as caught up")
		}
		lead.lan.cutOff(third.id, false)
		until(t, 10*time.Second, "it is caught up in truth", func() bool { return lead.node.CaughtUp(third.id) })
		if third.admissions() == 0 {
			t.Error("caught up without the log")
		}
	})
}

// TestCaughtUpForgetsAFormerTerm is the same for a node that led before.
func TestCaughtUpForgetsAFormerTerm(t *testing.T) {
	cluster3(t, func(t *testing.T, boxes []*box) {
		a, b, third := boxes[0], boxes[1], boxes[2]
		if _, err := a.admission(t.Context(), 10); err != nil {
			t.Fatal(err)
		}
		until(t, 10*time.Second, "caught up", func() bool { return a.node.CaughtUp(third.id) })
		if err := a.node.Transfer(t.Context(), b.id); err != nil {
			t.Fatal(err)
		}
		until(t, 10*time.Second, "the other leads", b.node.Leads)
		third.lan.cutOff(third.id, true)
		if err := b.node.Transfer(t.Context(), a.id); err != nil {
			t.Fatal(err)
		}
		until(t, 10*time.Second, "it leads again", a.node.Leads)
		if a.node.CaughtUp(third.id) {
			t.Error("a server that has confirmed nothing in this term counts as caught up")
		}
		third.lan.cutOff(third.id, false)
		until(t, time.Minute, "it confirms", func() bool { return a.node.CaughtUp(third.id) })
	})
}
