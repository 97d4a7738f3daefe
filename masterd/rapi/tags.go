package rapi

import (
	"net/http"

	"rolekey/masterd/rapi/wire"
)

func (a *api) nodeTags(r *http.Request) (any, error) {
	_, n, err := a.named(r)
	if err != nil {
		return nil, err
	}
	return append([]string{}, n.Tags...), nil
}

func (a *api) clusterTags(*http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	return append([]string{}, s.Cluster.Tags...), nil
}

func (a *api) changeNodeTags(r *http.Request) (any, error) {
	node, err := a.target(r)
	if err != nil {
		return nil, err
	}
	return a.changeTags(r, wire.Tags{Kind: "node", Name: node}, node)
}

func (a *api) changeClusterTags(r *http.Request) (any, error) {
	return a.changeTags(r, wire.Tags{Kind: "cluster"}, "cluster")
}

// changeTags adds tags, or with DELETE removes them. They are parameters of the
// query, as in Ganeti, or, when they are many, a list in the body.
func (a *api) changeTags(r *http.Request, t wire.Tags, object string) (any, error) {
	t.Tags = r.URL.Query()["tag"]
	if r.ContentLength != 0 {
		if err := decode(r, &t.Tags); err != nil {
			return nil, err
		}
	}
	if len(t.Tags) == 0 {
		return nil, badRequest("Please name at least one tag, as in ?tag=NAME")
	}
	op, verb := "OP_TAGS_SET", "TAGS_SET("
	if r.Method == http.MethodDelete {
		op, verb = "OP_TAGS_DEL", "TAGS_DEL("
	}
	return a.submit(r, opcode{ID: op, Tags: &t}, verb+object+")")
}
