package noded

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net/http"
	"sync"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/pki"
	"rolekey/rpc"
)

// fakeMasterd answers on masterd.sock as masterd does, and fails on order.
type fakeMasterd struct {
	h       *host
	world   *world // set by bootstrap
	signing ed25519.PrivateKey
	client  crypto.Signer
	views   chan rpc.LocalViewReply
	gone    chan struct{} // keys were destroyed

	mu        sync.Mutex
	fail      func(path string) error // before an answer, after its effect
	boots     int
	cert      []byte
	destroyed bool
	late      bool // it has not heard of the map in force
	stop      func()
}

func newFakeMasterd(h *host) *fakeMasterd {
	_, signing, _ := ed25519.GenerateKey(rand.Reader)
	client, err := pki.GenerateKey()
	if err != nil {
		h.t.Fatal(err)
	}
	return &fakeMasterd{
		h: h, signing: signing, client: client, views: make(chan rpc.LocalViewReply, 1000), gone: make(chan struct{}, 100),
		stop: func() {},
	}
}

func (f *fakeMasterd) start() {
	l, err := paths.ListenUnix(f.h.cfg.Paths.MasterdSock(), 0o600)
	if err != nil {
		f.h.t.Fatal(err)
	}
	mux := http.NewServeMux()
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalBootstrap, f.bootstrap)
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalKeysCreate, f.create)
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalKeysDestroy, f.destroy)
	rpc.HandleLocal(mux, http.MethodGet, rpc.LocalKeysState, f.state)
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalView, func(ctx context.Context, v *rpc.LocalViewReply) (any, error) {
		f.views <- *v
		err := f.failing(rpc.LocalView)
		if err == nil {
			f.setLate(false)
		}
		return nil, err
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- rpc.ServeLocal(ctx, l, mux) }()
	f.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			f.h.t.Error(err)
		}
		f.stop = func() {}
	}
	f.h.t.Cleanup(func() { f.stop() })
}

func (f *fakeMasterd) setLate(late bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = late
}

func (f *fakeMasterd) setFail(fn func(path string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fn
}

func (f *fakeMasterd) failing(path string) error {
	f.mu.Lock()
	fn := f.fail
	f.mu.Unlock()
	if fn == nil {
		return nil
	}
	return fn(path)
}

var errLost = errors.New("the reply was lost")

// failOnce fails the first call of a path.
func failOnce(path string) func(string) error {
	var once sync.Once
	return func(p string) (err error) {
		if p == path {
			once.Do(func() { err = errLost })
		}
		return err
	}
}

func (f *fakeMasterd) bootstrap(_ context.Context, r *rpc.BootstrapRequest) (any, error) {
	f.boots++
	if f.world == nil {
		f.world = foundWorld(f, r)
	}
	if f.world.id != r.Cluster {
		return nil, cluster.Errorf(cluster.CodeConflict, "masterd holds keys of another cluster")
	}
	if err := f.failing(rpc.LocalBootstrap); err != nil {
		return nil, err
	}
	return f.world.boot, nil
}

func (f *fakeMasterd) keys(r rpc.LocalKeysRequest) (rpc.CandidateKeys, error) {
	csr, err := pki.NewCSR(f.client)
	if err != nil {
		return rpc.CandidateKeys{}, err
	}
	proof, err := pki.ProvePossession(f.signing, r.Cluster, r.Node, r.Incarnation)
	keys := rpc.CandidateKeys{CSR: csr, Signing: candmap.SigningKey(f.signing.Public().(ed25519.PublicKey)), Possession: proof}
	if f.cert != nil {
		keys.Installed = cluster.DigestOf(f.cert)
	}
	return keys, err
}

func (f *fakeMasterd) create(_ context.Context, r *rpc.LocalKeysRequest) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(r.Certificate) > 0 {
		f.cert = r.Certificate
	}
	f.destroyed = false
	return f.keys(*r)
}

func (f *fakeMasterd) destroy(context.Context, *struct{}) (any, error) {
	f.mu.Lock()
	late := f.late
	if !late {
		f.destroyed, f.cert = true, nil
	}
	f.mu.Unlock()
	if late {
		return nil, cluster.Errorf(cluster.CodeBusy, "the map that masterd holds still names this node")
	}
	if err := f.failing(rpc.LocalKeysDestroy); err != nil {
		return nil, err
	}
	f.gone <- struct{}{}
	return rpc.KeyDestroyReply{Removed: []string{"masterd's keys"}}, nil
}

func (f *fakeMasterd) state(context.Context, *struct{}) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := rpc.LocalKeysReply{Present: f.cert != nil}
	if f.cert != nil {
		r.Client = append(r.Client, cluster.DigestOf(f.cert))
	}
	return r, nil
}

// certificate is what this candidate calls and serves with.
func (f *fakeMasterd) certificate() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cert == nil {
		return nil, errors.New("no candidate certificate")
	}
	return &tls.Certificate{Certificate: [][]byte{f.cert}, PrivateKey: f.client}, nil
}
