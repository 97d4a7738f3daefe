package hooks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// Limit bounds a phase on all nodes: what scripts may take, and the way there
// and back.
const Limit = rpc.HookPhaseLimit + 2*time.Second

// A node that runs scripts is asked now and then whether it is still there: a
// machine that has just died must not cost the whole time of the phase.
const (
	pulsePause = 500 * time.Millisecond
	pulseLimit = 4 * time.Second
	// awayLimit is for a node that did not answer lately, to say that it is back.
	awayLimit = 300 * time.Millisecond
)

// Op is an operation for which there are hooks.
type Op struct {
	Hook  string            // such as rpc.HookNodeModify
	Code  string            // the opcode
	Vars  map[string]string // the operation's own variables, without GANETI_
	Nodes []cluster.NodeID  // where its scripts run
}

// Call is one phase of an operation.
type Call struct {
	Op
	Phase string
	After map[string]string // for the post phase: what holds now
	Idle  *Idle             // shared by the two phases of one operation; may be nil
}

// Idle knows the nodes that said in the pre phase that they have nothing to run
// in the post phase. So an operation without hooks costs one question.
type Idle struct {
	mu    sync.Mutex
	nodes map[cluster.NodeID]bool
}

func (i *Idle) add(id cluster.NodeID) {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.nodes == nil {
		i.nodes = map[cluster.NodeID]bool{}
	}
	i.nodes[id] = true
}

func (i *Idle) has(id cluster.NodeID) bool {
	if i == nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.nodes[id]
}

// Result is what became of one script on a node, or why the node was not asked.
type Result struct {
	Node cluster.Name
	rpc.HookResult
	Unasked string // instead of a result
}

// Report is what became of a phase, by node and script.
type Report []Result

// Asker has one node run scripts.
type Asker interface {
	Hooks(ctx context.Context, node cluster.NodeID, r rpc.HooksRequest) (rpc.HooksReply, error)
	// Pulse returns why a node does not answer at all, or nil.
	Pulse(ctx context.Context, node cluster.NodeID) error
}

// Run has the nodes run the scripts of a call. Away, which may be nil, tells
// which nodes did not answer lately: little time is lost with them.
func Run(ctx context.Context, ask Asker, s *state.State, c Call, away func(cluster.NodeID) bool) Report {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	req := request(s, c)
	parts := make([]Report, len(c.Nodes))
	var all sync.WaitGroup
	for i, id := range c.Nodes {
		n := s.Node(id)
		switch {
		case n == nil || n.Flags.Offline || slices.Contains(c.Nodes[:i], id):
		case c.Phase == rpc.HooksPost && c.Idle.has(id):
		default:
			all.Go(func() {
				if away != nil && away(id) && !back(ctx, ask, id) {
					parts[i] = Report{{Node: n.Name, Unasked: "it does not answer"}}
					return
				}
				parts[i] = one(ctx, ask, n, req, c.Idle)
			})
		}
	}
	all.Wait()
	return slices.Concat(parts...)
}

func back(ctx context.Context, ask Asker, node cluster.NodeID) bool {
	ctx, cancel := context.WithTimeout(ctx, awayLimit)
	defer cancel()
	return ask.Pulse(ctx, node) == nil
}

// request adds the variables that all hooks have.
func request(s *state.State, c Call) rpc.HooksRequest {
	r := rpc.HooksRequest{Hook: c.Hook, Phase: c.Phase, Vars: maps.Clone(c.Vars)}
	if r.Vars == nil {
		r.Vars = map[string]string{}
	}
	r.Vars["CLUSTER"], r.Vars["OP_CODE"] = string(s.Cluster.Name), c.Code
	if n := s.Node(s.Master); n != nil {
		r.Vars["MASTER"] = string(n.Name)
	}
	for name, value := range c.After {
		r.Vars["POST_"+name] = value
	}
	return r
}

// watched makes the call of one node, and gives it up when the node is dead.
func watched(ctx context.Context, ask Asker, node cluster.NodeID, req rpc.HooksRequest) (reply rpc.HooksReply, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	watch.Go(func() {
		for {
			select {
			case <-time.After(pulsePause):
			case <-ctx.Done():
				return
			}
			beat, stop := context.WithTimeout(ctx, pulseLimit)
			err := ask.Pulse(beat, node)
			stop()
			if err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("it does not answer: %w", err))
				return
			}
		}
	})
	reply, err = ask.Hooks(ctx, node, req)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return reply, err
}

func one(ctx context.Context, ask Asker, n *state.Node, req rpc.HooksRequest, idle *Idle) Report {
	reply, err := watched(ctx, ask, n.UUID, req)
	if err == nil && reply.NoPost {
		idle.add(n.UUID)
	}
	switch {
	case cluster.CodeOf(err) == cluster.CodeNotFound:
		return nil // a node of an older build has no hooks
	case err != nil:
		return Report{{Node: n.Name, Unasked: plain(err.Error(), maxReason)}}
	}
	var out Report
	for _, r := range reply.Results[:min(len(reply.Results), maxScripts)] {
		out = append(out, Result{Node: n.Name, HookResult: rpc.HookResult{
			Script: plain(r.Script, maxReason), Status: r.Status, Reason: plain(r.Reason, maxReason), Output: plain(r.Output, maxOutput),
		}})
	}
	return out
}

// Bounds on what is believed of a node's answer.
const (
	maxScripts = 80
	maxReason  = 300
	maxOutput  = 2500
)

// plain bounds a text, and removes what could play tricks on a terminal.
func plain(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	return clip(text, limit)
}

func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + " …"
}

// failed reports whether a script ran, or was to run, and did not succeed.
func (r Result) failed() bool {
	return r.Unasked == "" && r.Status != rpc.HookSucceeded && r.Status != rpc.HookRefused
}

// said is the output of a failed script, with the reason where there is none.
func (r Result) said() string {
	switch {
	case r.Output == "":
		return r.Reason
	case r.Reason == "", strings.HasPrefix(r.Reason, "exit code"):
		return r.Output
	}
	return r.Reason + ": " + r.Output
}

// Abort is the error of an operation that scripts vetoed.
type Abort struct{ Failed Report }

// Bounds of the text of a veto: a job's error holds 4 KiB.
const (
	maxVeto      = 3500
	maxVetoShare = 600
	maxVetoes    = 32
)

// Error implements error, in Ganeti's form.
func (a *Abort) Error() string {
	text := "hooks execution failed:"
	for _, r := range a.Failed {
		text += fmt.Sprintf("\n  node: %s, script: %s, output: %s", r.Node, r.Script, clip(r.said(), maxVetoShare))
	}
	return clip(text, maxVeto)
}

// Args are the error's arguments in Ganeti's opresult.
func (a *Abort) Args() []any {
	list := [][3]string{}
	for _, r := range a.Failed[:min(len(a.Failed), maxVetoes)] {
		list = append(list, [3]string{string(r.Node), r.Script, clip(r.said(), maxVetoShare)})
	}
	return []any{list}
}

// Veto returns an *Abort if a script of the pre phase failed, else nil.
func (r Report) Veto() error {
	var a Abort
	for _, one := range r {
		if one.failed() {
			a.Failed = append(a.Failed, one)
		}
	}
	if len(a.Failed) == 0 {
		return nil
	}
	return &a
}

// Warnings tells what did not go well: failed scripts, refused ones, and nodes
// that were not asked.
func (r Report) Warnings() []string {
	var out []string
	for _, one := range r {
		if w := one.Warning(); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// Warning tells of one result what did not go well, or "".
func (r Result) Warning() string {
	switch {
	case r.Unasked != "":
		return fmt.Sprintf("Hooks were not run on node %s: %s", r.Node, r.Unasked)
	case r.Status == rpc.HookRefused:
		return fmt.Sprintf("On node %s hook script %s was not run: %s", r.Node, r.Script, r.Reason)
	case r.failed():
		return fmt.Sprintf("On node %s hook script %s failed (%s), output: %s", r.Node, r.Script, r.Reason, r.Output)
	}
	return ""
}
