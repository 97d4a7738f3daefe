package kit

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// probeGap is the time between two calls of a Siege on one connection. It does
// not bound the resolution, since the end of a connection is seen at once, and
// it leaves the processors to the cluster.
const probeGap = 20 * time.Millisecond

// Siege keeps asking servers with one certificate, each over a connection that
// stays open, until each has closed that connection and has also refused a
// new one.
type Siege struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu   sync.Mutex
	seen map[netip.AddrPort]Fall
	errs []error
}

// Fall is how one server's answers went.
type Fall struct {
	Served  int       // calls that were served
	Closed  time.Time // when the open connection was closed
	Refused time.Time // when a new connection was first refused
	Answer  Answer    // that refusal
}

// LaySiege opens a connection to every server and returns when each has served
// one call of the candidate tier: from then on its patience is measured.
func LaySiege(ctx context.Context, c Caller, servers ...netip.AddrPort) (*Siege, error) {
	s := &Siege{seen: map[netip.AddrPort]Fall{}}
	ctx, s.cancel = context.WithCancel(ctx)
	for _, at := range servers {
		conn, err := c.Open(ctx, at)
		if err != nil {
			s.cancel()
			s.wait.Wait()
			return nil, err
		}
		if a, err := conn.Do(ctx, http.MethodGet, "/v1/state", nil, nil); err != nil || !a.OK() {
			conn.Close()
			s.cancel()
			s.wait.Wait()
			return nil, fmt.Errorf("%s does not serve before the siege: %s, %w", at, a, err)
		}
		s.wait.Go(func() { s.besiege(ctx, c, at, conn) })
	}
	return s, nil
}

// besiege asks one server until it refuses.
func (s *Siege) besiege(ctx context.Context, c Caller, at netip.AddrPort, conn *Conn) {
	f := Fall{Served: 1}
	defer conn.Close()
	err := s.cling(ctx, conn, &f)
	if err == nil {
		f.Closed = time.Now()
		err = s.knock(ctx, c, at, &f)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", at, err)
	}
	s.put(at, f, err)
}

// cling uses the open connection until the server closes it.
func (s *Siege) cling(ctx context.Context, conn *Conn, f *Fall) error {
	next := time.NewTicker(probeGap)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-conn.Gone():
			return nil
		case <-next.C:
		}
		a, err := conn.Do(ctx, http.MethodGet, "/v1/state", nil, nil)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil: // the connection ended in the middle of a call
			return nil
		case !a.OK():
			// The map is in force; its connections are being closed.
			return awaitEnd(ctx, conn, a)
		}
		f.Served++
	}
}

// awaitEnd waits for the end of a connection whose calls are refused.
func awaitEnd(ctx context.Context, conn *Conn, a Answer) error {
	select {
	case <-conn.Gone():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("refused with %s on an open connection, and left it open", a)
	}
}

// knock opens new connections until one is refused.
func (s *Siege) knock(ctx context.Context, c Caller, at netip.AddrPort, f *Fall) error {
	for {
		a, err := c.Call(ctx, at, http.MethodGet, "/v1/state", nil, nil)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("new connection: %w", err)
		case !a.OK():
			f.Refused, f.Answer = time.Now(), a
			return nil
		}
		f.Served++
	}
}

func (s *Siege) put(at netip.AddrPort, f Fall, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[at] = f
	if err != nil {
		s.errs = append(s.errs, err)
	}
}

// Lift waits until all servers have refused, at most for limit, and returns
// how each went.
func (s *Siege) Lift(limit time.Duration) (map[netip.AddrPort]Fall, error) {
	timer := time.AfterFunc(limit, s.cancel)
	s.wait.Wait()
	timer.Stop()
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) > 0 {
		return s.seen, fmt.Errorf("wait for refusals: %w", s.errs[0])
	}
	return s.seen, nil
}

// Last is when the last server had refused, both ways.
func Last(falls map[netip.AddrPort]Fall) time.Time {
	var last time.Time
	for _, f := range falls {
		for _, t := range []time.Time{f.Closed, f.Refused} {
			if t.After(last) {
				last = t
			}
		}
	}
	return last
}

// pause waits, or ends early with the context.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Until asks, with short pauses, until the question has no error, and returns
// how long that took. After limit it gives the last error.
func Until(ctx context.Context, limit time.Duration, question func(context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	for {
		err := question(ctx)
		if err == nil {
			return time.Since(start), nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return time.Since(start), fmt.Errorf("after %v: %w", limit, err)
		}
	}
}
