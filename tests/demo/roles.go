package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rolekey/internal/lab"
	"rolekey/internal/paths"
	"rolekey/tests/kit"
)

func (t *teller) admission(ctx context.Context) {
	t.claim("five nodes are admitted and hold one fresh map", func() (string, error) {
		m, err := t.c.ReadMap(ctx, t.master)
		if err != nil {
			return "", err
		}
		for _, n := range m.Nodes {
			if n.Hash != m.Hash || !n.Fresh || !n.Reachable {
				return "", fmt.Errorf("%s holds %.12s, fresh: %v; the master holds %.12s", n.Name, n.Hash, n.Fresh, m.Hash)
			}
		}
		if len(m.Nodes) != nodes || len(m.Candidates) != pool {
			return "", fmt.Errorf("%d nodes and %d candidates", len(m.Nodes), len(m.Candidates))
		}
		return fmt.Sprintf("map %d.%d (%.12s) on %d of %d nodes, %d candidates; up in %s",
			m.Epoch, m.Version, m.Hash, len(m.Nodes), nodes, len(m.Candidates), ms(t.up)), nil
	})
	t.claim("no two nodes share a private key; normal nodes have no root key", func() (string, error) {
		return t.keysApart(ctx)
	})
}

// keysApart compares the private keys of all nodes.
func (t *teller) keysApart(ctx context.Context) (string, error) {
	all, err := t.c.Nodes(ctx)
	if err != nil {
		return "", err
	}
	seen := map[string]string{}
	normal := 0
	for _, n := range all {
		at := paths.Layout{Root: n.Root}
		for _, path := range []string{at.ServerKey(), at.IdentityKey(), at.CandidateKey(), at.SigningKey(), at.SSHKey(), n.HostKey()} {
			b, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return "", err
			}
			if other := seen[string(b)]; other != "" {
				return "", fmt.Errorf("%s and %s are the same key", path, other)
			}
			seen[string(b)] = path
		}
		if n.Short() == "node4" || n.Short() == "node5" {
			normal++
			if left := kit.CandidateFiles(n); len(left) > 0 {
				return "", fmt.Errorf("%s has %v", n.Short(), left)
			}
		}
	}
	return fmt.Sprintf("%d different keys on %d nodes; %d normal nodes searched", len(seen), len(all), normal), nil
}

func (t *teller) promotion(ctx context.Context) {
	t.claim("gnt-node modify -C yes node4", func() (string, error) {
		r, err := t.c.Must(ctx, 0, t.master, "gnt-node", "modify", "-C", "yes", "node4")
		if err != nil {
			return "", err
		}
		return "done everywhere in " + ms(r.Took), nil
	})
	others, err := t.c.Others(ctx, "node4")
	if err != nil {
		t.claim("the other nodes are known", func() (string, error) { return "", err })
		return
	}
	t.claim("node4 logs in as root to every other node by plain ssh", func() (string, error) {
		from, err := t.node(ctx, "node4")
		if err != nil {
			return "", err
		}
		start := time.Now()
		n, err := everywhere(others, func(to lab.Node) error { return t.c.Login(ctx, from, to) })
		return fmt.Sprintf("%d of %d logins, %s each", n, len(others), ms(time.Since(start)/time.Duration(max(1, n)))), err
	})
	t.claim("its calls of the candidate tier are accepted everywhere", func() (string, error) {
		l, err := t.rob(ctx, "node4", "node4")
		if err != nil {
			return "", err
		}
		n, err := everywhere(others, func(to lab.Node) error {
			return t.served(ctx, l.Caller(l.Candidate), to)
		})
		return fmt.Sprintf("GET /v1/state: 200 from %d of %d nodes", n, len(others)), err
	})
}

// served makes a call of the candidate tier that must succeed.
func (t *teller) served(ctx context.Context, c kit.Caller, to lab.Node) error {
	a, err := c.Call(ctx, t.c.Noded(to), http.MethodGet, "/v1/state", nil, nil)
	if err == nil && !a.OK() {
		err = fmt.Errorf("answered %s: %s", a, a.Message)
	}
	return err
}

func (t *teller) outsiders(ctx context.Context) {
	all, err := t.c.Nodes(ctx)
	if err != nil {
		t.claim("the nodes are known", func() (string, error) { return "", err })
		return
	}
	t.claim("node5's certificate, though signed by the cluster CA, opens nothing", func() (string, error) {
		l, err := t.rob(ctx, "node5", "node5")
		if err != nil {
			return "", err
		}
		n, err := everywhere(all, func(to lab.Node) error {
			a, err := l.Caller(l.Member).Call(ctx, t.c.Noded(to), http.MethodGet, "/v1/state", nil, nil)
			return kit.Refused(a, err, "not_in_map")
		})
		return fmt.Sprintf("403 not_in_map from %d of %d nodes", n, len(all)), err
	})
	t.claim("nor does node5's ssh", func() (string, error) { return t.strangeLogin(ctx) })
	t.claim("candidate node2 changes no node: only the master may", func() (string, error) {
		l, err := t.rob(ctx, "node2", "node2")
		if err != nil {
			return "", err
		}
		at, err := l.At()
		if err != nil {
			return "", err
		}
		n, err := everywhere(all, func(to lab.Node) error {
			for _, path := range []string{"/v1/key/create", "/v1/key/destroy"} {
				header := http.Header{"Rolekey-Stamp": {fmt.Sprintf("%s 1000000", at)}}
				a, err := l.Caller(l.Candidate).Call(ctx, t.c.Noded(to), http.MethodPost, path, header, []byte("{}"))
				if err := kit.Refused(a, err, "not_master"); err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
			return nil
		})
		return fmt.Sprintf("403 not_master from %d of %d nodes", n, len(all)), err
	})
}

// strangeLogin tries node5's own ssh, and one with a key that it made.
func (t *teller) strangeLogin(ctx context.Context) (string, error) {
	from, err := t.node(ctx, "node5")
	if err != nil {
		return "", err
	}
	others, err := t.c.Others(ctx, "node5")
	if err != nil {
		return "", err
	}
	key := filepath.Join(t.work, "node5-key")
	if err := kit.NewSSHKey(key); err != nil {
		return "", err
	}
	n, err := everywhere(others, func(to lab.Node) error {
		if err := kit.Denied(t.c.Login(ctx, from, to)); err != nil {
			return err
		}
		return kit.Denied(t.c.LoginWith(ctx, key, from, to))
	})
	return fmt.Sprintf("permission denied by %d of %d nodes, twice", n, len(others)), err
}

func (t *teller) demotion(ctx context.Context) {
	l, others, err := t.prepareDemotion(ctx)
	if err != nil {
		t.claim("node4 is ready to be demoted", func() (string, error) { return "", err })
		return
	}
	falls := map[netip.AddrPort]kit.Fall{}
	var run kit.Run
	t.claim("gnt-node modify -C no node4", func() (string, error) {
		siege, err := kit.LaySiege(ctx, l.Caller(l.Candidate), t.c.NodedOf(others)...)
		if err != nil {
			return "", err
		}
		if run, err = t.c.Must(ctx, 0, t.master, "gnt-node", "modify", "-C", "no", "node4"); err != nil {
			_, _ = siege.Lift(time.Millisecond) // the command's error says more
			return "", err
		}
		if falls, err = siege.Lift(patience); err != nil {
			return "", err
		}
		return "done everywhere in " + ms(run.Took), nil
	})
	t.afterDemotion(ctx, l, others, run, falls)
}

// prepareDemotion steals what node4 has while it is a candidate: what it comes
// back with later.
func (t *teller) prepareDemotion(ctx context.Context) (*kit.Loot, []lab.Node, error) {
	l, err := t.rob(ctx, "node4", "node4")
	if err != nil {
		return nil, nil, err
	}
	if l.Candidate == nil || len(l.SSHKey) == 0 {
		return nil, nil, errors.New("node4 has no candidate's keys")
	}
	others, err := t.c.Others(ctx, "node4")
	return l, others, err
}

func (t *teller) afterDemotion(ctx context.Context, l *kit.Loot, others []lab.Node, run kit.Run, falls map[netip.AddrPort]kit.Fall) {
	t.claim("node4's open connections were closed, its new ones are refused", func() (string, error) {
		if len(falls) != len(others) {
			return "", fmt.Errorf("only %d of %d nodes were watched to the end", len(falls), len(others))
		}
		for at, f := range falls {
			if err := kit.Refused(f.Answer, nil, "not_in_map"); err != nil {
				return "", fmt.Errorf("%s: %w", at, err)
			}
		}
		return fmt.Sprintf("last of %d nodes refused %s after the command started", len(falls), ms(kit.Last(falls).Sub(run.Started))), nil
	})
	t.claim("its ssh key opens nothing any more, not even a stolen copy", func() (string, error) {
		return t.oldKeyDenied(ctx, l, others)
	})
	t.claim("the private keys are gone from its disk", func() (string, error) {
		if left := kit.CandidateFiles(l.Node); len(left) > 0 {
			return "", fmt.Errorf("still there: %s", strings.Join(left, ", "))
		}
		return "no root key, client key, signing key or raft state left", nil
	})
}

// oldKeyDenied tries the SSH key that was stolen before the demotion.
func (t *teller) oldKeyDenied(ctx context.Context, l *kit.Loot, others []lab.Node) (string, error) {
	key := filepath.Join(t.work, "stolen-"+l.Node.Short())
	if err := os.WriteFile(key, l.SSHKey, 0o600); err != nil {
		return "", err
	}
	n, err := everywhere(others, func(to lab.Node) error {
		return kit.ShutOut(t.c.LoginWith(ctx, key, l.Node, to))
	})
	return fmt.Sprintf("shut out by %d of %d nodes", n, len(others)), err
}
