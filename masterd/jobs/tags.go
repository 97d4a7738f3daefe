package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"rolekey/masterd/roles"
	"rolekey/masterd/state"
)

// The opcodes about tags, by Ganeti's names.
const (
	OpTagsSet = "OP_TAGS_SET"
	OpTagsDel = "OP_TAGS_DEL"
)

// Kinds of objects that have tags.
const (
	TagsOfCluster = "cluster"
	TagsOfNode    = "node"
)

// opTags are the fields of the opcodes about tags.
type opTags struct {
	Kind string   `json:"kind"`
	Name string   `json:"name"` // of the node
	Tags []string `json:"tags"`
}

func tagsSet(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	op, n, err := r.tagsOf(raw)
	if err != nil {
		return nil, err
	}
	after := len(op.Tags)
	for _, t := range r.tags(n) {
		if !slices.Contains(op.Tags, t) {
			after++
		}
	}
	if most := r.c.State().MaxTags(); after > most {
		return nil, prereq(roles.WrongState, "There would be %d tags, and the limit is %d", after, most)
	}
	return r.changeTags(ctx, op, n, op.Tags, nil)
}

func tagsDel(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	op, n, err := r.tagsOf(raw)
	if err != nil {
		return nil, err
	}
	have := r.tags(n)
	missing := slices.DeleteFunc(slices.Clone(op.Tags), func(t string) bool { return slices.Contains(have, t) })
	if len(missing) > 0 {
		return nil, prereq(roles.UnknownEntity, "Tag(s) %s not found", strings.Join(missing, ", "))
	}
	return r.changeTags(ctx, op, n, nil, op.Tags)
}

// tagsOf reads an opcode about tags; without a node it is about the cluster.
// Its tags are sorted.
func (r *run) tagsOf(raw json.RawMessage) (op opTags, n *state.Node, err error) {
	if err := json.Unmarshal(raw, &op); err != nil {
		return op, nil, errUnreadable
	}
	switch op.Kind {
	case TagsOfCluster:
	case TagsOfNode:
		if n, err = roles.Find(r.c.State(), op.Name); err != nil {
			return op, nil, err
		}
	default:
		return op, nil, prereq(roles.WrongInput, "Objects of kind '%.40s' have no tags", op.Kind)
	}
	slices.Sort(op.Tags)
	op.Tags = slices.Compact(op.Tags)
	if len(op.Tags) == 0 {
		return op, nil, prereq(roles.WrongInput, "Please name at least one tag")
	}
	if err := state.CheckTags(op.Tags); err != nil {
		return op, nil, prereq(roles.WrongInput, "%v", err)
	}
	return op, n, nil
}

func (r *run) tags(n *state.Node) []string {
	if n == nil {
		return r.c.State().Cluster.Tags
	}
	return n.Tags
}

// changeTags commits the change, and the end of the opcode with it.
func (r *run) changeTags(ctx context.Context, op opTags, n *state.Node, add, del []string) (json.RawMessage, error) {
	result := json.RawMessage("null")
	if r.dry {
		r.wouldDo(fmt.Sprintf("change the tags of %s: add [%s], remove [%s]", object(n), strings.Join(add, " "), strings.Join(del, " ")))
		return result, nil
	}
	kind, body := state.KindClusterChange, any(state.ClusterChange{AddTags: add, DelTags: del, Job: r.done(result)})
	if n != nil {
		kind, body = state.KindNodeChange, state.NodeChange{Node: n.UUID, AddTags: add, DelTags: del, Job: r.done(result)}
	}
	if _, err := r.c.Change(ctx, kind, body, r.job.Actor, r.job.RequestID); err != nil {
		return nil, err
	}
	r.drained()
	return result, nil
}

func object(n *state.Node) string {
	if n == nil {
		return "the cluster"
	}
	return "node " + string(n.Name)
}
