package kit

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"rolekey/internal/lab"
)

// callLimit bounds one call, and the opening of one connection.
const callLimit = 10 * time.Second

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// Caller opens connections with one certificate from one address. It trusts
// whoever answers: it is the server that must not trust the caller.
type Caller struct {
	From netip.Addr       // zero: any
	Node lab.Node         // where, if it has a network of its own
	Cert *tls.Certificate // nil: none
}

// Answer is what a server replied. Code and Message are those of a refusal.
type Answer struct {
	Status  int
	Code    string
	Message string
	Body    []byte
}

// OK reports whether the call was served.
func (a Answer) OK() bool { return a.Status == http.StatusOK }

// String is the status, and the code of a refusal.
func (a Answer) String() string {
	if a.Code == "" {
		return fmt.Sprint(a.Status)
	}
	return fmt.Sprintf("%d %s", a.Status, a.Code)
}

// Conn is one connection with HTTP/2. It may be used by several goroutines.
type Conn struct {
	raw   *tap
	cc    *http.ClientConn
	State tls.ConnectionState
}

// tap notices when the other end closes the connection: HTTP/2 always reads.
type tap struct {
	net.Conn
	once sync.Once
	gone chan struct{}
}

// Read implements net.Conn.
func (t *tap) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if err != nil {
		t.once.Do(func() { close(t.gone) })
	}
	return n, err
}

type dialledKey struct{}

// transport only turns connections into HTTP/2; it keeps none.
var transport = func() *http.Transport {
	t := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return ctx.Value(dialledKey{}).(net.Conn), nil
		},
		DisableCompression: true,
		Protocols:          new(http.Protocols),
	}
	t.Protocols.SetHTTP2(true)
	return t
}()

// Dial opens a TCP connection from the caller's address.
func (c Caller) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if c.From.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.From, 0))
	}
	return c.Node.Dial(ctx, &d, to.String())
}

// TLS is the caller's configuration.
func (c Caller) TLS() *tls.Config {
	own := c.Cert
	if own == nil {
		own = &tls.Certificate{}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		InsecureSkipVerify: true, // an attacker does not mind whom it attacks
		// Whatever the server says it accepts, this is what it gets.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil },
	}
}

// Open connects. The handshake alone proves nothing: TLS 1.3 tells a client of
// a refused certificate only with the first answer.
func (c Caller) Open(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	nc, err := c.Dial(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	raw := &tap{Conn: nc, gone: make(chan struct{})}
	conn := tls.Client(raw, c.TLS())
	if err := conn.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	cc, err := transport.NewClientConn(context.WithValue(ctx, dialledKey{}, conn), "https", to.String())
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	return &Conn{raw: raw, cc: cc, State: conn.ConnectionState()}, nil
}

// Do makes one call on the connection. Body is nil, bytes, or anything that
// becomes JSON; header may be nil.
func (c *Conn) Do(ctx context.Context, verb, path string, header http.Header, body any) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	text, err := encode(body)
	if err != nil {
		return Answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, verb, "https://node"+path, bytes.NewReader(text))
	if err != nil {
		return Answer{}, err
	}
	if header != nil {
		req.Header = header
	}
	if len(text) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.cc.RoundTrip(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}

func encode(body any) ([]byte, error) {
	switch v := body.(type) {
	case nil:
		return nil, nil
	case []byte:
		return v, nil
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode body: %w", err)
	}
	return text, nil
}

func readAnswer(resp *http.Response) (Answer, error) {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return Answer{}, fmt.Errorf("read answer: %w", err)
	}
	a := Answer{Status: resp.StatusCode, Body: text}
	var refusal struct{ Code, Message string }
	if !a.OK() && json.Unmarshal(text, &refusal) == nil {
		a.Code, a.Message = refusal.Code, refusal.Message
	}
	return a, nil
}

// Gone is closed when the other end has closed the connection.
func (c *Conn) Gone() <-chan struct{} { return c.raw.gone }

// Close closes the connection.
func (c *Conn) Close() {
	_ = c.cc.Close() // whoever closes expects nothing of it any more
	_ = c.raw.Close()
}

// Call makes one call on a connection of its own.
func (c Caller) Call(ctx context.Context, to netip.AddrPort, verb, path string, header http.Header, body any) (Answer, error) {
	conn, err := c.Open(ctx, to)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	return conn.Do(ctx, verb, path, header, body)
}

// Refused returns nil if the answer has one of the codes; anything else, such
// as a served call or a server that is not there, is an error.
func Refused(a Answer, err error, codes ...string) error {
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	for _, code := range codes {
		if a.Code == code {
			return nil
		}
	}
	if a.OK() {
		return errors.New("the call was served")
	}
	return fmt.Errorf("answered %s (%s), want %v", a, a.Message, codes)
}
