package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/internal/lab"
	"rolekey/internal/webserver"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/rapitest"
	"rolekey/masterd/state"
	"rolekey/pki"
	"rolekey/tests/kit"
)

const (
	rapiUser     = "bench"
	rapiPassword = "a password of the bench"
	rapiWindow   = 400 * time.Millisecond
	slowClients  = 500
)

// remoteAPI measures RAPI over HTTPS: its largest answer against a bare server
// that sends the same bytes, what slow clients do to others, and a change of
// role from the request to the end of its job.
func remoteAPI(ctx context.Context, rounds int) error {
	if err := listAgainstBare(ctx, rounds); err != nil {
		return fmt.Errorf("rapi: %w", err)
	}
	return inside(ctx, lab.Config{Nodes: 8, CandidatePoolSize: 3}, rounds, "rapi")
}

// failing is what statetest wants of a test.
type failing struct{}

func (failing) Helper() {}

func (failing) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// serveBoth serves RAPI over a state of a thousand nodes, and a bare server, and
// returns their addresses.
func serveBoth(ctx context.Context) (api, bare string, end func() error, err error) {
	b := rapitest.New(failing{}, many)
	b.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelRAPI})
	hash, err := rapi.HashPassword([]byte(rapiPassword))
	if err != nil {
		return "", "", nil, err
	}
	b.Do(state.KindRAPIUser, state.RAPIUserChange{Name: rapiUser, Permission: cluster.PermissionWrite, Hash: hash})
	logins := rapi.NewLogins(b.State, b.Now)
	cert, err := selfIssued()
	if err != nil {
		return "", "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	serve := func(h http.Handler) (string, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		all.Go(func() {
			_ = webserver.Serve(ctx, webserver.Config{
				Listeners: []net.Listener{l}, Handler: h, Log: zap.NewNop(),
				Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
			})
		})
		return l.Addr().String(), nil
	}
	end = func() error { cancel(); all.Wait(); return nil }
	api, err = serve(rapi.NewRemote(b, b.Now, logins.Identify, func(audit.Event) {}))
	if err != nil {
		return "", "", end, err
	}
	text, err := fetch(ctx, newWebClient(), "https://"+api+"/2/nodes?bulk=1")
	if err != nil {
		return "", "", end, err
	}
	bare, err = serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	}))
	return api, bare, end, err
}

func selfIssued() (*tls.Certificate, error) {
	id := cluster.UUID{1}
	ca, err := pki.NewCA(id, "bench.example", time.Now())
	if err != nil {
		return nil, err
	}
	key, err := pki.GenerateKey()
	if err != nil {
		return nil, err
	}
	der, err := ca.IssueRAPI(pki.RAPIRequest{Node: id, Names: []cluster.Name{"bench.example"}, PublicKey: key.Public()}, time.Now())
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// newWebClient speaks HTTP/1.1, as curl does for Ganeti's client, and keeps its
// connections.
func newWebClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}, DisableCompression: true,
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}, MaxIdleConnsPerHost: 8,
	}}
}

func fetch(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.SetBasicAuth(rapiUser, rapiPassword)
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %.200s", url, resp.StatusCode, text)
	}
	return text, err
}

func listAgainstBare(ctx context.Context, rounds int) error {
	api, bare, end, err := serveBoth(ctx)
	if end != nil {
		defer end()
	}
	if err != nil {
		return err
	}
	c := newWebClient()
	defer c.CloseIdleConnections()
	var rate, ratio []float64
	for range rounds {
		ours, err := perSecond(ctx, c, "https://"+api+"/2/nodes?bulk=1")
		if err != nil {
			return err
		}
		theirs, err := perSecond(ctx, c, "https://"+bare+"/")
		if err != nil {
			return err
		}
		rate, ratio = append(rate, ours), append(ratio, ours/theirs)
	}
	show("RAPI, all of 1000 nodes, one client", "1/s", rate, target{})
	show("the same, share of a bare server that sends equal bytes", "x", ratio, atLeast(0.4))
	return slowAgainstOthers(ctx, api, max(3, rounds/4))
}

// perSecond returns how often a client gets a page in a second.
func perSecond(ctx context.Context, c *http.Client, url string) (float64, error) {
	n, start := 0, time.Now()
	for time.Since(start) < rapiWindow {
		if _, err := fetch(ctx, c, url); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// slowAgainstOthers compares the slowest hundredth of small requests with and
// without clients that send the head of a request byte by byte. Those come from
// several addresses, or the bound on one would turn them away.
func slowAgainstOthers(ctx context.Context, api string, rounds int) error {
	c := newWebClient()
	defer c.CloseIdleConnections()
	var ratio, p99 []float64
	for range rounds {
		alone, err := slowest(ctx, c, api)
		if err != nil {
			return err
		}
		end, err := drip(ctx, api)
		if err != nil {
			return err
		}
		beside, err := slowest(ctx, c, api)
		end()
		if err != nil {
			return err
		}
		ratio, p99 = append(ratio, beside/alone), append(p99, beside)
	}
	show("RAPI, slowest hundredth beside 500 slow clients", "ms", p99, target{})
	show("the same against the time without them", "x", ratio, atMost(3))
	return nil
}

func slowest(ctx context.Context, c *http.Client, api string) (float64, error) {
	var times []float64
	for start := time.Now(); time.Since(start) < 3*rapiWindow; {
		began := time.Now()
		if _, err := fetch(ctx, c, "https://"+api+"/2/nodes/node7.lab.test"); err != nil {
			return 0, err
		}
		times = append(times, ms(time.Since(began)))
	}
	slices.Sort(times)
	return times[len(times)*99/100], nil
}

// drip opens the slow clients; each sends a byte now and then.
func drip(ctx context.Context, api string) (end func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	open := make(chan error, slowClients)
	for i := range slowClients {
		all.Go(func() {
			d := tls.Dialer{
				NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 9, byte(1+i%8))}, Timeout: 20 * time.Second},
				Config:    &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}},
			}
			conn, err := d.DialContext(ctx, "tcp", api)
			open <- err
			if err != nil {
				return
			}
			defer conn.Close()
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for _, b := range []byte("GET /2/nodes?bulk=1 HTTP/1.1\r\nHost: x\r\nX-Slow: " + strings.Repeat("a", 1<<10)) {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
			}
		})
	}
	end = func() { cancel(); all.Wait() }
	for range slowClients {
		if err := <-open; err != nil {
			end()
			return nil, fmt.Errorf("open slow clients: %w", err)
		}
	}
	return end, nil
}

// remoteRoles sets a node's role over HTTPS, and waits for the end of the job.
func (b *bench) remoteRoles(ctx context.Context) error {
	hash, err := rapi.HashPassword([]byte(rapiPassword))
	if err != nil {
		return err
	}
	local := kit.NewRAPI(b.master)
	defer local.Close()
	user := map[string]any{"permission": "write", "hash": hash.Reveal()}
	if err := local.Call(ctx, http.MethodPut, "/2/users/"+rapiUser, user, nil); err != nil {
		return err
	}
	far := kit.NewRemoteRAPI(net.JoinHostPort(b.master.Address, "5080"), rapiUser, rapiPassword)
	defer far.Close()
	nodes, err := b.c.Others(ctx, b.master.Name)
	if err != nil {
		return err
	}
	node := nodes[len(nodes)-1].Name
	var times []float64
	for range b.rounds {
		for _, role := range []string{"master-candidate", "regular"} {
			start := time.Now()
			var job int64
			err := far.Call(ctx, http.MethodPut, "/2/nodes/"+node+"/role", role, &job)
			if err == nil {
				err = far.Wait(ctx, job)
			}
			if err != nil {
				return err
			}
			times = append(times, ms(time.Since(start)))
		}
	}
	show("RAPI, role set until the job has ended, 8 nodes", "ms", times, atMost(250))
	return nil
}
