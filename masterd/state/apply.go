package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
)

// Meta is what a command says of itself.
type Meta struct {
	Time      time.Time // of the leader's clock
	Actor     string
	RequestID string
}

// Result is what became of a command. It is the same on every replica.
type Result struct {
	Err        *cluster.Error  // the command did not fit; the state is unchanged
	Version    cluster.Version // of the map that the command made, if it made one
	Hash       cluster.Digest  // of that map's payload
	JobID      int64           // of a job that was submitted
	Node       cluster.NodeID  // the node that was changed or admitted
	Superseded []cluster.UUID  // admission records that a new one replaced
}

// Propose makes a command for the state and fills in the map that it yields.
// The error is the *cluster.Error that Apply would answer.
func Propose(s *State, kind string, body any, meta Meta) (Command, error) {
	raw, err := encodeBody(kind, body)
	if err != nil {
		return Command{}, cluster.Errorf(cluster.CodeBadFormat, "propose %s: %v", kind, err)
	}
	c := Command{
		V: commandFormat, Kind: kind, Time: candmap.Stamp(meta.Time),
		Actor: clip(meta.Actor, MaxActor), RequestID: clip(meta.RequestID, MaxRequestID), Body: raw,
	}
	d, cerr := s.step(c)
	if cerr != nil {
		return Command{}, cerr
	}
	c.Map = d.payload
	if _, err := EncodeCommand(c); err != nil {
		return Command{}, asError(err)
	}
	return c, nil
}

// Apply returns the state after the command, which stood in the log at this
// index and term. A command that does not fit leaves the state as it is and
// says so in the result.
func (s *State) Apply(c Command, index, term uint64) (*State, Result) {
	d, err := s.step(c)
	if err != nil {
		return s, Result{Err: err}
	}
	if !bytes.Equal(c.Map, d.payload) {
		return s, Result{Err: cluster.Errorf(cluster.CodeConflict,
			"%s at index %d was made for another state: it carries a map of %d bytes, this state yields one of %d",
			c.Kind, index, len(c.Map), len(d.payload)).WithHint("Another change came first. Try again.")}
	}
	if d.next != nil {
		e := newEntry(d.next, d.payload, s.headMap, term)
		d.State.Chain = extend(s.Chain, e)
		d.State.headMap, d.State.roster = d.next, d.nextRoster
		d.res.Version, d.res.Hash = e.Version, e.Hash
	}
	if c.Kind == KindSetMaster || c.Kind == KindGenesis {
		d.State.MasterTerm = term
	}
	return d.State, d.res
}

// step runs a command on a copy of the state, up to the map that it yields.
func (s *State) step(c Command) (*draft, *cluster.Error) {
	if err := c.checkHead(); err != nil {
		return nil, asError(err)
	}
	b, err := decodeBody(c.Kind, c.Body)
	if err != nil {
		return nil, asError(fmt.Errorf("%.40q: %w", c.Kind, err))
	}
	if s.Founded() == (c.Kind == KindGenesis) {
		return nil, cluster.Errorf(cluster.CodeConflict, "%s: the cluster must be founded first, and only once", c.Kind)
	}
	if err := s.mayEmit(b); err != nil {
		return nil, asError(fmt.Errorf("%s: %w", c.Kind, err))
	}
	copied := *s
	d := &draft{State: &copied, now: c.Time, actor: c.Actor, requestID: c.RequestID}
	if err := b.apply(d); err != nil {
		return nil, asError(err)
	}
	if err := d.deriveMap(s); err != nil {
		return nil, asError(err)
	}
	return d, nil
}

// draft is a state that a command is changing. Everything it shares with the
// state before must be copied before it is written to.
type draft struct {
	*State
	now              time.Time
	actor, requestID string
	ownNodes         bool // Nodes is our own map
	ownJobs          bool
	mapped           bool // map or roster may have changed
	res              Result

	next       *candmap.Map
	nextRoster *candmap.Roster
	payload    []byte
}

// deriveMap makes the next version if the draft says something else than the
// head does.
func (d *draft) deriveMap(before *State) error {
	if !d.mapped {
		return nil
	}
	if err := d.check(); err != nil {
		return cluster.Errorf(cluster.CodeConflict, "%v", err)
	}
	m, roster, err := Derive(d.State, d.now)
	if err != nil {
		return err
	}
	if before.headMap != nil {
		if same, err := sameContent(m, before.headMap); err != nil || same {
			return err
		}
		// Clocks differ a little, and time on maps does not run back for that.
		// By more it does: then the head was dated by a clock that was wrong, and
		// nobody could sign anything before that time has come.
		if ahead := before.headMap.Issued.Sub(m.Issued); ahead > 0 && ahead <= candmap.MaxSkew {
			m.Issued = before.headMap.Issued
		}
	}
	payload, err := m.Encode()
	if err != nil {
		return err
	}
	d.next, d.nextRoster, d.payload = m, roster, payload
	return nil
}

// node returns the draft's own copy of a node, to be changed.
func (d *draft) node(id cluster.NodeID) (*Node, error) {
	n := d.Nodes[id]
	if n == nil {
		if t, ok := d.WasRemoved(id); ok {
			return nil, cluster.Errorf(cluster.CodeNotFound, "node %s was removed from the cluster at %s", t.Name, t.Removed.Format(time.RFC3339))
		}
		return nil, cluster.Errorf(cluster.CodeNotFound, "node %s is not in the cluster", id)
	}
	c := *n
	c.MTime, c.Serial = d.now, n.Serial+1
	d.putNode(&c)
	d.res.Node = id
	return &c, nil
}

func (d *draft) putNode(n *Node) {
	if !d.ownNodes {
		d.Nodes, d.ownNodes = maps.Clone(d.Nodes), true
	}
	d.Nodes[n.UUID] = n
	d.mapped = true
}

func (d *draft) putJob(j *Job) {
	if !d.ownJobs {
		d.Jobs, d.ownJobs = maps.Clone(d.Jobs), true
	}
	d.Jobs[j.ID] = j
	d.index.put(j)
}

// dropJob forgets a job that has ended.
func (d *draft) dropJob(id int64) {
	if !d.ownJobs {
		d.Jobs, d.ownJobs = maps.Clone(d.Jobs), true
	}
	delete(d.Jobs, id)
	d.index.ended = withoutID(d.index.ended, id)
}

// asError gives any error of this package its form on the wire.
func asError(err error) *cluster.Error {
	var e *cluster.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, ErrUnknownCommand):
		return cluster.Errorf(cluster.CodeUnsupportedFormat, "%v", err)
	default:
		return cluster.Errorf(cluster.CodeBadFormat, "%v", err)
	}
}

func conflict(format string, args ...any) *cluster.Error {
	return cluster.Errorf(cluster.CodeConflict, format, args...)
}

func badFormat(format string, args ...any) *cluster.Error {
	return cluster.Errorf(cluster.CodeBadFormat, format, args...)
}
