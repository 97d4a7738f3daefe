package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"os"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/masterd/rapi/wire"
	"rolekey/rpc"
)

// maxAnswer bounds what is read from the daemon: all jobs in one answer.
const maxAnswer = 256 << 20

// client speaks RAPI on masterd's socket, or over the network.
type client struct {
	at     paths.Layout
	http   http.Client
	base   string // scheme and host
	remote bool
}

func newClient(at paths.Layout) *client {
	c := &client{at: at, base: "http://masterd"}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return paths.DialUnix(ctx, at.MasterdSock())
		},
		DisableCompression: true, MaxIdleConnsPerHost: 1,
	}
	return c
}

// get asks for an object.
func (c *client) get(ctx context.Context, path string, out any) error {
	return c.call(ctx, http.MethodGet, path, nil, out)
}

// call makes a call; in and out are JSON, or nil. A refusal is a
// *cluster.Error; when this node is not the one to ask, it says which is.
func (c *client) call(ctx context.Context, verb, path string, in, out any) error {
	answer, err := c.send(ctx, verb, path, in)
	if err != nil {
		return c.unanswered(ctx, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the master daemon's answer: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return c.elsewhere(ctx, refusal(answer.StatusCode, text))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read the master daemon's answer: %w", err)
	}
	return nil
}

func (c *client) send(ctx context.Context, verb, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, verb, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return c.http.Do(r)
}

func refusal(status int, text []byte) error {
	var e wire.Error
	if json.Unmarshal(text, &e) != nil || e.Code != status {
		return cluster.Errorf(cluster.CodeUnavailable, "the master daemon answers with status %d", status)
	}
	if e.Reason == "" {
		e.Reason = cluster.CodeInternal
	}
	return &cluster.Error{Code: e.Reason, Message: html.UnescapeString(e.Message), Hint: e.Hint, Node: e.Node}
}

// elsewhere words refusals of a node that is not the master as Ganeti does.
func (c *client) elsewhere(ctx context.Context, err error) error {
	var e *cluster.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case cluster.CodeNotMaster:
		if e.Node != "" {
			return notMaster(e.Node)
		}
		s, err := c.nodeStatus(ctx)
		if err == nil && s.Master != "" && s.Master == s.Name {
			return outOfOffice()
		}
		return notMaster(string(s.Master))
	case cluster.CodeNoMap:
		return noCluster()
	}
	return err
}

// unanswered finds out why masterd does not answer: perhaps nobody expects it.
func (c *client) unanswered(ctx context.Context, cause error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if c.remote {
		return c.unreached(cause)
	}
	if errors.Is(cause, os.ErrPermission) {
		return mustBeRoot()
	}
	s, err := c.nodeStatus(ctx)
	switch {
	case err == nil && (s.State == "none" || s.State == "removed"):
		return noCluster()
	case err == nil && s.State == "member" && !isCandidate(s.Role):
		return notMaster(string(s.Master))
	case err != nil && c.hasNoMap():
		return noCluster()
	}
	return errSilent
}

func isCandidate(word string) bool {
	role, err := cluster.ParseRole(word)
	return err == nil && role.Candidate()
}

// hasNoMap reports whether this machine never was in a cluster, as far as its
// disk tells.
func (c *client) hasNoMap() bool {
	_, err := os.Lstat(c.at.CurrentMap())
	return errors.Is(err, os.ErrNotExist)
}

// noded is a client of the local node daemon.
func (c *client) noded() *rpc.LocalClient {
	return rpc.NewLocalClient(func(ctx context.Context) (net.Conn, error) {
		return c.dialLocal(ctx, c.at.NodedSock())
	}, 0, uint32(os.Geteuid()))
}

func (c *client) nodeStatus(ctx context.Context) (rpc.LocalStatusReply, error) {
	node := c.noded()
	defer node.Close()
	var s rpc.LocalStatusReply
	err := node.Do(ctx, http.MethodGet, rpc.LocalStatus, nil, &s)
	return s, err
}

func notMaster(master string) error {
	if master == "" {
		return cluster.Errorf(cluster.CodeNotMaster, "This is not the master node, and it knows of none at present")
	}
	return cluster.Errorf(cluster.CodeNotMaster,
		"This is not the master node, please connect to node '%s' and rerun the command", master)
}

// outOfOffice is said where the map still names this node as the master.
func outOfOffice() error {
	return cluster.Errorf(cluster.CodeNoQuorum, "This node was the master, and is not in office now").
		WithHint("gnt-cluster getmaster names the next one, when a majority of the voters has elected it")
}

func noCluster() error {
	return cluster.Errorf(cluster.CodeNoMap, "Cluster not initialized or this machine is not part of a cluster").
		WithHint("gnt-cluster init founds a cluster; noded join, with a string from gnt-node add, joins one")
}

func mustBeRoot() error {
	return &exitError{ExitFailed, "This command must be run as root."}
}
