package rapi

import (
	"fmt"
	"net/http"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/state"
	"rolekey/pki"
)

const opRenew = "OP_CLUSTER_RENEW_CRYPTO"

// renewCrypto has keys and certificates replaced. That gives nobody more power
// than he had, so an administrator may ask for it from anywhere.
func (a *api) renewCrypto(r *http.Request) (any, error) {
	var body wire.Renew
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if !body.Any() {
		return nil, badRequest("Nothing is to be renewed")
	}
	summary := "CLUSTER_RENEW_CRYPTO"
	if body.Node != "" {
		summary += "(" + body.Node[:min(len(body.Node), 200)] + ")"
	}
	return a.submit(r, opcode{ID: opRenew, Fields: body}, summary)
}

// renewals tells what renewals have left to be done.
func (a *api) renewals(*http.Request) (any, error) {
	s, err := a.b.State()
	if err != nil {
		return nil, err
	}
	out := wire.Renewals{Behind: []wire.RenewBehind{}, Authorities: len(s.CA.Roots())}
	for _, n := range s.SortedNodes() {
		b := wire.RenewBehind{Node: string(n.Name), Signing: n.Keys != nil && n.Keys.RenewSigning}
		if !n.RenewBefore.IsZero() {
			b.Certificates = &n.RenewBefore
		}
		if b.Signing || b.Certificates != nil {
			out.Behind = append(out.Behind, b)
		}
	}
	return out, nil
}

// setRAPICertificate installs a certificate of the administrator's own. It is no
// job: opcodes are kept and shown, and its key is a secret.
func (a *api) setRAPICertificate(r *http.Request) (any, error) {
	var body wire.RAPICertificate
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	key := cluster.NewSecret(body.Key)
	if _, err := pki.WebPair(body.Certificate, key, a.now()); err != nil {
		return nil, badRequest(fmt.Sprintf("The certificate cannot be used: %v", err))
	}
	return nil, a.change(r, state.KindRAPICert, state.RAPICertChange{Cert: body.Certificate, Key: key})
}
