package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"rolekey/masterd/state"
)

// webPEM makes a certificate and its key, valid until end.
func webPEM(t *testing.T, end time.Time) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rapi.lab.test"}, NotBefore: end.AddDate(-1, 0, 0), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})
}

func writeTemp(t *testing.T, parts ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(path, bytes.Join(parts, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRenewCryptoAsks(t *testing.T) {
	for _, c := range []struct {
		args string
		want map[string]any
	}{
		{"--new-ssh-keys --ssh-key-type=ecdsa --ssh-key-bits=384", map[string]any{"new_ssh_keys": true, "ssh_key_type": "ecdsa", "ssh_key_bits": 384.0}},
		{"--new-node-certificates --node node1", map[string]any{"new_node_certificates": true, "node_name": "node1"}},
		{"--new-gossip-key --new-signing-keys --dry-run", map[string]any{"new_gossip_key": true, "new_signing_keys": true, "dry_run": true}},
		{"--new-rapi-certificate -f", map[string]any{"new_rapi_certificate": true}},
		{"--all --force", map[string]any{
			"new_cluster_certificate": true, "new_signing_keys": true, "new_gossip_key": true, "new_ssh_keys": true, "new_rapi_certificate": true,
		}},
	} {
		m := upgraded(t, 1)
		var got map[string]any
		m.b.OnSubmit = func(id int64, op map[string]any) {
			got = op
			u := succeeds(`[]`)
			u.ID = id
			m.b.Do(state.KindJobUpdate, u)
		}
		r := m.run(Cluster, append([]string{"renew-crypto"}, strings.Fields(c.args)...)...)
		c.want["OP_ID"] = "OP_CLUSTER_RENEW_CRYPTO"
		if r.code != ExitOK || r.out != "" || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, opcode %v, want %v", c.args, r, got, c.want)
		}
		if strings.Contains(r.err, "have been replaced") == strings.Contains(c.args, "dry-run") {
			t.Errorf("%s says %q", c.args, r.err)
		}
	}
}

// Whatever is refused has changed nothing.
func TestRenewCryptoRefuses(t *testing.T) {
	m := upgraded(t, 1)
	m.b.OnSubmit = func(int64, map[string]any) { t.Error("a job was made") }
	cert, key := webPEM(t, time.Now().Add(time.Hour))
	_, other := webPEM(t, time.Now().Add(time.Hour))
	old, oldKey := webPEM(t, m.b.Now().Add(-time.Hour))
	for _, c := range []struct{ args, says string }{
		{"", "Please say what is to be renewed"},
		{"--new-rapi-certificate --rapi-certificate x", "Only one of the --new-rapi-certificate and --rapi-certificate options can be specified at the same time."},
		{"--rapi-certificate /nonexistent", "Unable to load X509 certificate from /nonexistent"},
		{"--rapi-certificate " + writeTemp(t, cert), "its private key is missing"},
		{"--rapi-certificate " + writeTemp(t, key), "it holds none in PEM"},
		{"--rapi-certificate " + writeTemp(t, []byte("rubbish")), "it holds none in PEM"},
		{"--rapi-certificate " + writeTemp(t, cert, other) + " --new-ssh-keys", "do not belong together"},
		{"--rapi-certificate " + writeTemp(t, old, oldKey), "is valid from"},
		{"--rapi-certificate " + writeTemp(t, cert, key) + " --rapi-key " + writeTemp(t, key), "one too many"},
		{"--rapi-key x --new-ssh-keys", "--rapi-key goes with"},
		{"--all --node node1", "whole cluster"},
		{"--new-gossip-key --ssh-key-type rsa", "go with --new-ssh-keys"},
		{"--new-ssh-keys --ssh-key-type dsa", "dsa"},
		{"--status --abort", "alone"},
		{"--resume --all", "alone"},
		{"--new-confd-hmac-key", "--new-gossip-key"},
		{"--new-cluster-domain-secret", "--new-signing-keys"},
	} {
		m.fail(ExitFailed, c.says, Cluster, append([]string{"renew-crypto"}, strings.Fields(c.args)...)...)
	}
	m.fail(ExitDeclined, "Nothing stops", Cluster, "renew-crypto", "--new-cluster-certificate")
	if s, err := m.b.State(); err != nil || len(s.RAPI.Cert) > 0 {
		t.Errorf("a certificate was installed: %v", err)
	}
}

// In Ganeti a certificate of one's own is checked, and then not installed.
func TestRenewCryptoInstallsOwnCertificate(t *testing.T) {
	m := upgraded(t, 1)
	cert, key := webPEM(t, time.Now().Add(time.Hour))
	for _, args := range [][]string{
		{"--rapi-certificate", writeTemp(t, key, cert)},
		{"--rapi-certificate", writeTemp(t, cert), "--rapi-key", writeTemp(t, key)},
	} {
		var out map[string]any
		m.wantJSON(&out, Cluster, append([]string{"renew-crypto", "--json"}, args...)...)
		if want := map[string]any{"job": nil, "rapi_certificate_installed": true, "unreachable": []any{}}; !reflect.DeepEqual(out, want) {
			t.Errorf("%v: %v", args, out)
		}
		s, err := m.b.State()
		if err != nil || !bytes.Equal(s.RAPI.Cert, cert) || !bytes.Equal(s.RAPI.Key.Reveal(), key) {
			t.Fatalf("%v: it is not installed: %v", args, err)
		}
		m.b.Do(state.KindRAPICert, state.RAPICertChange{})
	}
	m.want(Cluster, "renew-crypto", "--dry-run", "--rapi-certificate", writeTemp(t, key, cert))
	if s, err := m.b.State(); err != nil || len(s.RAPI.Cert) > 0 {
		t.Errorf("a dry run installs it: %v", err)
	}
}

func TestRenewCryptoStatus(t *testing.T) {
	m := upgraded(t, 1)
	m.fail(ExitFailed, "No renewal is known", Cluster, "renew-crypto", "--status")
	u := succeeds(`[]`)
	u.Progress = []string{"gossip key: used by 1 of 1 nodes"}
	u.Unreachable = &[]state.Unreachable{{Node: "node9.lab.test"}}
	m.ends(u)
	m.fail(ExitPending, "node9.lab.test", Cluster, "renew-crypto", "--new-gossip-key")
	var out map[string]any
	if m.wantJSON(&out, Cluster, "renew-crypto", "--status", "--json"); out["id"] != 1.0 || out["status"] != "success" {
		t.Errorf("%v", out)
	}
	if text := m.want(Cluster, "renew-crypto", "--status"); !strings.Contains(text, "used by 1 of 1") || !strings.Contains(text, "still to be renewed: none") {
		t.Errorf("%s", text)
	}
	s, err := m.b.State()
	if err != nil {
		t.Fatal(err)
	}
	id := s.Candidates()[0].UUID
	m.b.Do(state.KindNodesCerts, state.NodesCerts{Stale: []state.StaleNode{{Node: id, Since: m.b.Now()}, {Node: id, Signing: true}}})
	if text := m.want(Cluster, "renew-crypto", "--status"); !strings.Contains(text, "certificates, signing key") {
		t.Errorf("%s", text)
	}
	if m.wantJSON(&out, Cluster, "renew-crypto", "--status", "--json"); out["authorities"] != 1.0 || len(out["behind"].([]any)) != 1 {
		t.Errorf("%v", out)
	}
	m.fail(ExitPending, "node9.lab.test", Cluster, "renew-crypto", "--resume")
	m.fail(ExitFailed, "has ended: success", Cluster, "renew-crypto", "--abort")
}
