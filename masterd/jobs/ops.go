package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

// The opcodes, by Ganeti's names.
const (
	OpNodeSetParams = "OP_NODE_SET_PARAMS"
	OpNodeAdd       = "OP_NODE_ADD"
	OpNodeRemove    = "OP_NODE_REMOVE"
	OpClusterVerify = "OP_CLUSTER_VERIFY"
	OpNodeRekey     = "OP_NODE_REKEY" // Rolekey's own
	OpClusterSet    = "OP_CLUSTER_SET_PARAMS"
	OpClusterRename = "OP_CLUSTER_RENAME"
	OpClusterKeys   = "OP_CLUSTER_SSH_KEYS" // Rolekey's own
)

var ops = map[string]func(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error){
	OpNodeSetParams:      nodeSetParams,
	OpNodeAdd:            nodeAdd,
	OpNodeRemove:         nodeRemove,
	OpClusterVerify:      clusterVerify,
	OpNodeRekey:          nodeRekey,
	OpNodeReadd:          nodeReadd,
	OpNodeRename:         nodeRename,
	OpNodeAcceptHostKeys: nodeAcceptHostKeys,
	OpTagsSet:            tagsSet,
	OpTagsDel:            tagsDel,
	OpClusterSet:         clusterSetParams,
	OpClusterRename:      clusterRename,
	OpClusterKeys:        clusterKeys,
	OpClusterRedist:      clusterRedist,
	OpClusterRenewDue:    clusterRenewDue,
	OpClusterRenew:       clusterRenew,
}

// How long a promotion waits for raft to forget a node's former life.
const (
	outLimit = 10 * time.Second
	outPause = 50 * time.Millisecond
)

// opNode are the fields of the opcodes about a node.
type opNode struct {
	Node            string `json:"node_name"`
	MasterCandidate *bool  `json:"master_candidate"`
	Drained         *bool  `json:"drained"`
	Offline         *bool  `json:"offline"`
	MasterCapable   *bool  `json:"master_capable"`
	VMCapable       *bool  `json:"vm_capable"`
	AutoPromote     bool   `json:"auto_promote"`
	Force           bool   `json:"force"`
	RAPI            bool   `json:"rapi"`
	opAddress
}

func nodeSetParams(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	var op opNode
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	if op.opAddress.given() {
		return r.setAddress(ctx, op)
	}
	return r.perform(ctx, func(s *state.State) (roles.Plan, error) {
		return roles.PlanModify(s, roles.Modify{
			Node: op.Node, MasterCandidate: op.MasterCandidate, Drained: op.Drained, Offline: op.Offline,
			MasterCapable: op.MasterCapable, VMCapable: op.VMCapable, AutoPromote: op.AutoPromote, Force: op.Force, RAPI: op.RAPI,
		})
	})
}

// nodeAdd follows the first contact of a node that was admitted. The pre phase
// of its hooks was run when the node's admission string was made.
func nodeAdd(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	var op opNode
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	n, err := roles.Find(r.c.State(), op.Node)
	if err != nil {
		return nil, err
	}
	plan, err := roles.PlanJoin(r.c.State(), n.UUID)
	if err != nil {
		return nil, err
	}
	result, err := r.carryOut(ctx, withPost(plan))
	if err == nil && plan.NoOp() {
		r.postHooks(ctx, n)
	}
	return result, err
}

func nodeRemove(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	var op opNode
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	return r.perform(ctx, func(s *state.State) (roles.Plan, error) { return roles.PlanRemove(s, op.Node) })
}

// carryOut does the steps of a plan up to its commit, which notes the rest.
func (r *run) carryOut(ctx context.Context, p roles.Plan) (json.RawMessage, error) {
	for _, m := range p.Messages {
		r.say(m.String())
	}
	left := resume{Op: r.op, Results: pairs(p.Results)}
	if n := r.c.State().Node(p.Node); n != nil {
		left.Node = *n
	}
	if p.NoOp() {
		if !r.dry {
			r.tidy(ctx, p.Node)
		}
		return json.Marshal(left.Results)
	}
	if p.Demotes() {
		v, err := r.mayLose(ctx, p.Node)
		if err != nil {
			return nil, err
		}
		left.voters = roles.VotersAfterLoss(v.MapVoters, p.Node, v.Leader, v.Reachable)
	}
	if r.dry {
		return r.rehearse(ctx, p, left.Results)
	}
	var keys *state.CandidateKeys
	for i, step := range p.Steps {
		var err error
		switch step.Kind {
		case roles.StepProbe:
			err = r.probe(ctx, p)
		case roles.StepKeysCreate:
			keys, left.Cert, err = r.createKeys(ctx, p.Node)
			if err != nil {
				r.tidy(ctx, p.Node)
			}
		case roles.StepCommit:
			left.Steps = p.Steps[i+1:]
			if p.Demotes() {
				r.rotates(&left)
			}
			return r.commit(ctx, p, keys, &left)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the plan commits nothing")
}

// tidy destroys what an interrupted promotion left on a node. It is not worth a
// warning if that fails: noded does it too, later, and such keys open nothing.
func (r *run) tidy(ctx context.Context, id cluster.NodeID) {
	if n := r.c.State().Node(id); n == nil || n.Flags.MasterCandidate || n.Flags.Offline || ctx.Err() != nil {
		return
	}
	_, _ = r.c.KeyDestroy(ctx, id)
}

// A voter that was just started, or a machine under load, may need a moment to
// answer before a loss of role is refused for want of it.
const (
	lossTries = 4
	lossPause = 400 * time.Millisecond
)

// mayLose makes sure that the cluster can still decide without a node.
func (r *run) mayLose(ctx context.Context, id cluster.NodeID) (roles.View, error) {
	for try := 1; ; try++ {
		v := r.c.Voting(ctx)
		err := roles.CheckLoss(v, id, r.name)
		if err == nil || try == lossTries {
			return v, err
		}
		select {
		case <-time.After(lossPause):
		case <-ctx.Done():
			return v, context.Cause(ctx)
		}
	}
}

func (r *run) name(id cluster.NodeID) cluster.Name {
	if n := r.c.State().Node(id); n != nil {
		return n.Name
	}
	return cluster.Name(id.String())
}

// probe makes sure that a node that is to be online answers.
func (r *run) probe(ctx context.Context, p roles.Plan) error {
	err := r.c.Answers(ctx, p.Node)
	switch {
	case err == nil:
		return nil
	case cluster.CodeOf(err) == cluster.CodeUnsupportedFormat:
		return &roles.PrereqError{Class: roles.Environment, Msg: fmt.Sprintf("Node %s cannot be online: %v", p.Name, err), Hint: cluster.HintOf(err)}
	}
	return p.NoVersion()
}

// awaitOut waits until raft has forgotten a node that was a candidate before.
// Its log is destroyed: a voter without its memory could vote twice in a term.
func (r *run) awaitOut(ctx context.Context, id cluster.NodeID) error {
	limit := time.After(outLimit)
	for {
		v := r.c.Voting(ctx)
		known := slices.Contains(v.RaftVoters, v.Leader) // else raft's configuration could not be read
		if known && !slices.Contains(v.RaftVoters, id) && !slices.Contains(v.RaftNonvoters, id) {
			return nil
		}
		select {
		case <-time.After(outPause): // raft tells nobody when a configuration is in force
		case <-limit:
			return fmt.Errorf("node %s is still being taken out of raft after its last role; try again in a moment", r.name(id))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// createKeys has the node make its keys, checks them, and issues the
// certificate. Until the map names them they open nothing.
func (r *run) createKeys(ctx context.Context, id cluster.NodeID) (*state.CandidateKeys, []byte, error) {
	if err := r.awaitOut(ctx, id); err != nil {
		return nil, nil, err
	}
	s := r.c.State()
	n := s.Node(id)
	req := KeyRequest(s, n, nil)
	// A shared key is not handed out yet: see install.
	keys, err := patient{r.c, mayPass}.KeyCreate(ctx, id, req)
	if err != nil {
		return nil, nil, fmt.Errorf("node %s does not make its candidate keys: %w", n.Name, err)
	}
	if known := max(keys.Features, 1); known < s.FeatureLevel {
		return nil, nil, &roles.PrereqError{
			Class: roles.Environment, Hint: "upgrade rolekey on that node first",
			Msg: fmt.Sprintf("Node %s cannot be a master candidate: its masterd knows feature level %d, and the cluster is at level %d", n.Name, known, s.FeatureLevel),
		}
	}
	if err := pki.CheckPossession(keys.Signing.Public(), s.Cluster.UUID, id, n.Incarnation, keys.Possession); err != nil {
		return nil, nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	if err := checkSSH(n, req.SSHKey, keys.SSH); err != nil {
		return nil, nil, err
	}
	csr, err := pki.ParseCSR(keys.CSR)
	if err != nil {
		return nil, nil, fmt.Errorf("node %s: %w", n.Name, err)
	}
	ca, err := pki.ParseCA(s.CA.Cert, s.CA.Key)
	if err != nil {
		return nil, nil, err
	}
	der, err := ca.Issue(pki.Request{Kind: pki.KindCandidate, Node: id, Name: n.Name, Addresses: n.Addresses, PublicKey: csr.PublicKey}, r.c.Now())
	if err != nil {
		return nil, nil, err
	}
	return &state.CandidateKeys{Client: []cluster.Digest{cluster.DigestOf(der)}, Signing: keys.Signing, SSH: entryKeys(s, keys.SSH)}, der, nil
}

// commit makes the change and notes, in the same entry, what is left to do.
func (r *run) commit(ctx context.Context, p roles.Plan, keys *state.CandidateKeys, left *resume) (json.RawMessage, error) {
	voters := left.voters
	return r.enact(ctx, left, func(u *state.JobUpdate) (string, any) {
		if p.Remove {
			body := state.NodeRemove{Node: p.Node, Job: u}
			if voters != nil {
				body.Voters = &voters
			}
			return state.KindNodeRemove, body
		}
		body := p.Change(voters)
		body.Keys, body.Candidate, body.Job = keys, left.Cert, u
		return state.KindNodeChange, body
	})
}

// enact commits one command, with what is left to do, and does that.
func (r *run) enact(ctx context.Context, left *resume, command func(u *state.JobUpdate) (kind string, body any)) (json.RawMessage, error) {
	data, err := json.Marshal(left)
	if err != nil {
		return nil, err
	}
	step := stepCommitted
	u := r.update
	u.Status, u.Step, u.Data = state.JobRunning, &step, data
	kind, body := command(&u)
	spread, err := r.c.Change(ctx, kind, body, r.job.Actor, r.job.RequestID)
	if err != nil {
		return nil, err
	}
	r.drained()
	if spread.All > 0 { // else the map says what it said before
		r.report(spread)
	}
	return r.after(ctx, left)
}

// rest resumes a job whose commit an earlier master made.
func (r *run) rest(ctx context.Context, left *resume) (json.RawMessage, error) {
	spread, err := r.c.Republish(ctx)
	if err != nil {
		return nil, err
	}
	r.report(spread)
	return r.after(ctx, left)
}

// report notes how far the change has spread.
func (r *run) report(s Spread) {
	text := fmt.Sprintf("effective on %d of %d nodes", s.Done, s.All)
	for _, u := range s.Unreachable {
		text += fmt.Sprintf("; %s unreachable, RPC lease ends %s, sshd expiry %s", u.Node, bound(u.RPCUntil), bound(u.SSHUntil))
	}
	r.update.Progress = append(r.update.Progress, text[:min(len(text), state.MaxLogText)])
	// Not nil even when empty: null would not be the canonical encoding.
	open := append([]state.Unreachable{}, s.Unreachable...)
	r.update.Unreachable = &open
}

func bound(t *time.Time) string {
	if t == nil {
		return "no bound"
	}
	return t.UTC().Format(time.RFC3339)
}

// after does what follows the publication. The node has its new standing by
// then, whatever becomes of these steps.
func (r *run) after(ctx context.Context, left *resume) (json.RawMessage, error) {
	var failed error
	for _, step := range left.Steps {
		var err error
		switch step.Kind {
		case stepRenewDue:
			failed = errors.Join(failed, r.renewDue(ctx))
		case stepRenewCA, stepRenewCerts, stepRenewSigning, stepRenewGossip, stepRenewRAPI:
			failed = errors.Join(failed, r.renewOne(ctx, left, step.Kind, failed))
		case stepRoll:
			if left.Renew != nil {
				failed = errors.Join(failed, r.renewOne(ctx, left, step.Kind, failed))
				break
			}
			failed = errors.Join(failed, r.roll(ctx, left))
		case roles.StepKeysInstall:
			err = r.install(ctx, left)
		case roles.StepKeysDestroy:
			err = r.destroy(ctx, left)
		case roles.StepLeave:
			err = errors.Join(r.rotateGossip(ctx), r.c.Dismiss(ctx, &left.Node))
		case roles.StepPool:
			err = r.fillPool(ctx, left.Node.UUID)
		case stepPromote:
			err = r.promote(ctx, left.Node.UUID)
		case stepHooks:
			r.postHooks(ctx, &left.Node)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			r.say(fmt.Sprintf(" - WARNING: %v", err))
		}
	}
	if failed != nil {
		return nil, failed
	}
	return json.Marshal(left.Results)
}

// install has the node use its certificate, and gives it the SSH key that all
// share. It gets that only now that its role is committed: whoever loses the role
// again has it replaced.
func (r *run) install(ctx context.Context, left *resume) error {
	s := r.c.State()
	keys, err := AskKeys(ctx, r.c, s, &left.Node, KeyRequest(s, &left.Node, left.Cert))
	if err != nil {
		return fmt.Errorf("node %s has not confirmed its certificate; the master tries again until it does: %w", left.Node.Name, err)
	}
	if keys.Installed != cluster.DigestOf(left.Cert) {
		return fmt.Errorf("node %s uses another certificate than it was given", left.Node.Name)
	}
	return nil
}

func (r *run) destroy(ctx context.Context, left *resume) error {
	if n := r.c.State().Node(left.Node.UUID); n != nil && n.Flags.MasterCandidate {
		return nil // an earlier master got as far as to give it new keys
	}
	reply, err := r.c.KeyDestroy(ctx, left.Node.UUID)
	return Remains(left.Node.Name, reply, err)
}

// Remains tells what is left of a node's keys, as far as its answer says; nil:
// nothing.
func Remains(node cluster.Name, reply rpc.KeyDestroyReply, err error) error {
	if err != nil {
		return fmt.Errorf("node %s has not confirmed that its keys are destroyed; they open nothing any more: %w", node, err)
	}
	if len(reply.Problems) > 0 {
		return fmt.Errorf("node %s could not destroy all its keys, which open nothing any more: %s", node, strings.Join(reply.Problems, "; "))
	}
	return nil
}

// fillPool promotes other nodes to make up for the one that left, unless who asks
// may not promote any.
func (r *run) fillPool(ctx context.Context, left cluster.NodeID) error {
	ids, want := roles.PlanPool(r.c.State(), left)
	if want > 0 && !roles.MayPromote(r.c.State(), r.remote) {
		r.say(roles.NoPromotionNotice(want).String())
		want = 0
	}
	var promoted []cluster.Name
	for _, id := range ids {
		if len(promoted) == want {
			break
		}
		if err := r.promote(ctx, id); err != nil {
			r.say(fmt.Sprintf(" - WARNING: Node %s was not promoted: %v", r.name(id), err))
			continue
		}
		promoted = append(promoted, r.name(id))
	}
	if len(promoted) > 0 {
		r.say(roles.PromotedNotice(promoted).String())
	}
	if m, ok := roles.SurplusNotice(r.c.State()); ok {
		r.say(m.String())
	}
	return nil
}

func (r *run) promote(ctx context.Context, id cluster.NodeID) error {
	p, err := roles.PlanPromote(r.c.State(), id)
	if err != nil || p.NoOp() {
		return err
	}
	left := resume{Op: r.op, Node: *r.c.State().Node(id)}
	if err := r.awaitOut(ctx, id); err != nil {
		return err
	}
	keys, der, err := r.createKeys(ctx, id)
	if err != nil {
		return err
	}
	body := p.Change(nil)
	body.Keys, body.Candidate = keys, der
	if _, err := r.c.Change(ctx, state.KindNodeChange, body, r.job.Actor, r.job.RequestID); err != nil {
		return err
	}
	left.Cert = der
	if err := r.install(ctx, &left); err != nil {
		r.say(fmt.Sprintf(" - WARNING: %v", err)) // a candidate it is
	}
	return nil
}
