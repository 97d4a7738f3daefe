package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
)

// OpClusterRenew replaces keys and certificates while all goes on. Ganeti has an
// opcode of that name.
const OpClusterRenew = "OP_CLUSTER_RENEW_CRYPTO"

// The parts of a renewal.
const (
	stepRenewCA      roles.StepKind = "renew-ca"
	stepRenewCerts   roles.StepKind = "renew-certs"
	stepRenewSigning roles.StepKind = "renew-signing"
	stepRenewGossip  roles.StepKind = "renew-gossip"
	stepRenewRAPI    roles.StepKind = "renew-rapi"
)

// opRenew are the fields of OpClusterRenew.
type opRenew struct {
	CA      bool    `json:"new_cluster_certificate"`
	Certs   bool    `json:"new_node_certificates"`
	Signing bool    `json:"new_signing_keys"`
	Gossip  bool    `json:"new_gossip_key"`
	SSH     bool    `json:"new_ssh_keys"`
	Web     bool    `json:"new_rapi_certificate"`
	Node    string  `json:"node_name"` // "": all
	Type    *string `json:"ssh_key_type"`
	Bits    *int    `json:"ssh_key_bits"`
	RAPI    bool    `json:"rapi"`
	Removal bool    `json:"after_removal"` // it follows the removal of a node: nobody is asked
}

// renewal notes what a renewal is to replace: what was there when it began. So
// it can be begun anew at any time, and what has been replaced already stays.
type renewal struct {
	Since   time.Time           `json:"since"`
	Node    cluster.NodeID      `json:"node,omitzero"`     // zero: all
	SSH     []cluster.Digest    `json:"ssh,omitempty"`     // of the keys' blobs
	SSHWas  *cluster.SSHKeySpec `json:"ssh_was,omitempty"` // the parameter before; nil: it stays
	Gossip  []cluster.Digest    `json:"gossip,omitempty"`
	Signing []cluster.Digest    `json:"signing,omitempty"`
}

// renewPart is one thing that a renewal replaces. Each is done in phases, every
// one a commit: what is new is made, known to all beside the old, used, and then
// alone. do goes on with whatever an earlier master left. If the job is to be
// canceled, it goes back to what was, and returns errCanceled; once the new is
// used it goes on to the end instead.
type renewPart struct {
	kind  roles.StepKind
	what  string
	asked func(opRenew) bool
	node  bool // it can be done for one node
	do    func(r *run, ctx context.Context, left *resume) error
}

// renewParts are in the order in which they are done.
var renewParts []renewPart

func init() { // the parts refer to the opcodes, and these to the parts
	renewParts = []renewPart{
		{stepRenewCA, "the cluster's certificate authority", func(op opRenew) bool { return op.CA }, false, (*run).renewCA},
		{stepRenewCerts, "certificates of nodes", func(op opRenew) bool { return op.Certs && !op.CA }, true, (*run).renewCertificates},
		{stepRenewSigning, "signing keys", func(op opRenew) bool { return op.Signing }, true, (*run).renewSigning},
		{stepRenewGossip, "the gossip key", func(op opRenew) bool { return op.Gossip }, false, (*run).renewGossip},
		{stepRoll, "SSH keys", func(op opRenew) bool { return op.SSH }, true, (*run).roll},
		{stepRenewRAPI, "the certificate of the remote API", func(op opRenew) bool { return op.Web }, false, (*run).renewRAPI},
	}
}

func partOf(kind roles.StepKind) *renewPart {
	i := slices.IndexFunc(renewParts, func(p renewPart) bool { return p.kind == kind })
	if i < 0 {
		return nil
	}
	return &renewParts[i]
}

// Renews reports whether a job renews keys or certificates.
func Renews(j *state.Job) bool {
	return slices.ContainsFunc(j.Ops, func(raw json.RawMessage) bool {
		var op struct {
			ID string `json:"OP_ID"`
		}
		return json.Unmarshal(raw, &op) == nil && op.ID == OpClusterRenew
	})
}

func clusterRenew(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	var op opRenew
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	s := r.c.State()
	if s.FeatureLevel < state.LevelRenew {
		return nil, &roles.PrereqError{
			Class: roles.WrongState, Msg: fmt.Sprintf("Renewing keys needs feature level %d, and the cluster is at level %d", state.LevelRenew, s.FeatureLevel),
			Hint: "Upgrade rolekey on all nodes; gnt-cluster info shows the level",
		}
	}
	left := &resume{Op: r.op, Results: [][2]string{}, Renew: &renewal{Since: renewSince(s, r.c.Now())}}
	if op.Node != "" {
		n, err := roles.Find(s, op.Node)
		if err != nil {
			return nil, err
		}
		left.Renew.Node = n.UUID
	}
	for _, p := range renewParts {
		if !p.asked(op) {
			continue
		}
		if err := p.check(s, left.Renew.Node); err != nil {
			return nil, err
		}
		left.Steps = append(left.Steps, roles.Step{Kind: p.kind})
	}
	if len(left.Steps) == 0 {
		return nil, prereq(roles.WrongInput, "Please say what is to be renewed")
	}
	return r.renew(ctx, op, left)
}

// check refuses a part that cannot be done.
func (p *renewPart) check(s *state.State, node cluster.NodeID) error {
	n := s.Node(node)
	switch {
	case p.do == nil:
		return prereq(roles.WrongInput, "This release does not renew %s", p.what)
	case p.kind == stepRoll && !s.Params.SSHSetup:
		return prereq(roles.WrongState, "The cluster does not manage SSH keys")
	case n == nil:
		return nil
	case !p.node:
		return prereq(roles.WrongInput, "There is one for all: %s cannot be renewed for node %s alone", p.what, n.Name)
	case p.kind == stepRoll && len(roles.ListedSharedKeys(s)) > 0:
		return prereq(roles.WrongState, "All master candidates share one SSH key: it cannot be renewed for node %s alone", n.Name)
	case (p.kind == stepRoll || p.kind == stepRenewSigning) && n.Keys == nil:
		return prereq(roles.WrongState, "Node %s is not a master candidate, and has no %s", n.Name, p.what)
	}
	return nil
}

// renew notes what is to be replaced, and replaces it.
func (r *run) renew(ctx context.Context, op opRenew, left *resume) (json.RawMessage, error) {
	s := r.c.State()
	patch, err := op.spec(s)
	if err != nil {
		return nil, err
	}
	left.Renew.note(s)
	if patch.SSHKey != nil {
		left.Renew.SSHWas = new(s.Params.SSH().KeySpec())
	}
	kind, body := state.KindJobUpdate, func(u *state.JobUpdate) any { return *u }
	if patch.SSHKey != nil {
		kind, body = state.KindParamsChange, func(u *state.JobUpdate) any { return state.ParamsChange{Params: patch, Job: u} }
	}
	if r.dry {
		for _, step := range left.Steps {
			r.wouldDo("replace " + partOf(step.Kind).what + r.ofNode(left))
		}
		return json.Marshal(left.Results)
	}
	if !op.Removal {
		if err := r.before(ctx, nil, false); err != nil {
			return nil, err
		}
		left.Steps = append(left.Steps, postStep(cluster.NodeID{}))
	}
	result, err := r.enact(ctx, left, func(u *state.JobUpdate) (string, any) { return kind, body(u) })
	if err != nil {
		return nil, asPrereq(err)
	}
	return result, nil
}

func (r *run) ofNode(left *resume) string {
	if left.Renew.Node.IsZero() {
		return ""
	}
	return " of node " + string(r.name(left.Renew.Node))
}

// note lists what there is now.
func (n *renewal) note(s *state.State) {
	for _, k := range s.Shared {
		n.SSH = append(n.SSH, blobDigest(k.Public))
	}
	for _, c := range s.Candidates() {
		if !n.about(c.UUID) {
			continue
		}
		for _, k := range c.Keys.SSH {
			if d := blobDigest(k); !slices.Contains(n.SSH, d) {
				n.SSH = append(n.SSH, d)
			}
		}
		n.Signing = append(n.Signing, cluster.DigestOf(c.Keys.Signing))
	}
	for _, k := range s.GossipKeys() {
		n.Gossip = append(n.Gossip, cluster.DigestOf(k.Reveal()))
	}
}

// about reports whether the renewal concerns a node.
func (n *renewal) about(id cluster.NodeID) bool { return n.Node.IsZero() || n.Node == id }

func blobDigest(k cluster.SSHKey) cluster.Digest { return cluster.DigestOf(k.Blob) }

// spec is the change of the SSH keys' kind that comes with new ones.
func (op opRenew) spec(s *state.State) (state.ParamsPatch, error) {
	var p state.ParamsPatch
	if op.Type == nil && op.Bits == nil {
		return p, nil
	}
	if !op.SSH {
		return p, prereq(roles.WrongInput, "A type or bits of SSH keys go with new SSH keys only")
	}
	if op.Node != "" {
		return p, prereq(roles.WrongInput, "All SSH keys are of one kind: it cannot be changed for one node")
	}
	if err := (opSSH{Type: op.Type, Bits: op.Bits}).into(s, &p); err != nil {
		return p, err
	}
	if *p.SSHKey == s.Params.SSH().KeySpec() {
		return state.ParamsPatch{}, nil
	}
	return p, roles.CheckParams(s, p, op.RAPI)
}

// renewOne does one part, unless the job has been canceled in an earlier one.
func (r *run) renewOne(ctx context.Context, left *resume, kind roles.StepKind, before error) error {
	p := partOf(kind)
	if p == nil || p.do == nil || errors.Is(before, errCanceled) {
		return nil
	}
	if err := p.do(r, ctx, left); err != nil && !errors.Is(err, errCanceled) {
		return fmt.Errorf("%s: %w", p.what, err)
	} else if err != nil {
		r.say(fmt.Sprintf(" - INFO: The job is canceled: %s stay as they were", p.what))
		return err
	}
	return nil
}

// told notes how far a phase has got.
func (r *run) told(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.update.Progress = append(r.update.Progress, text[:min(len(text), state.MaxLogText)])
}

// renewRAPI has every candidate make a certificate of its own for RAPI, now. One
// of the administrator's is forgotten.
func (r *run) renewRAPI(ctx context.Context, left *resume) error {
	s := r.c.State()
	if !s.RAPI.Since.Before(left.Renew.Since) && len(s.RAPI.Cert) == 0 {
		return nil // an earlier master did
	}
	if r.canceling() {
		return errCanceled
	}
	r.told("remote API: every master candidate makes a new certificate")
	u := r.update
	_, err := r.c.Change(ctx, state.KindRAPICert, state.RAPICertChange{Job: &u}, r.job.Actor, r.job.RequestID)
	if err == nil {
		r.drained()
	}
	return err
}
