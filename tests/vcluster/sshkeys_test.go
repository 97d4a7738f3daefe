package vcluster

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/masterd/state"
)

// held lists the blobs of the SSH keys whose private halves lie on the node.
func (n *Node) held() (keys []string) {
	for _, f := range []string{n.at.SSHKey(), n.at.SSHKey() + ".next"} {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if k, err := ssh.ParsePrivateKey(text); err == nil && !slices.Contains(keys, string(k.PublicKey().Marshal())) { // it may have both names
			keys = append(keys, string(k.PublicKey().Marshal()))
		}
	}
	return keys
}

// keyWatch looks at every node after whatever happened: the current master's key
// opens every fresh node that it reaches, and what a node held that is no
// candidate opens none.
type keyWatch struct {
	c     *Cluster
	apart map[*Node]bool // cut off from the master
	ever  map[*Node]map[string]bool
	over  chan struct{}
	ended sync.WaitGroup
}

const watchStep = 5 * time.Millisecond

func (c *Cluster) watchKeys() *keyWatch {
	w := &keyWatch{c: c, apart: map[*Node]bool{}, ever: map[*Node]map[string]bool{}, over: make(chan struct{})}
	w.ended.Go(func() {
		for {
			select {
			case <-w.over:
				return
			case <-time.After(watchStep):
			}
			w.look()
		}
	})
	return w
}

func (w *keyWatch) stop() {
	close(w.over)
	w.ended.Wait()
}

func (w *keyWatch) look() {
	synctest.Wait() // until nothing is on its way but what waits for time
	master, err := w.c.one()
	if err != nil {
		return
	}
	st, err := master.Masterd().State()
	if err != nil {
		return
	}
	for _, n := range w.c.Up() {
		w.note(n)
	}
	for _, n := range w.c.Up() {
		if in := st.Node(n.ID); in == nil || in.Flags.Offline || w.apart[n] {
			continue
		}
		w.judge(st, master, n)
	}
}

func (w *keyWatch) note(n *Node) {
	if w.ever[n] == nil {
		w.ever[n] = map[string]bool{}
	}
	for _, k := range n.held() {
		w.ever[n][k] = true
	}
}

func (w *keyWatch) judge(st *state.State, master, n *Node) {
	v, err := n.View()
	if err != nil || !v.Fresh {
		return
	}
	open, err := n.Authorized()
	if err != nil {
		w.c.t.Error(err)
		return
	}
	if st.Params.SSHSetup && len(open) > 0 && !slices.ContainsFunc(master.held(), func(k string) bool { return slices.Contains(open, k) }) {
		w.c.t.Errorf("at %v: no key of the master's opens %s", w.c.Now(), n.Short())
	}
	if idle(st) != nil {
		return // a job that takes a role away has not succeeded yet
	}
	for former, keys := range w.ever {
		if in := st.Node(former.ID); in != nil && in.Flags.MasterCandidate {
			continue
		}
		for k := range keys {
			if slices.Contains(open, k) {
				w.c.t.Errorf("at %v: what %s held opens %s", w.c.Now(), former.Short(), n.Short())
			}
		}
	}
}

// ssh is a change of how SSH keys are handled.
func sshChange(ch Change) Change {
	ch.ID = jobs.OpClusterSet
	return ch
}

var sshChanges = []Change{
	sshChange(Change{KeyMode: cluster.KeyShared}), sshChange(Change{KeyType: "ecdsa"}), sshChange(Change{KeyMode: cluster.KeyPerCandidate}),
	sshChange(Change{KeyType: "ed25519", KeyMode: cluster.KeyShared}), sshChange(Change{SSHSetup: new(false)}), sshChange(Change{SSHSetup: new(true)}),
	sshChange(Change{KeyMode: cluster.KeyPerCandidate}),
}

// TestG4KeysChangeQuietly: no change of the keys, no loss of a role and no
// promotion among them locks the master out or lets a normal node in.
func TestG4KeysChangeQuietly(t *testing.T) {
	Run(t, 5, Options{}, func(t *testing.T, c *Cluster) {
		w := c.watchKeys()
		defer w.stop()
		for i, ch := range sshChanges {
			c.Must(ch)
			c.Settle()
			target := c.Node(2 + i%4)
			if c.Master() == target {
				continue
			}
			c.Must(Candidate(target, true))
			c.Must(Candidate(target, false))
			c.Settle()
		}
	})
}

// TestG7KeysChangeAndCrash kills the master, or cuts a candidate off, at every
// moment of a change. The keys end as they were to be.
func TestG7KeysChangeAndCrash(t *testing.T) {
	for i, ch := range sshChanges[:4] {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
				for _, before := range sshChanges[:i] {
					c.Must(before)
				}
				for k := range 6 {
					c.Settle()
					w := c.watchKeys()
					master := c.Master()
					id, err := c.SubmitTo(master, ch)
					c.must(err)
					c.Pass(time.Duration(k) * step)
					if k%2 == 0 {
						master.Restart()
					} else {
						other := c.other()
						w.apart[other] = true
						c.Partition(other)
						c.Pass(time.Second)
						c.Heal()
					}
					c.Job(id)
					w.stop()
					c.Settle()
					c.Await(5*time.Minute, c.sameKeys)
					if i > 0 {
						c.Must(sshChanges[i-1])
					} else {
						c.Must(sshChange(Change{KeyMode: cluster.KeyPerCandidate}))
					}
				}
			})
		})
	}
}

// sameKeys returns nil if every candidate holds exactly what the map lists.
func (c *Cluster) sameKeys() error {
	st, err := c.State()
	if err != nil {
		return err
	}
	for _, e := range st.HeadMap().Candidates {
		held := c.ByID(e.UUID).held()
		if len(held) != len(e.SSH) || len(held) == 1 && !bytes.Equal([]byte(held[0]), e.SSH[0].Blob) {
			return fmt.Errorf("%s holds %d keys, and the map lists %d, or others", e.Name, len(held), len(e.SSH))
		}
	}
	return nil
}
