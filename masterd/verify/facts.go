package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// facts asks the nodes that answered for what is on their disks and around
// them, and checks it. A node of an earlier release does not know the question.
func (c *check) facts(ctx context.Context) {
	found := c.settledFacts(ctx)
	c.answered(func(n *state.Node, a rpc.NodeState) {
		f, ok := found[n.UUID]
		if !ok {
			return
		}
		for _, m := range f.Modes {
			f := c.node(n, CodeNodeFileCheck, "%s", m)
			if f.cure(RepairNode, "gnt-cluster verify --repair"); strings.HasSuffix(m, rpc.SymbolicLink) {
				f.cure(RepairNone, "on %s: move the file itself, belonging to root with mode 0600, in the place of the link", n.Name) // noded follows none
			}
		}
		for _, u := range f.Unsaved {
			c.node(n, CodeNodeMap, "follows its candidate map, and cannot save it: %s: after a restart it begins with an older one", u).
				cure(RepairNone, "on %s: make room for /var/lib/rolekey, or mount its disk writable (df, dmesg); noded there then saves it by itself", n.Name)
		}
		for _, d := range f.Derived {
			if c.keyless[n.UUID] {
				break // ssh's configuration names its key
			}
			c.node(n, CodeNodeSSH, "%s", d).cure(RepairNode, "gnt-cluster verify --repair")
		}
		c.copies(n, f)
		if len(f.Unsearched) > 0 {
			c.tell(fmt.Sprintf("  - NOTICE: node %s: too many files to search all of them for private keys: %s.", n.Name, plain(strings.Join(f.Unsearched, ", "))))
		}
		c.neighbours(n, f)
	})
	c.files(found)
}

// Nodes write derived files soon after they enforce a map: files that differ are
// looked at again.
const (
	filesTries = 4
	filesPause = 300 * time.Millisecond
)

// settledFacts asks until the nodes' files are alike, or it is clear that they
// are not.
func (c *check) settledFacts(ctx context.Context) map[cluster.NodeID]rpc.NodeFacts {
	for try := 1; ; try++ {
		found, failed := c.askFacts(ctx)
		if try == filesTries || alike(found) && !slices.ContainsFunc(slices.Collect(maps.Values(found)), derivedDiffers) {
			c.tellFailed(failed)
			return found
		}
		select {
		case <-time.After(filesPause):
		case <-ctx.Done():
			return found
		}
	}
}

// derivedDiffers reports that a file of ssh is not as it should be: noded may be
// about to put it right.
func derivedDiffers(f rpc.NodeFacts) bool { return len(f.Derived) > 0 }

func alike(found map[cluster.NodeID]rpc.NodeFacts) bool {
	var first map[string]cluster.Digest
	for _, f := range found {
		if first == nil {
			first = f.Files
		}
		if !maps.Equal(first, f.Files) {
			return false
		}
	}
	return true
}

func (c *check) askFacts(ctx context.Context) (map[cluster.NodeID]rpc.NodeFacts, map[cluster.NodeID]error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := rpc.FactsRequest{Keys: []cluster.SSHKey{}}
	for _, e := range c.held.Candidates {
		for _, k := range e.SSH {
			if !hasKey(req.Keys, k) {
				req.Keys = append(req.Keys, k)
			}
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	found, failed := map[cluster.NodeID]rpc.NodeFacts{}, map[cluster.NodeID]error{}
	c.answered(func(n *state.Node, _ rpc.NodeState) {
		wg.Go(func() {
			f, err := c.ask.Facts(ctx, n.UUID, req)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[n.UUID] = err
				return
			}
			f.Files = derived(f)
			found[n.UUID] = f
		})
	})
	wg.Wait()
	return found, failed
}

func (c *check) tellFailed(failed map[cluster.NodeID]error) {
	c.answered(func(n *state.Node, _ rpc.NodeState) {
		switch err := failed[n.UUID]; {
		case err == nil:
		case cluster.CodeOf(err) == cluster.CodeNotFound:
			c.line("WARNING", CodeNodeVersion, "node", string(n.Name), "its release does not tell of its files; upgrade it")
		default:
			c.node(n, CodeNodeRPC, "while asking for its files: %v", err)
		}
	})
}

// copies reports root's private keys that lie where nobody but somebody's cp
// could have put them.
func (c *check) copies(n *state.Node, f rpc.NodeFacts) {
	for _, k := range f.Copies {
		owner := "a master candidate"
		for _, e := range c.held.Candidates {
			if hasKey(e.SSH, k.Key) {
				owner = string(e.Name)
			}
		}
		f := c.node(n, CodeNodeKey, "A copy of the private SSH key of %s (%s) lies in %s: remove it, and replace the key with 'gnt-cluster renew-crypto --new-ssh-keys'", owner, sshkeys.Fingerprint(k.Key), k.Path)
		if slices.Contains(c.answers[n.UUID].KeyFiles, k.Path) { // where noded destroys it
			f.cure(RepairKeys, "gnt-cluster verify --repair")
			f.then("gnt-cluster renew-crypto --new-ssh-keys, since whoever put the key there may have it")
			continue
		}
		f.cure(RepairNone, "on %s: shred -u %s; on the master: gnt-cluster renew-crypto --new-ssh-keys", n.Name, shellWord(k.Path))
	}
}

// neighbours compares whom gossip reaches with the nodes that answer. Gossip
// carries nothing that the master does not send too, so this is a warning.
func (c *check) neighbours(n *state.Node, f rpc.NodeFacts) {
	var missing []string
	c.answered(func(o *state.Node, _ rpc.NodeState) {
		if o.Joined && !slices.Contains(f.Gossip, o.UUID) {
			missing = append(missing, string(o.Name))
		}
	})
	if len(missing) > 0 {
		c.line("WARNING", CodeNodeNet, "node", string(n.Name), fmt.Sprintf("gossip does not reach %s: is port %d open between them, tcp and udp?", some(missing), n.Ports.Gossip)).
			cure(RepairNone, "open port %d, tcp and udp, between %s and %s", n.Ports.Gossip, n.Name, some(missing))
	}
}

// files compares the files that are the same on all nodes.
func (c *check) files(found map[cluster.NodeID]rpc.NodeFacts) {
	names := map[string]bool{}
	for _, f := range found {
		for name := range f.Files {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c.file(name, found)
	}
}

// file reports a file in Ganeti's words.
func (c *check) file(name string, found map[cluster.NodeID]rpc.NodeFacts) {
	var missing []string
	holders := map[cluster.Digest][]string{}
	c.answered(func(n *state.Node, a rpc.NodeState) {
		f, ok := found[n.UUID]
		if !ok || a.Version != c.held.At() {
			return // it has another map, which is reported, and so other files
		}
		if d, ok := f.Files[name]; ok {
			holders[d] = append(holders[d], string(n.Name))
		} else {
			missing = append(missing, string(n.Name))
		}
	})
	if len(missing) > 0 {
		c.report(CodeClusterFileCheck, "cluster", "", "File %s is missing from node(s) %s", name, some(missing)).cure(RepairPush, "gnt-cluster redist-conf")
	}
	if len(holders) < 2 {
		return
	}
	variants := make([]string, 0, len(holders))
	for _, d := range slices.SortedFunc(maps.Keys(holders), func(a, b cluster.Digest) int {
		return strings.Compare(holders[a][0], holders[b][0])
	}) {
		variants = append(variants, fmt.Sprintf("variant %d on %s", len(variants)+1, some(holders[d])))
	}
	c.report(CodeClusterFileCheck, "cluster", "", "File %s found with %d different checksums (%s)", name, len(holders), strings.Join(variants, "; ")).cure(RepairPush, "gnt-cluster redist-conf")
}

// software tells of releases that differ: a roll-out is not finished.
func (c *check) software() {
	master, ok := c.answers[c.s.Master]
	if !ok {
		return
	}
	c.answered(func(n *state.Node, a rpc.NodeState) {
		if a.Software != master.Software {
			c.line("WARNING", CodeNodeVersion, "node", string(n.Name), fmt.Sprintf("software version mismatch: master %s, node %s", master.Software, a.Software))
		}
	})
}

// voting compares raft's members with the map's.
func (c *check) voting(ctx context.Context) {
	c.section("Verifying voters")
	v := c.settledVoting(ctx)
	for _, id := range v.MapVoters {
		if !slices.Contains(v.RaftVoters, id) {
			c.report(CodeClusterConfig, "node", c.name(id), "The candidate map names it a voter, and raft does not")
		}
	}
	for _, id := range v.RaftVoters {
		if !slices.Contains(v.MapVoters, id) {
			c.line("WARNING", CodeClusterConfig, "node", c.name(id), "it votes in raft and not in the candidate map yet: a change of voters is under way, or was interrupted")
		}
	}
	members := append(slices.Clone(v.RaftVoters), v.RaftNonvoters...)
	for _, id := range v.Candidates {
		switch {
		case !slices.Contains(members, id):
			c.report(CodeClusterConfig, "node", c.name(id), "It is a master candidate, and no member of raft: it receives no changes")
		case c.estranged[id]: // told, with what to do
		case !v.Reachable(id):
			c.line("WARNING", CodeClusterConfig, "node", c.name(id), "its master daemon has not answered lately").
				cure(RepairNone, "on %s: systemctl restart rolekey-masterd", c.name(id))
		case slices.Contains(v.RaftNonvoters, id) && !v.CaughtUp(id):
			c.line("WARNING", CodeClusterConfig, "node", c.name(id), "its copy of the log is behind")
		}
	}
	for _, id := range members {
		if !slices.Contains(v.Candidates, id) {
			c.report(CodeClusterConfig, "node", c.name(id), "It is a member of raft, and no master candidate")
		}
	}
	if len(v.MapVoters) == 1 && len(v.Candidates) > 1 {
		c.tell("  - NOTICE: one node alone votes: if it is lost, only the recovery key makes another one master.")
	}
}

// Raft's members follow the map in the background, for so long at most.
const (
	votingTries = 15
	votingPause = 200 * time.Millisecond
)

// settledVoting waits a moment for a change of members that is under way.
func (c *check) settledVoting(ctx context.Context) roles.View {
	for try := 1; ; try++ {
		v := c.ask.Voting(ctx)
		members := append(slices.Clone(v.RaftVoters), v.RaftNonvoters...)
		behind := slices.ContainsFunc(v.Candidates, func(id cluster.NodeID) bool {
			_, heard := c.answers[id] // nobody waits for a node that is down
			return heard && !c.estranged[id] && id != v.Leader && (!v.Reachable(id) || !v.CaughtUp(id))
		})
		if try == votingTries || !behind && sameSet(v.MapVoters, v.RaftVoters) && sameSet(v.Candidates, members) {
			return v
		}
		select {
		case <-time.After(votingPause):
		case <-ctx.Done():
			return v
		}
	}
}

func sameSet(a, b []cluster.NodeID) bool {
	all := func(of, in []cluster.NodeID) bool {
		return !slices.ContainsFunc(of, func(id cluster.NodeID) bool { return !slices.Contains(in, id) })
	}
	return all(a, b) && all(b, a)
}

func (c *check) name(id cluster.NodeID) string {
	if n := c.s.Node(id); n != nil {
		return string(n.Name)
	}
	return id.String()
}

// open tells of strings by which machines can still join.
func (c *check) open() {
	for _, r := range c.s.LiveAdmissions(c.now) {
		c.tell(fmt.Sprintf("  - NOTICE: an admission string for %s is open until %s ('gnt-node tokens list').", r.Name, r.Expires.UTC().Format(time.RFC3339)))
	}
}
