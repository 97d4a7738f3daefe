// Package verify checks that the cluster is what the replicated state says:
// every node enforces the newest map, certificates and keys are where they
// belong and nowhere else, and candidates can really log in to the nodes.
//
// It asks all nodes in parallel and changes nothing. Its report has Ganeti's
// sections, line formats and error codes. Run may be called concurrently.
package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/hooks"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// Nodes asks nodes on behalf of the master.
type Nodes interface {
	State(ctx context.Context, node cluster.NodeID) (rpc.NodeState, error)
	Facts(ctx context.Context, node cluster.NodeID, r rpc.FactsRequest) (rpc.NodeFacts, error)
	SSHProbe(ctx context.Context, node cluster.NodeID, r rpc.SSHProbeRequest) (rpc.SSHProbeReply, error)
	Prober
}

// Asker is Nodes, and the administrator's scripts on them.
type Asker interface {
	Nodes
	// Hooks runs them; little time is lost with nodes that are away.
	Hooks(ctx context.Context, away func(cluster.NodeID) bool) hooks.Report
	Voting(ctx context.Context) roles.View
}

// Times of the checks.
const (
	askTimeout  = 5 * time.Second
	maxSkew     = 2 * time.Second
	certWarning = 30 * 24 * time.Hour
	certError   = 7 * 24 * time.Hour
)

// options are the fields of the opcode.
type options struct {
	ErrorCodes   bool     `json:"error_codes"`
	IgnoreErrors []string `json:"ignore_errors"`
	Verbose      bool     `json:"verbose"`
	Remedies     bool     `json:"remedies"` // say after each finding what to do
	AllPairs     bool     `json:"all_pairs"`
}

// check is one run of verify.
type check struct {
	ask   Asker
	s     *state.State
	held  *candmap.Verified // what this run compares with
	view  View
	opts  options
	out   func(line string)
	clock func() time.Time
	now   time.Time // when the nodes were asked

	findings []*Finding
	untold   *Finding       // whose remedy is still to be told
	told     map[string]int // findings, by severity and object
	id       string         // under which nodes audit what this run attempts
	count    counted
	shut     []string // nodes into which nobody can log in

	answers map[cluster.NodeID]rpc.NodeState
	asked   map[cluster.NodeID]span

	closed    map[cluster.NodeID]bool // a candidate could not log in there
	mute      muted                   // where sshd did not even answer a candidate
	estranged map[cluster.NodeID]bool // told of: as it is, others do not hear its masterd
	keyless   map[cluster.NodeID]bool // told of: it has no SSH key to log in with
}

// span is when a node was asked, and when it had answered.
type span struct{ sent, got time.Time }

// View returns the replicated state and the newest published map.
type View func() (*state.State, *candmap.Verified)

// A change that is on its way is no fault: nodes that hold another map than
// the newest are asked again.
const (
	settleTries = 5
	settlePause = 200 * time.Millisecond
)

// Run verifies the cluster, tells the report line by line, and returns what it
// found.
func Run(ctx context.Context, ask Asker, view View, op json.RawMessage, now func() time.Time, tell func(line string)) (Report, error) {
	c := &check{ask: ask, view: view, clock: now, out: tell, id: rpc.NewRequestID(), told: map[string]int{}}
	for _, m := range []*map[cluster.NodeID]bool{&c.closed, &c.estranged, &c.keyless} {
		*m = map[cluster.NodeID]bool{}
	}
	c.look()
	if err := json.Unmarshal(op, &c.opts); err != nil {
		return Report{}, &roles.PrereqError{Class: roles.WrongInput, Msg: "The opcode is not readable"}
	}
	if err := checkCodes(c.opts.IgnoreErrors); err != nil {
		return Report{}, err
	}
	c.config(ctx)
	c.authority()
	c.gather(ctx)
	trying, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	a := c.begin(trying)
	c.consistency(ctx)
	c.voting(ctx)
	c.status()
	c.end(trying, a)
	c.logins(a)
	c.refusals(a)
	c.address()
	c.notes()
	c.hooks(ctx)
	c.leftOut()
	c.summary()
	return Report{Findings: c.findings, codes: c.opts.ErrorCodes}, ctx.Err()
}

// consistency compares what nodes hold with what the state says.
func (c *check) consistency(ctx context.Context) {
	c.section("Verifying configuration file consistency")
	c.maps()
	c.certificates()
	c.keys()
	c.facts(ctx)
	c.hostKeys()
}

func (c *check) section(format string, args ...any) { c.tell("* " + fmt.Sprintf(format, args...)) }

// report tells an error, or a warning when its code is to be ignored.
func (c *check) report(code, kind, name, format string, args ...any) *Finding {
	severity := "ERROR"
	if slices.Contains(c.opts.IgnoreErrors, code) {
		severity = "WARNING"
	}
	return c.found(severity, code, kind, name, fmt.Sprintf(format, args...))
}

func (c *check) line(severity, code, kind, name, text string) *Finding {
	return c.found(severity, code, kind, name, text)
}

func (c *check) node(n *state.Node, code, format string, args ...any) *Finding {
	return c.report(code, "node", string(n.Name), format, args...)
}

// config checks the replicated state against itself and against the map.
func (c *check) config(ctx context.Context) {
	c.section("Verifying cluster config")
	c.published(ctx)
	if c.s.Role(c.s.Master) != cluster.RoleMaster || c.s.Node(c.s.Master) == nil || !c.s.Node(c.s.Master).Flags.MasterCandidate {
		c.report(CodeClusterConfig, "cluster", "", "Master node is not a master candidate").
			cure(RepairNone, "gnt-cluster master-failover --to NODE, a master candidate")
	}
	if p := roles.Pool(c.s); p.Now < p.Should {
		c.report(CodeClusterConfig, "cluster", "", "Not enough master candidates: actual %d, target %d", p.Now, p.Should).
			cure(RepairPool, "gnt-cluster verify --repair; or: gnt-node modify -C yes NODE")
	}
	if head := c.s.Head(); head.Hash != c.held.Hash {
		c.report(CodeClusterConfig, "cluster", "", "The newest committed candidate map is %s, the newest published one is %s", head.Version, c.held.At()).
			cure(RepairPush, "gnt-cluster redist-conf")
	}
	for _, n := range c.s.SortedNodes() {
		if !n.Flags.Valid() {
			c.report(CodeClusterConfig, "node", string(n.Name), "Node %s state is invalid: master_candidate=%t, drain=%t, offline=%t", n.Name, n.Flags.MasterCandidate, n.Flags.Drained, n.Flags.Offline).
				cure(RepairNone, "gnt-node modify -D no -O no %s", n.Name)
		}
	}
}

// published waits a moment until the newest committed map is published, too.
func (c *check) published(ctx context.Context) {
	for try := 0; c.s.Head().Hash != c.held.Hash && try < settleTries; try++ {
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return
		}
		c.look()
	}
}

// look takes the state and the map that are newest now.
func (c *check) look() { c.s, c.held = c.view() }

// gather asks every node that is not offline, all at once, until all that
// answer hold the newest map or it is clear that they do not.
func (c *check) gather(ctx context.Context) {
	c.section("Gathering data (%d nodes)", len(c.online()))
	failed := map[cluster.NodeID]error{}
	for try := 0; ; try++ {
		c.look()
		c.now = c.clock()
		failed = c.askAll(ctx, failed)
		if try == settleTries || c.level() && !slices.ContainsFunc(slices.Collect(maps.Values(failed)), stale) {
			break
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return
		}
	}
	for _, n := range c.online() {
		if err := failed[n.UUID]; err != nil {
			c.silent(n, err)
		}
	}
}

// silent reports a node that does not answer, or in whose place another one does.
func (c *check) silent(n *state.Node, err error) {
	if stale(err) {
		c.staleMap(n)
		return
	}
	if cluster.CodeOf(err) == cluster.CodeNoMap {
		c.node(n, CodeNodeMap, "holds no candidate map, and so serves nobody: %v", err).
			cure(RepairNone, "on %s, as root: noded trust %s", n.Name, c.held.Hash)
		return
	}
	f := c.node(n, CodeNodeRPC, "while contacting node: %v", err)
	if cluster.CodeOf(err) == cluster.CodeIdentityMismatch {
		f.cure(RepairNone, "if the files of %s were restored from a backup: gnt-node add --readd %s; if not, another machine answers at its address", n.Name, n.Name)
	}
}

// stale reports whether a node refused because it has heard no beacon in time:
// one that was just started hears one at once.
func stale(err error) bool { return cluster.CodeOf(err) == cluster.CodeMapStale }

// level reports whether every answer is by the newest map.
func (c *check) level() bool {
	for _, a := range c.answers {
		if a.Version != c.held.At() {
			return false
		}
	}
	return true
}

// silence is why a node is not asked again: that would take as long once more.
type silence struct{ error }

// askAll fills answers and returns why others did not answer.
func (c *check) askAll(ctx context.Context, before map[cluster.NodeID]error) map[cluster.NodeID]error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	c.answers, c.asked = map[cluster.NodeID]rpc.NodeState{}, map[cluster.NodeID]span{}
	failed := map[cluster.NodeID]error{}
	for _, n := range c.online() {
		if err, silent := before[n.UUID].(silence); silent { //nolint:errorlint // never wrapped
			failed[n.UUID] = err
			continue
		}
		wg.Go(func() {
			began, sent := time.Now(), c.clock()
			a, err := c.ask.State(ctx, n.UUID)
			got := c.clock()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				c.answers[n.UUID], c.asked[n.UUID] = a, span{sent, got}
			case time.Since(began) >= unanswered:
				failed[n.UUID] = silence{err}
			default:
				failed[n.UUID] = err
			}
		})
	}
	wg.Wait()
	return failed
}

func (c *check) online() []*state.Node {
	return slices.DeleteFunc(c.s.SortedNodes(), func(n *state.Node) bool { return n.Flags.Offline })
}

// answered calls f for each node that answered.
func (c *check) answered(f func(n *state.Node, a rpc.NodeState)) {
	for _, n := range c.online() {
		if a, ok := c.answers[n.UUID]; ok {
			f(n, a)
		}
	}
}

// notes counts who was left out.
func (c *check) notes() {
	c.section("Other Notes")
	var offline, drained int
	for _, n := range c.s.SortedNodes() {
		if n.Flags.Offline {
			offline++
		}
		if n.Flags.Drained {
			drained++
		}
	}
	if offline > 0 {
		c.tell(fmt.Sprintf("  - NOTICE: %d offline node(s) found.", offline))
	}
	if drained > 0 {
		c.tell(fmt.Sprintf("  - NOTICE: %d drained node(s) found.", drained))
	}
	c.open()
	if c.s.Params.SSHReach == cluster.ReachCandidates && c.s.Params.SSHSetup {
		c.tell("  - NOTICE: the SSH key of every master candidate opens every node (ssh_reach=candidates).")
	}
	if c.s.Params.Policy == cluster.PolicyBestEffort {
		c.tell("  - NOTICE: nodes without news serve on (policy best_effort): revocation has no bound for a node that cannot be reached.")
	}
}
