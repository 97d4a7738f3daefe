package masterd

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/jobs"
	"rolekey/masterd/rapi"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/rpc"
)

var _ rapi.Backend = (*Daemon)(nil)

// State implements rapi.Backend.
func (d *Daemon) State() (*state.State, error) {
	m, err := d.running()
	if err != nil {
		return nil, err
	}
	s := m.node.State()
	if !s.Founded() {
		return nil, cluster.Errorf(cluster.CodeUnavailable, "this candidate has not received the cluster's state yet").
			WithHint("try again in a moment")
	}
	return s, nil
}

// Watch implements rapi.Backend.
func (d *Daemon) Watch() <-chan struct{} {
	m, err := d.running()
	if err != nil {
		c := make(chan struct{})
		close(c) // whoever waits asks State again, and learns why
		return c
	}
	return m.node.Watch()
}

// Ready implements rapi.Backend.
func (d *Daemon) Ready() error {
	m, err := d.running()
	if err != nil {
		return err
	}
	return m.Ready()
}

// Self implements rapi.Backend.
func (d *Daemon) Self() cluster.Name {
	if s := d.standing(); s != nil {
		return s.name()
	}
	return ""
}

// Submit implements rapi.Backend.
func (d *Daemon) Submit(ctx context.Context, ops []json.RawMessage, summary []string, actor, request string) (int64, error) {
	m, err := d.running()
	if err != nil {
		return 0, err
	}
	if m.node.State().QueueDrained && !jobs.PassesDrain(ops) {
		return 0, cluster.Errorf(cluster.CodeQueueDrained, "Job queue is drained, cannot submit").
			WithHint("gnt-cluster queue undrain makes it take jobs again")
	}
	return m.submit(ctx, ops, summary, actor, request)
}

// Change implements rapi.Backend.
func (d *Daemon) Change(ctx context.Context, kind string, body any, actor, request string) error {
	m, err := d.running()
	if err != nil {
		return err
	}
	_, err = m.Change(ctx, kind, body, actor, request)
	return err
}

// DrainQueue implements rapi.Backend. It is no job: a drained queue takes none.
// What the cluster itself has to do goes on.
func (d *Daemon) DrainQueue(ctx context.Context, drained bool, actor, request string) error {
	m, err := d.running()
	if err != nil {
		return err
	}
	_, err = m.Change(ctx, state.KindClusterChange, state.ClusterChange{QueueDrained: &drained}, actor, request)
	return err
}

func (m *member) submit(ctx context.Context, ops []json.RawMessage, summary []string, actor, request string) (int64, error) {
	result, err := m.Change(ctx, state.KindJobSubmit, state.JobSubmit{Ops: ops, Summary: summary}, actor, request)
	return result.JobID, err
}

// Cancel implements rapi.Backend.
func (d *Daemon) Cancel(ctx context.Context, id int64, actor, request string) error {
	m, err := d.running()
	if err != nil {
		return err
	}
	if err := jobs.Cancelable(m.node.State(), id); err != nil {
		return err
	}
	_, err = m.Change(ctx, state.KindJobUpdate, jobs.CancelingUpdate(id), actor, request)
	return err
}

// Archive implements rapi.Backend.
func (d *Daemon) Archive(ctx context.Context, ids []int64, actor, request string) error {
	m, err := d.running()
	if err != nil {
		return err
	}
	_, err = m.Change(ctx, state.KindJobArchive, state.JobArchive{IDs: ids}, actor, request)
	return err
}

// Admit implements rapi.Backend.
func (d *Daemon) Admit(ctx context.Context, spec rapi.AdmitSpec) (rapi.AdmitResult, error) {
	m, err := d.running()
	if err != nil {
		return rapi.AdmitResult{}, err
	}
	if err := m.Ready(); err != nil {
		return rapi.AdmitResult{}, err
	}
	if l := m.office.holder(); l != nil {
		if err := l.mayAdmit(ctx, spec); err != nil {
			return rapi.AdmitResult{}, err
		}
	}
	rec, seed, err := pki.NewRecord(spec.Record(), d.cfg.Now())
	if err != nil {
		return rapi.AdmitResult{}, err
	}
	if _, err := m.Change(ctx, state.KindAdmissionCreate, state.AdmissionCreate{Record: rec}, spec.Actor, spec.Request); err != nil {
		return rapi.AdmitResult{}, err
	}
	held := m.keeper.View().Map
	token, err := pki.NewToken(pki.TokenFields{
		Cluster: held.Cluster, Record: rec.ID, Name: rec.Name, Candidates: doors(held), MapPin: anchor(m.node.State(), held), Seed: seed,
	})
	return rapi.AdmitResult{Token: token, Record: rec}, err
}

// anchor is the hash that an admission string pins: of the newest map that
// changed the authority. Candidates keep such maps for ever, and what leads
// from there to the map of the day of the join is signed by that authority.
func anchor(s *state.State, held *candmap.Verified) cluster.Digest {
	for _, e := range slices.Backward(s.Chain) {
		if e.Authority && !e.Version.Newer(held.At()) {
			return e.Hash
		}
	}
	return held.Hash
}

// maxDoors is how many candidates an admission string names.
const maxDoors = 3

// doors are the addresses at which a new node may ask, the master's first.
func doors(m *candmap.Verified) []netip.AddrPort {
	var out []netip.AddrPort
	add := func(c *candmap.Candidate) {
		if c != nil && len(out) < maxDoors {
			out = append(out, netip.AddrPortFrom(c.Addresses[0], c.MasterdPort))
		}
	}
	add(m.Candidate(m.Master))
	for i := range m.Candidates {
		if m.Candidates[i].UUID != m.Master {
			add(&m.Candidates[i])
		}
	}
	return out
}

// RevokeAdmission implements rapi.Backend.
func (d *Daemon) RevokeAdmission(ctx context.Context, id cluster.UUID, actor, request string) error {
	m, err := d.running()
	if err != nil {
		return err
	}
	_, err = m.Change(ctx, state.KindAdmissionRevoke, state.AdmissionRevoke{ID: id}, actor, request)
	return err
}

// Nodes implements rapi.Backend: what each node confirmed last, to this master.
func (d *Daemon) Nodes() []rapi.NodeStatus {
	m, err := d.running()
	if err != nil {
		return nil
	}
	now := d.cfg.Now()
	reached := newReach() // whoever is not master has reached nobody
	if l := m.office.holder(); l != nil {
		reached = l.push.reach
	}
	var out []rapi.NodeStatus
	for _, n := range m.node.State().SortedNodes() {
		c := reached.of(n.UUID)
		s := rapi.NodeStatus{Node: n.UUID, Reachable: c.failures == 0 && !c.at.IsZero(), Problem: c.err}
		if !c.at.IsZero() {
			s.Version, s.Hash = c.ack.Version, c.ack.Hash
			s.Age = now.Sub(c.at)
			s.LeaseUntil, s.SSHUntil = c.ack.LeaseUntil, c.ack.SSHUntil
			s.Fresh = c.ack.Fresh && now.Before(c.ack.LeaseUntil)
		}
		out = append(out, s)
	}
	return out
}

// inspectTimeout bounds one question to one node.
const inspectTimeout = 5 * time.Second

// Inspect implements rapi.Backend.
func (d *Daemon) Inspect(ctx context.Context, node cluster.NodeID) (rpc.NodeState, error) {
	m, err := d.running()
	if err != nil {
		return rpc.NodeState{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	return calls{client: m.client, member: m}.State(ctx, node)
}
