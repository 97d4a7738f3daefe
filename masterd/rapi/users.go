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

// onlyLocal refuses what gives power over the API itself: who has it by the API
// could keep it after it was taken from him.
func onlyLocal(r *http.Request) error {
	if callerOf(r).Local {
		return nil
	}
	return cluster.Errorf(cluster.CodeForbidden, "users, administrators and the certificate of the remote API are not changed over the remote API").
		WithHint("on the master, as root: gnt-cluster rapi-user, gnt-cluster admin, gnt-cluster renew-crypto --rapi-certificate")
}

// change commits a change that is no job.
func (a *api) change(r *http.Request, kind string, body any) error {
	if err := onlyLocal(r); err != nil {
		return err
	}
	if err := a.b.Ready(); err != nil {
		return err
	}
	if err := a.needs(state.LevelRAPI); err != nil {
		return err
	}
	return a.outOfOffice(a.b.Change(r.Context(), kind, body, actor(r), requestID(r)))
}

func (a *api) users(*http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	list := []wire.User{}
	for _, u := range s.RAPI.Users {
		list = append(list, wire.User{Name: u.Name, Permission: u.Permission, Changed: u.Changed})
	}
	return list, nil
}

func (a *api) setUser(r *http.Request) (any, error) {
	var body wire.UserSet
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	name := mux.Vars(r)["name"]
	hash := cluster.NewSecret(body.Hash)
	if len(body.Hash) == 0 {
		u := s.RAPI.User(name)
		if u == nil {
			return nil, cluster.Errorf(cluster.CodeNotFound, "there is no user %.64s of the remote API", name)
		}
		hash = u.Hash
	} else if err := CheckHash(hash); err != nil {
		return nil, badRequest(err.Error())
	}
	return nil, a.change(r, state.KindRAPIUser, state.RAPIUserChange{Name: name, Permission: body.Permission, Hash: hash})
}

func (a *api) removeUser(r *http.Request) (any, error) {
	return nil, a.change(r, state.KindRAPIUser, state.RAPIUserChange{Name: mux.Vars(r)["name"]})
}

func (a *api) administrators(*http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	list := []wire.Administrator{}
	for _, d := range s.RAPI.Admins {
		list = append(list, wire.Administrator(d))
	}
	return list, nil
}

// setAdministrator issues a certificate to the key of the request. One that an
// administrator of that name had before is worthless from then on.
func (a *api) setAdministrator(r *http.Request) (any, error) {
	var body wire.AdministratorSet
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	csr, err := pki.ParseCSR(body.CSR)
	if err != nil {
		return nil, badRequest(fmt.Sprintf("The certificate request cannot be used: %v", err))
	}
	ca, err := pki.ParseCA(s.CA.Cert, s.CA.Key)
	if err != nil {
		return nil, err
	}
	name, now := mux.Vars(r)["name"], a.now()
	der, err := ca.IssueAdmin(name, csr.PublicKey, now, time.Duration(body.Days)*24*time.Hour)
	if err != nil {
		return nil, badRequest(err.Error())
	}
	cert, err := pki.ParseCertDER(der)
	if err != nil {
		return nil, err
	}
	change := state.RAPIAdminChange{Name: name, Permission: body.Permission, Digest: cluster.DigestOf(der), NotAfter: cert.NotAfter.UTC()}
	if err := a.change(r, state.KindRAPIAdmin, change); err != nil {
		return nil, err
	}
	return wire.AdministratorCert{
		Administrator: wire.Administrator{Name: name, Permission: body.Permission, Digest: change.Digest, NotAfter: change.NotAfter, Changed: now.UTC()},
		Certificate:   der, CA: s.CA.Cert,
	}, nil
}

func (a *api) removeAdministrator(r *http.Request) (any, error) {
	return nil, a.change(r, state.KindRAPIAdmin, state.RAPIAdminChange{Name: mux.Vars(r)["name"]})
}
