package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
)

// peer is a daemon that is called, with at most one connection in use.
type peer struct {
	client *Client
	key    peerKey
	host   string

	mu   sync.Mutex
	cur  *link
	dial *dialing // nil: none under way
	good int      // index of the address that answered last
}

// dialing is a dial that any number of calls wait for.
type dialing struct {
	done chan struct{}
	link *link
	err  error // set before done is closed
}

// link is an open connection to a peer.
type link struct {
	cc     *http.ClientConn
	raw    *meter
	own    []byte // certificate that was presented, DER; empty: none
	server Peer
	judged atomic.Pointer[candmap.View] // the view that vouched for the server last

	calls   int  // in flight; guarded by peer.mu
	retired bool // closed when the last call has ended; guarded by peer.mu
}

var errClosed = errors.New("client is closed")

// maxDials bounds how often one call waits for a connection that is of no use
// as soon as it is open, because the map changed meanwhile.
const maxDials = 3

// acquire returns a connection for one call. Reused says that it is not known
// to be alive: it was opened before.
func (p *peer) acquire(ctx context.Context) (l *link, reused bool, err error) {
	for range maxDials {
		l, d, err := p.linkOrDial()
		if l != nil || err != nil {
			return l, true, err
		}
		select {
		case <-d.done:
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
		if d.err != nil {
			return nil, false, d.err
		}
		if p.take(d.link) {
			return d.link, false, nil
		}
	}
	return nil, false, errors.New("connections end as soon as they are open")
}

// take counts a call on a link that was just dialled. The map may have changed
// since its server was judged, and so may this side's certificate: somebody else
// may have begun the dial.
func (p *peer) take(l *link) bool {
	own, err := p.client.certificate()
	view := p.client.cfg.View()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || p.cur != l || l.cc.Err() != nil || !bytes.Equal(l.own, leafOf(own)) || p.vouch(l, view) != nil {
		return false
	}
	l.calls++
	return true
}

func (p *peer) linkOrDial() (*link, *dialing, error) {
	own, err := p.client.certificate()
	if err != nil {
		return nil, nil, err
	}
	view := p.client.cfg.View()
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.cur; l != nil {
		if err := p.vouch(l, view); err != nil {
			p.disown(l, err)
		} else if l.cc.Err() != nil || !bytes.Equal(l.own, leafOf(own)) {
			p.retire(l)
		} else {
			l.calls++
			return l, nil, nil
		}
	}
	if p.dial == nil {
		d := &dialing{done: make(chan struct{})}
		if !p.client.goDial(func(ctx context.Context) { p.run(ctx, d, own) }) {
			return nil, nil, errClosed
		}
		p.dial = d
	}
	return nil, p.dial, nil
}

// goDial runs f, which the client's end waits for.
func (c *Client) goDial(f func(context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.dials.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, c.cfg.DialTimeout)
		defer cancel()
		f(ctx)
	})
	return true
}

// run dials, on behalf of every call that waits: it does not end with the one
// that came first.
func (p *peer) run(ctx context.Context, d *dialing, own *tls.Certificate) {
	l, err := p.open(ctx, own)
	p.mu.Lock()
	defer p.mu.Unlock()
	d.link, d.err = l, err
	if err == nil {
		p.cur = l
	}
	p.dial = nil
	close(d.done)
}

// vouch checks the server of a link against a view, once for each view.
func (p *peer) vouch(l *link, view *candmap.View) error {
	if view != nil && l.judged.Load() == view {
		return nil
	}
	if err := vouch(view, p.key, &l.server); err != nil {
		return err
	}
	l.judged.Store(view)
	return nil
}

// mayAsk refuses calls to a server whose certificate has ended. Its noded is still
// known by the pin, and gets what makes it fresh again, and shows what proves
// itself; nothing else is asked of it until it has renewed.
func (l *link) mayAsk(daemon Daemon, m *Method, now time.Time) error {
	id := &l.server.Identity
	if !id.Ended(now) || daemon == Noded && !id.Lapsed(now) && (m.Tier == TierOpen || m.Ended) {
		return nil
	}
	return cluster.Errorf(cluster.CodeIdentityMismatch, "the server's certificate ended %s", id.NotAfter.UTC().Format(time.RFC3339)).
		WithHint("the node renews it by itself; if not, check its clock and its log")
}

// retire takes a link out of use; calls in flight on it go on.
func (p *peer) retire(l *link) {
	if p.cur == l {
		p.cur = nil
	}
	l.retired = true
	if l.calls == 0 {
		l.close()
	}
}

// release ends a call. A link that failed it is not used again.
func (p *peer) release(l *link, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.calls--
	if failed {
		p.retire(l)
	} else if l.calls == 0 && l.retired {
		l.close()
	}
}

// drop closes the connection, with its calls in flight.
func (p *peer) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.cur; l != nil {
		p.cur = nil
		l.abort()
	}
}

func (p *peer) recheck(view *candmap.View) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.cur; l != nil {
		if err := p.vouch(l, view); err != nil {
			p.disown(l, err)
		}
	}
}

// disown closes a link whose server the map no longer names.
func (p *peer) disown(l *link, err error) {
	p.client.cfg.Log.Info("closing connection", zap.Stringer("daemon", p.key.daemon), zap.Stringer("node", p.key.node), zap.Error(err))
	p.cur = nil
	l.abort()
}

// name is what errors call the peer.
func (p *peer) name() string {
	if name := nameOf(p.client.cfg.View(), p.key.node); name != "" {
		return string(name)
	}
	return p.host
}

func nameOf(view *candmap.View, id cluster.NodeID) cluster.Name {
	if view == nil {
		return ""
	}
	if view.Roster != nil {
		if n := view.Roster.Node(id); n != nil {
			return n.Name
		}
	}
	if view.Map != nil {
		if c := view.Map.Candidate(id); c != nil {
			return c.Name
		}
	}
	return ""
}

// silence is how long a connection may bring nothing at all while a call waits
// in vain, before it is held to be dead.
const silence = time.Second

// send makes one call over the link, and reports whether the link failed it. A
// call that was given up is no failure, unless the connection brought nothing
// at all meanwhile: after a partition, TCP itself would wait for minutes.
func (l *link) send(ctx context.Context, p *peer, out *outgoing) (failed bool, err error) {
	before, start := l.raw.reads.Load(), time.Now()
	answered, err := out.exchange(ctx, l.cc, p.host, p.name())
	if answered || err == nil {
		return false, err
	}
	silent := l.raw.reads.Load() == before && time.Since(start) >= silence
	return silent || ctx.Err() == nil, err
}

func (l *link) close() { _ = l.cc.Close() }

// abort closes the socket first: what is in flight ends at once.
func (l *link) abort() {
	l.raw.abort()
	_ = l.cc.Close()
}

// meter is a socket that counts what arrives.
type meter struct {
	net.Conn
	reads atomic.Uint64
}

// Read implements net.Conn.
func (m *meter) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if n > 0 {
		m.reads.Add(1)
	}
	return n, err
}

func (m *meter) abort() {
	if l, ok := m.Conn.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // fails only on a socket that is closed already
	}
	_ = m.Conn.Close()
}
