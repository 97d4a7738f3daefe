package masterd

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
	"rolekey/rpc"
)

func csrOf(t *testing.T) []byte {
	t.Helper()
	key, err := pki.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func bootstrapRequest(t *testing.T) *rpc.BootstrapRequest {
	t.Helper()
	p := state.DefaultParams
	return &rpc.BootstrapRequest{
		Cluster: statetest.ID(0xc1), Node: statetest.ID(1), Ports: cluster.DefaultPorts,
		Init: rpc.InitRequest{
			Cluster: "lab.test", Node: statetest.Name(1), Addresses: []netip.Addr{statetest.Addr(1)}, NoRecoveryKey: true,
			CandidatePoolSize: p.CandidatePoolSize, LeaseSeconds: p.LeaseSeconds, SSHLeaseSeconds: p.SSHLeaseSeconds,
			Policy: p.Policy, SSHReach: p.SSHReach, SSHSetup: true,
		},
		Server: csrOf(t), Identity: csrOf(t), HostKeys: []cluster.SSHKey{statetest.SSHKey(1, "host")},
		SSH: []cluster.SSHKey{statetest.SSHKey(1, "root")}, Now: time.Now(),
	}
}

func bootstrap(t *testing.T, at paths.Layout, r *rpc.BootstrapRequest) (rpc.BootstrapReply, error) {
	t.Helper()
	out, err := New(Config{Paths: at}).bootstrap(t.Context(), r)
	if err != nil {
		return rpc.BootstrapReply{}, err
	}
	reply, ok := out.(rpc.BootstrapReply)
	if !ok {
		t.Fatalf("the answer is a %T", out)
	}
	return reply, nil
}

func mustBootstrap(t *testing.T, at paths.Layout, r *rpc.BootstrapRequest) rpc.BootstrapReply {
	t.Helper()
	reply, err := bootstrap(t, at, r)
	if err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	return reply
}

func sameReply(t *testing.T, a, b rpc.BootstrapReply) bool {
	t.Helper()
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

func TestBootstrapFoundsACluster(t *testing.T) {
	at, r := layout(t), bootstrapRequest(t)
	reply := mustBootstrap(t, at, r)
	first, err := candmap.Genesis(reply.Map, reply.Map.Hash())
	if err != nil {
		t.Fatal(err)
	}
	if first.Cluster != r.Cluster || first.Master != r.Node || first.At() != (cluster.Version{Epoch: 1, Version: 1}) {
		t.Errorf("map %s of %s names master %s", first.At(), first.Cluster, first.Master)
	}
	roots, err := rootsOf(reply.CA)
	if err != nil {
		t.Fatal(err)
	}
	for kind, der := range map[pki.Kind][]byte{pki.KindServer: reply.Server, pki.KindIdentity: reply.Identity} {
		cert, err := pki.ParseCertDER(der)
		if err != nil {
			t.Fatal(err)
		}
		id, err := pki.VerifyAny(roots, []*x509.Certificate{cert}, time.Now(), kind)
		if err != nil || id.Node != r.Node {
			t.Errorf("%s certificate: %v", kind, err)
		}
	}
	roster, err := candmap.AssembleRoster(first.Roster, func(d cluster.Digest) []byte {
		for _, doc := range reply.Docs {
			if cluster.DigestOf(doc) == d {
				return doc
			}
		}
		return nil
	})
	if err != nil || roster.Node(r.Node) == nil {
		t.Errorf("roster: %v", err)
	}
	if len(reply.Gossip) != gossipKeySize {
		t.Errorf("gossip key of %d bytes", len(reply.Gossip))
	}
	v := newVault(at)
	if err := v.open(contextOf(keysOf(1, 1))); err != nil || v.certificate() == nil {
		t.Fatalf("candidate keys: %v", err)
	}
	if first.ByClient(cluster.DigestOf(v.certificate().Certificate[0])) == nil {
		t.Error("the map does not name the installed certificate")
	}
}

// TestG7BootstrapAgain: init that was interrupted after the commit is asked
// for again, and gets the same answer.
func TestG7BootstrapAgain(t *testing.T) {
	at, r := layout(t), bootstrapRequest(t)
	first := mustBootstrap(t, at, r)
	for range 5 {
		later := *r
		later.Now = r.Now.Add(time.Hour)
		later.Server, later.Identity = csrOf(t), csrOf(t)
		if !sameReply(t, first, mustBootstrap(t, at, &later)) {
			t.Fatal("asked again, the answer is another")
		}
	}
}

// TestG7BootstrapAfterACrash removes what came last, step by step, as a crash
// before that would have left it. As long as the snapshot is not there, nothing
// is committed, and the request starts anew.
func TestG7BootstrapAfterACrash(t *testing.T) {
	steps := []func(at paths.Layout) string{
		paths.Layout.SnapshotDir, paths.Layout.RaftDB, paths.Layout.CandidateCert, paths.Layout.CandidateKey,
		paths.Layout.SigningKey, paths.Layout.Keyring, paths.Layout.MasterdDir,
	}
	for undo := range steps {
		for _, emptyDir := range []bool{false, true} {
			at, r := layout(t), bootstrapRequest(t)
			first := mustBootstrap(t, at, r)
			for _, step := range steps[:undo+1] {
				if err := os.RemoveAll(step(at)); err != nil {
					t.Fatal(err)
				}
			}
			if emptyDir && undo < len(steps)-2 { // OpenSnapshots made the folder
				if err := os.MkdirAll(at.SnapshotDir(), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			second, err := bootstrap(t, at, r)
			if err != nil {
				t.Errorf("after %d steps undone: %v", undo+1, err)
				continue
			}
			if sameReply(t, first, second) {
				t.Errorf("after %d steps undone: what was never committed came back", undo+1)
			}
			if !sameReply(t, second, mustBootstrap(t, at, r)) {
				t.Errorf("after %d steps undone: the second founding is not kept", undo+1)
			}
			startsRaft(t, at)
		}
	}
}

// startsRaft checks that a member would start from what was founded.
func startsRaft(t *testing.T, at paths.Layout) {
	t.Helper()
	v := newVault(at)
	if err := v.open(contextOf(keysOf(1, 1))); err != nil {
		t.Fatal(err)
	}
	store, err := consensus.OpenStore(consensus.StoreConfig{Path: at.RaftDB(), Sealer: v.keyring()})
	if err != nil {
		t.Fatal(err)
	}
	snaps, err := consensus.OpenSnapshots(consensus.SnapshotsConfig{Dir: at.SnapshotDir(), Keyring: v.keyring()})
	if err == nil {
		_, err = consensus.Probe(store, snaps)
	}
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	if list, err := snaps.List(); err != nil || len(list) != 1 {
		t.Errorf("%d snapshots, %v", len(list), err)
	}
}

// TestBootstrapOverTemporaries: a write was interrupted by power loss.
func TestBootstrapOverTemporaries(t *testing.T) {
	at, r := layout(t), bootstrapRequest(t)
	if err := os.MkdirAll(at.MasterdDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".keyring.rolekey-tmp", ".signing.key.rolekey-tmp", ".candidate.key.rolekey-tmp"} {
		if err := os.WriteFile(filepath.Join(at.MasterdDir(), name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustBootstrap(t, at, r)
}

func TestBootstrapRefusesForeignState(t *testing.T) {
	for name, change := range map[string]func(r *rpc.BootstrapRequest){
		"another cluster": func(r *rpc.BootstrapRequest) { r.Cluster = statetest.ID(0xc2) },
		"another node":    func(r *rpc.BootstrapRequest) { r.Node = statetest.ID(2) },
	} {
		at, r := layout(t), bootstrapRequest(t)
		first := mustBootstrap(t, at, r)
		other := *r
		change(&other)
		_, err := bootstrap(t, at, &other)
		var ce *cluster.Error
		if !errors.As(err, &ce) || ce.Code != cluster.CodeConflict || !strings.Contains(ce.Hint, "remove that folder") || !strings.Contains(err.Error(), at.MasterdDir()) {
			t.Errorf("%s: %v", name, err)
		}
		if !sameReply(t, first, mustBootstrap(t, at, r)) {
			t.Errorf("%s: the state was touched", name)
		}
	}
	at := layout(t)
	complete(t, at)
	if err := os.Remove(at.Keyring()); err != nil {
		t.Fatal(err)
	}
	if _, err := bootstrap(t, at, bootstrapRequest(t)); cluster.CodeOf(err) != cluster.CodeConflict {
		t.Errorf("sealed files without their keyring: %v", err)
	}
}

func TestBootstrapRefusesAMember(t *testing.T) {
	d := New(Config{Paths: layout(t)})
	d.setStanding(&standing{})
	_, err := d.bootstrap(t.Context(), bootstrapRequest(t))
	var ce *cluster.Error
	if !errors.As(err, &ce) || ce.Code != cluster.CodeConflict || !strings.Contains(ce.Hint, "noded leave") {
		t.Errorf("a member of a cluster founds one: %v", err)
	}
}

// TestBootstrapRefusesBadRequests and leaves nothing committed, so that the
// right one works afterwards.
func TestBootstrapRefusesBadRequests(t *testing.T) {
	at := layout(t)
	for name, change := range map[string]func(r *rpc.BootstrapRequest){
		"no name":            func(r *rpc.BootstrapRequest) { r.Init.Cluster = "" },
		"no node name":       func(r *rpc.BootstrapRequest) { r.Init.Node = "" },
		"no address":         func(r *rpc.BootstrapRequest) { r.Init.Addresses = nil },
		"no request":         func(r *rpc.BootstrapRequest) { r.Server = nil },
		"a damaged request":  func(r *rpc.BootstrapRequest) { r.Identity = slices.Clone(r.Identity[:len(r.Identity)-3]) },
		"no pool":            func(r *rpc.BootstrapRequest) { r.Init.CandidatePoolSize = 0 },
		"a lease of a week":  func(r *rpc.BootstrapRequest) { r.Init.LeaseSeconds = 7 * 24 * 3600 },
		"an unknown policy":  func(r *rpc.BootstrapRequest) { r.Init.Policy = "maybe" },
		"two equal ports":    func(r *rpc.BootstrapRequest) { r.Ports.Gossip = r.Ports.Noded },
		"a time out of eras": func(r *rpc.BootstrapRequest) { r.Now = time.Time{} },
	} {
		r := bootstrapRequest(t)
		change(r)
		if _, err := bootstrap(t, at, r); err == nil {
			t.Fatalf("%s: a cluster was founded", name)
		}
	}
	mustBootstrap(t, at, bootstrapRequest(t))
}
