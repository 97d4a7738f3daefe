package rapi

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
	"rolekey/pki"
)

func (a *api) admissions(*http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	list := []wire.Admission{}
	for _, rec := range s.LiveAdmissions(a.now()) {
		list = append(list, admissionObject(rec))
	}
	return list, nil
}

func (a *api) admit(r *http.Request) (any, error) {
	var body wire.Admit
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.TTLSeconds < 0 || body.TTLSeconds > int64(maxTTL/time.Second) {
		return nil, badRequest(fmt.Sprintf("The life of an admission string is at most %s", maxTTL))
	}
	if err := a.b.Ready(); err != nil {
		return nil, err
	}
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	spec, err := admitSpec(s, body)
	if err != nil {
		return nil, err
	}
	if err := mayAdmit(r, s, body); err != nil {
		return nil, err
	}
	if spec.Any() || body.Readd {
		if err := a.needs(state.LevelSettings); err != nil {
			return nil, err
		}
	}
	spec.Actor, spec.Request = actor(r), requestID(r)
	res, err := a.b.Admit(r.Context(), spec)
	if err != nil {
		return nil, a.outOfOffice(err)
	}
	return wire.Admitted{Token: res.Token.Encode(), Admission: admissionObject(res.Record), Outlook: outlook(s, body)}, nil
}

// mayAdmit refuses over the network what would raise privileges there: a node
// becomes a candidate as it joins, if it may and the pool has room.
func mayAdmit(r *http.Request, s *state.State, body wire.Admit) error {
	if callerOf(r).Local {
		return nil
	}
	old, capable := s.NodeByName(body.Name), true
	if old != nil {
		capable = old.Flags.MasterCapable
	}
	if m := body.MasterCapable; m != nil {
		if old != nil && *m != capable && !s.Params.MasterCapabilityRAPIModifiable {
			return cluster.Errorf(cluster.CodeForbidden, "the master_capable flag cannot be changed over RAPI in this cluster").
				WithHint("on the master, as root: gnt-node add --readd --master-capable, or gnt-cluster modify --master-capability-rapi-modifiable=yes")
		}
		capable = *m
	}
	if capable && !s.Params.RAPIMayPromote {
		return cluster.Errorf(cluster.CodeForbidden, "the node would become a master candidate, and RAPI may not promote nodes in this cluster").
			WithHint(`ask for it with "master_capable": false; or on the master, as root: gnt-node add, or gnt-cluster modify --rapi-may-promote=yes`)
	}
	return nil
}

// admitSpec says whom a request is about, and refuses it in Ganeti's words. That
// a node to be added again has no power left is checked by the state.
func admitSpec(s *state.State, body wire.Admit) (AdmitSpec, error) {
	spec := AdmitSpec{
		Name: body.Name, Addresses: body.Addresses, TTL: time.Duration(body.TTLSeconds) * time.Second,
		Wishes: pki.Wishes{SSHPort: body.SSHPort, MasterCapable: body.MasterCapable, VMCapable: body.VMCapable},
	}
	if body.SecondaryIP != nil {
		spec.Secondary = *body.SecondaryIP
	}
	old := s.NodeByName(body.Name)
	switch {
	case !body.Readd:
		return spec, nil
	case old == nil:
		return spec, cluster.Errorf(cluster.CodeNotFound, "Node %s is not in the configuration", body.Name)
	}
	spec.Node = old.UUID
	return spec, nil
}

// readd takes the power of a node's former life away.
func (a *api) readd(r *http.Request) (any, error) {
	node, err := a.target(r)
	if err != nil {
		return nil, err
	}
	return a.submit(r, opcode{ID: "OP_NODE_READD", Node: node, Fields: struct{}{}}, "NODE_READD("+node+")")
}

func (a *api) revoke(r *http.Request) (any, error) {
	id, err := cluster.ParseUUID(mux.Vars(r)["id"])
	if err != nil {
		return nil, errNotFound
	}
	if err := a.b.Ready(); err != nil {
		return nil, err
	}
	return nil, a.outOfOffice(a.b.RevokeAdmission(r.Context(), id, actor(r), requestID(r)))
}
