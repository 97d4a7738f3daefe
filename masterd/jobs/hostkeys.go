package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/sshkeys"
)

// OpNodeAcceptHostKeys is the administrator's word on SSH host keys of a master
// candidate that have changed. Ganeti has no such opcode.
const OpNodeAcceptHostKeys = "OP_NODE_ACCEPT_HOST_KEYS"

// nodeAcceptHostKeys puts what is pending into the roster, or says that it is
// never to come there. Over RAPI it is refused: whoever may answer for the key
// of a candidate's sshd may put a machine of his own into its place.
func nodeAcceptHostKeys(ctx context.Context, r *run, raw json.RawMessage) (json.RawMessage, error) {
	var op struct {
		Node   string         `json:"node_name"`
		Digest cluster.Digest `json:"digest"`
		Reject bool           `json:"reject"`
		RAPI   bool           `json:"rapi"`
	}
	if err := json.Unmarshal(raw, &op); err != nil {
		return nil, errUnreadable
	}
	if op.RAPI {
		p := prereq(roles.WrongState, "Host keys of master candidates cannot be accepted or rejected over RAPI")
		p.Hint = "On the master, as root: gnt-node accept-host-keys"
		return nil, p
	}
	n, err := roles.Find(r.c.State(), op.Node)
	if err != nil {
		return nil, err
	}
	change := state.HostKeysDecision{Node: n.UUID, Digest: op.Digest, Accept: !op.Reject}
	if _, err := state.Propose(r.c.State(), state.KindHostKeysDecide, change, state.Meta{Time: r.c.Now()}); err != nil {
		return nil, asPrereq(err)
	}
	results := decided(n.PendingHostKeys, op.Reject)
	if r.dry {
		r.wouldDo(fmt.Sprintf("set %s of node %s to %s", results[0][0], n.Name, results[0][1]))
		return json.Marshal(results)
	}
	result, err := r.enact(ctx, &resume{Op: r.op, Node: *n, Results: results}, func(u *state.JobUpdate) (string, any) {
		change.Job = u
		return state.KindHostKeysDecide, change
	})
	if err != nil {
		return nil, asPrereq(err)
	}
	return result, nil
}

// decided says what the job has changed.
func decided(p *state.PendingHostKeys, reject bool) [][2]string {
	var prints []string
	for _, k := range p.Keys {
		prints = append(prints, sshkeys.Fingerprint(k))
	}
	keys := strings.Join(prints, ", ")
	if reject {
		return [][2]string{{"rejected_host_keys", keys}}
	}
	return [][2]string{{"host_keys", keys}, {"ndparams/ssh_port", fmt.Sprint(p.Port)}}
}
