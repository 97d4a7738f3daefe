package rapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/gorilla/mux"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
)

const opAcceptHostKeys = "OP_NODE_ACCEPT_HOST_KEYS"

// opcode is what a job is told to do.
type opcode struct {
	ID   string `json:"OP_ID"`
	Node string `json:"node_name,omitempty"`
	*wire.NodeModify
	*wire.Verify
	*wire.Tags
	DryRun   bool `json:"dry_run,omitempty"`
	NoRotate bool `json:"no_rotate,omitempty"`
	RAPI     bool `json:"rapi,omitempty"` // it came over the network, and must not raise privileges
	Fields   any  `json:"-"`              // an object, whose members are the opcode's other fields
}

// MarshalJSON joins the members of Fields to the others.
func (op opcode) MarshalJSON() ([]byte, error) {
	type plain opcode
	head, err := json.Marshal(plain(op))
	if err != nil || op.Fields == nil {
		return head, err
	}
	rest, err := json.Marshal(op.Fields)
	if err != nil || len(rest) <= len("{}") {
		return head, err
	}
	return append(append(head[:len(head)-1], ','), rest[1:]...), nil
}

// level returns the feature level that the opcode needs: a master of an earlier
// release, who may be the one to carry it out, does not know it or would
// overlook a part of it.
func (op opcode) level() int {
	if m, ok := op.Fields.(wire.ClusterModify); op.ID == opAcceptHostKeys || op.ID == opRenew || op.NoRotate || ok && m.SSHKeys() {
		return state.LevelSSH
	}
	if op.DryRun || op.Tags != nil || op.Fields != nil || op.NodeModify != nil && op.Moves() {
		return state.LevelSettings
	}
	return 1
}

// submit queues a job of one opcode and answers with its number.
func (a *api) submit(r *http.Request, op opcode, summary string) (any, error) {
	if err := a.b.Ready(); err != nil {
		return nil, err
	}
	op.RAPI = !callerOf(r).Local
	op.DryRun, op.NoRotate = flag(r, "dry-run", "dry_run"), flag(r, "no-rotate", "no_rotate")
	if err := a.needs(op.level()); err != nil {
		return nil, err
	}
	text, err := json.Marshal(op)
	if err != nil {
		return nil, fmt.Errorf("encode opcode: %w", err)
	}
	id, err := a.b.Submit(r.Context(), []json.RawMessage{text}, []string{summary}, actor(r), requestID(r))
	return id, a.outOfOffice(err)
}

// needs refuses what some node of the cluster is too old for.
func (a *api) needs(level int) error {
	s, err := a.b.State()
	if err != nil || level <= s.FeatureLevel {
		return err
	}
	return cluster.Errorf(cluster.CodeConflict, "it needs feature level %d, and the cluster is at level %d", level, s.FeatureLevel).
		WithHint("upgrade rolekey on all nodes; gnt-cluster info shows the level")
}

// outOfOffice words the refusal of a change that was begun in office and not
// ended there. Whether it is in the log of a majority is not known.
func (a *api) outOfOffice(err error) error {
	if !errors.Is(err, &cluster.Error{Code: cluster.CodeNotMaster}) {
		return err
	}
	if now := a.b.Ready(); errors.Is(now, &cluster.Error{Code: cluster.CodeNotMaster}) {
		return now
	}
	return cluster.Errorf(cluster.CodeNoQuorum, "this node was out of office while it took the change, which may still happen").
		WithHint("when the cluster has a master again, see gnt-job list there before you repeat the command")
}

// target returns the name of the node that a change is about. A node that is
// not known fails the job, as in Ganeti, and not the request.
func (a *api) target(r *http.Request) (string, error) {
	ref := mux.Vars(r)["node"]
	if len(ref) > 253 {
		return "", errNotFound
	}
	s, err := a.b.State()
	if err != nil {
		return "", err
	}
	if n := Find(s, ref); n != nil {
		return string(n.Name), nil
	}
	return ref, nil
}

func (a *api) setParams(r *http.Request, m wire.NodeModify) (any, error) {
	node, err := a.target(r)
	if err != nil {
		return nil, err
	}
	return a.submit(r, opcode{ID: "OP_NODE_SET_PARAMS", Node: node, NodeModify: &m}, "NODE_SET_PARAMS("+node+")")
}

func (a *api) modify(r *http.Request) (any, error) {
	var m wire.NodeModify
	if err := decode(r, &m); err != nil {
		return nil, err
	}
	// Root's known_hosts on every node takes names and addresses from the roster.
	if (m.SecondaryIP != nil || len(m.Addresses) > 0) && !callerOf(r).Permission.Allows(cluster.PermissionAdmin) {
		return nil, cluster.Errorf(cluster.CodeForbidden, "changing where a node is needs the permission admin")
	}
	return a.setParams(r, m)
}

func (a *api) rename(r *http.Request) (any, error) {
	var to wire.NodeRename
	if err := decode(r, &to); err != nil {
		return nil, err
	}
	node, err := a.target(r)
	if err != nil {
		return nil, err
	}
	return a.submit(r, opcode{ID: "OP_NODE_RENAME", Node: node, Fields: to}, "NODE_RENAME("+node+")")
}

func (a *api) acceptHostKeys(r *http.Request) (any, error) {
	var d wire.HostKeysDecision
	if err := decode(r, &d); err != nil {
		return nil, err
	}
	node, err := a.target(r)
	if err != nil {
		return nil, err
	}
	return a.submit(r, opcode{ID: opAcceptHostKeys, Node: node, Fields: d}, "NODE_ACCEPT_HOST_KEYS("+node+")")
}

func (a *api) setRole(r *http.Request) (any, error) {
	var word string
	if err := decode(r, &word); err != nil {
		return nil, err
	}
	m := wire.NodeModify{Force: flag(r, "force"), AutoPromote: flag(r, "auto-promote", "auto_promote")}
	on, off := true, false
	switch role, err := cluster.ParseRole(word); {
	case err != nil || role == cluster.RoleMaster:
		return nil, badRequest(fmt.Sprintf("Can't set '%.64s' role", word))
	case role == cluster.RoleCandidate:
		m.MasterCandidate = &on
	case role == cluster.RoleDrained:
		m.Drained = &on
	case role == cluster.RoleOffline:
		m.Offline = &on
	default:
		m.MasterCandidate, m.Drained, m.Offline = &off, &off, &off
	}
	return a.setParams(r, m)
}

func (a *api) remove(r *http.Request) (any, error) {
	node, err := a.target(r)
	if err != nil {
		return nil, err
	}
	return a.submit(r, opcode{ID: "OP_NODE_REMOVE", Node: node}, "NODE_REMOVE("+node+")")
}

func (a *api) verify(r *http.Request) (any, error) {
	v := wire.Verify{IgnoreErrors: []string{}}
	if r.ContentLength != 0 {
		if err := decode(r, &v); err != nil {
			return nil, err
		}
	}
	if v.Repair && !callerOf(r).Permission.Allows(cluster.PermissionAdmin) {
		return nil, errForbidden
	}
	return a.submit(r, opcode{ID: "OP_CLUSTER_VERIFY", Verify: &v}, "CLUSTER_VERIFY")
}
