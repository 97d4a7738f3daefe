package rapi

import (
	"net/http"

	"rolekey/masterd/rapi/wire"
)

const opRedistribute = "OP_CLUSTER_REDIST_CONF"

// redistribute is Ganeti's way to have the configuration written anew.
func (a *api) redistribute(r *http.Request) (any, error) {
	op := wire.Redistribute{EvenIfDrained: flag(r, "even-if-drained")}
	return a.submit(r, opcode{ID: opRedistribute, Fields: op}, "CLUSTER_REDIST_CONF")
}
