package rapi

import (
	"net/http"

	"rolekey/masterd/rapi/wire"
)

func (a *api) modifyCluster(r *http.Request) (any, error) {
	var m wire.ClusterModify
	if err := decode(r, &m); err != nil {
		return nil, err
	}
	return a.submit(r, opcode{ID: "OP_CLUSTER_SET_PARAMS", Fields: m}, "CLUSTER_SET_PARAMS")
}

func (a *api) renameCluster(r *http.Request) (any, error) {
	var m wire.ClusterRename
	if err := decode(r, &m); err != nil {
		return nil, err
	}
	return a.submit(r, opcode{ID: "OP_CLUSTER_RENAME", Fields: m}, "CLUSTER_RENAME("+string(m.Name)+")")
}

func (a *api) queue(*http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	return wire.Queue{Drained: s.QueueDrained}, nil
}

func (a *api) drainQueue(r *http.Request) (any, error) {
	var q wire.Queue
	if err := decode(r, &q); err != nil {
		return nil, err
	}
	if err := a.b.Ready(); err != nil {
		return nil, err
	}
	return nil, a.outOfOffice(a.b.DrainQueue(r.Context(), q.Drained, actor(r), requestID(r)))
}
