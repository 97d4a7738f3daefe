package rapi

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"rolekey/cluster"
	"rolekey/internal/webserver"
	"rolekey/masterd/state"
)

// Bounds of logins. A password costs about 60 ms of a processor to check, so
// few are checked at a time, and a peer that is wrong again and again waits.
const (
	checksAtOnce  = 2
	checkPatience = 5 * time.Second
	cacheLife     = time.Minute
	cacheSize     = 1024
	freeFailures  = 10               // of one peer, before it is throttled
	failureEvery  = 10 * time.Second // after which one more is forgiven
	throttledMax  = 4096             // peers remembered
)

// Logins tells who a remote caller is: by client certificate, or by password.
// What was checked is remembered for a short time, bound to the very hash that
// it was checked against, so that a changed or removed user is refused at once.
// Its methods may be called concurrently.
type Logins struct {
	state  func() (*state.State, error)
	now    func() time.Time
	slots  chan struct{}
	secret [32]byte // of the cache's keys, so that it holds no password

	mu     sync.Mutex
	known  map[[32]byte]time.Time
	failed map[netip.Prefix]*debt
	nobody func() (cluster.Secret, error) // a hash that no password fits
}

// debt is how much a peer has failed: it sinks by one each failureEvery.
type debt struct {
	count float64
	at    time.Time
}

// NewLogins makes the logins of a candidate.
func NewLogins(state func() (*state.State, error), now func() time.Time) *Logins {
	l := &Logins{
		state: state, now: now, slots: make(chan struct{}, checksAtOnce),
		known: map[[32]byte]time.Time{}, failed: map[netip.Prefix]*debt{},
	}
	_, _ = rand.Read(l.secret[:]) // never fails since Go 1.24
	// Made at the first login: a node that was promoted has other work.
	l.nobody = sync.OnceValues(func() (cluster.Secret, error) { return hash("", l.secret[:]) })
	return l
}

// Identify returns who asks. A certificate that is not an administrator's is
// refused even beside a good password: whoever shows one means it.
func (l *Logins) Identify(r *http.Request) (Caller, error) {
	s, err := l.state()
	if err != nil {
		return Caller{}, err
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return l.byCertificate(s, r)
	}
	name, password, ok := r.BasicAuth()
	if !ok {
		return Caller{}, errUnauthorized
	}
	u, err := l.check(r.Context(), s, webserver.Network(r.RemoteAddr), name, password)
	if err != nil {
		return Caller{}, err
	}
	return Caller{Actor: "user " + u.Name + " (RAPI)", Permission: u.Permission}, nil
}

// byCertificate trusts the digest in the replicated state, and the
// certificate's own times.
func (l *Logins) byCertificate(s *state.State, r *http.Request) (Caller, error) {
	cert, now := r.TLS.PeerCertificates[0], l.now()
	a := s.RAPI.Admin(cluster.DigestOf(cert.Raw))
	if a == nil || now.Before(cert.NotBefore) || now.After(cert.NotAfter) || now.After(a.NotAfter) {
		return Caller{}, errUnauthorized
	}
	return Caller{Actor: "administrator " + a.Name + " (RAPI)", Permission: a.Permission}, nil
}

// check returns the user. A wrong name takes as long as a wrong password.
func (l *Logins) check(ctx context.Context, s *state.State, peer netip.Prefix, name, password string) (*state.RAPIUser, error) {
	kept, err := l.nobody()
	if err != nil {
		return nil, err
	}
	u := s.RAPI.User(name)
	if u != nil {
		kept = u.Hash
	}
	key := l.key(kept, name, password)
	if u != nil && l.recall(key) {
		return u, nil
	}
	if wait := l.owes(peer); wait > 0 {
		return nil, tooMany(wait)
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		return nil, cluster.Errorf(cluster.CodeBusy, "too many logins at a time")
	}
	// Those who waited with it may have failed meanwhile: a peer that asks a
	// thousand times at once has no thousand guesses.
	if wait := l.owes(peer); wait > 0 {
		return nil, tooMany(wait)
	}
	if !fits(kept, name, password) || u == nil {
		l.fail(peer)
		return nil, errUnauthorized
	}
	l.remember(key)
	return u, nil
}

func tooMany(wait time.Duration) error {
	return cluster.Errorf(cluster.CodeBusy, "too many failed logins from this address; try again in %s", wait.Round(time.Second))
}

func (l *Logins) key(kept cluster.Secret, name, password string) (out [32]byte) {
	m := hmac.New(sha256.New, l.secret[:])
	for _, part := range [][]byte{kept.Reveal(), []byte(name), []byte(password)} {
		sum := sha256.Sum256(part)
		m.Write(sum[:])
	}
	m.Sum(out[:0])
	return out
}

func (l *Logins) recall(key [32]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now().Before(l.known[key])
}

func (l *Logins) remember(key [32]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for k, until := range l.known {
		if len(l.known) >= cacheSize || !now.Before(until) {
			delete(l.known, k)
		}
	}
	l.known[key] = now.Add(cacheLife)
}

// owes returns how long a peer has to wait before it may try again.
func (l *Logins) owes(p netip.Prefix) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.failed[p]
	if d == nil {
		return 0
	}
	if over := d.left(l.now()) - freeFailures; over > 0 {
		return time.Duration(over * float64(failureEvery))
	}
	return 0
}

func (l *Logins) fail(p netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for q, d := range l.failed {
		if len(l.failed) >= throttledMax || d.left(now) <= 0 {
			delete(l.failed, q)
		}
	}
	d := l.failed[p]
	if d == nil {
		d = &debt{}
		l.failed[p] = d
	}
	d.count, d.at = d.left(now)+1, now
}

func (d *debt) left(now time.Time) float64 {
	return max(0, d.count-now.Sub(d.at).Seconds()/failureEvery.Seconds())
}
