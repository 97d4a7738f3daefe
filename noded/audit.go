package noded

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"slices"
	"strconv"
	"strings"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/rpc"
)

// nodeName is what the audit calls this machine: the node's name, or the
// machine's own when it is in no cluster.
func (d *Daemon) nodeName() string {
	if m := d.current(); m != nil {
		return string(m.name())
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

func (d *Daemon) heldVersion() cluster.Version {
	if m := d.current(); m != nil {
		return m.keeper.View().At()
	}
	return cluster.Version{}
}

// audited writes down what local root ordered, and what became of it.
func audited[T any](d *Daemon, act audit.Act, h func(context.Context, *T) (any, error)) func(context.Context, *T) (any, error) {
	return func(ctx context.Context, req *T) (any, error) {
		reply, err := h(ctx, req)
		e := ordered(req, reply)
		e.Act, e.Caller = act, audit.CallerOf(ctx)
		d.audit.Write(e.Of(err))
		return reply, err
	}
}

// ordered says what an order of local root is about, and what it led to. The
// string of a join is a secret: only what came of it has a name.
func ordered(req, reply any) (e audit.Event) {
	switch q := req.(type) {
	case *rpc.InitRequest:
		e.Target = string(q.Cluster)
	case *rpc.TrustRequest:
		e.Target = q.Hash.String()
	case *rpc.EvictRequest:
		e.Target, e.After = q.Node, audit.Values{"evicted": strconv.FormatBool(!q.Undo)}
	}
	switch r := reply.(type) {
	case rpc.InitReply:
		e.After = audit.Values{"cluster": r.Cluster.String(), "node": r.Node.String(), "version": r.Version.String(), "hash": r.Hash.String()}
	case rpc.JoinReply:
		e.Target = string(r.Name)
		e.After = audit.Values{"cluster": r.Cluster.String(), "node": r.Node.String(), "version": r.Version.String()}
	case rpc.TrustReply:
		e.Before, e.After = audit.Values{"version": r.Previous.String()}, audit.Values{"version": r.Version.String()}
	}
	return e
}

func (m *member) auditServed(s rpc.Served) {
	if s.Method == rpc.MethodHooks.Name {
		return // each script that it ran has a line of its own
	}
	m.audit.Write(audit.Event{Act: audit.RPCServed, Caller: s.Caller, Op: s.Method, Version: s.Stamp.Version})
}

func (m *member) auditFork(f *candmap.ForkError) {
	m.audit.Write(audit.Event{
		Act: audit.MapFork, Code: cluster.CodeMapFork,
		Before: audit.Values{"hash": f.Held.Hash().String()}, After: audit.Values{"hash": f.Other.Hash().String()},
	})
}

func (m *member) auditStale(stale bool) {
	act := audit.MapFresh
	if stale {
		act = audit.MapStale
	}
	m.audit.Write(audit.Event{Act: act})
}

// auditView writes down what a new view changes: the map, and host keys of the
// roster.
func (m *member) auditView(ctx context.Context, old, next *candmap.View) {
	if next.Map != old.Map {
		e := audit.Event{Act: audit.MapAccepted, Caller: audit.CallerOf(ctx), Version: next.At(), After: mapValues(next)}
		if old.Map != nil {
			e.Before = mapValues(old)
			lost, got := difference(candidateNames(old), candidateNames(next))
			if lost != "" {
				e.Before["candidates_removed"] = lost
			}
			if got != "" {
				e.After["candidates_added"] = got
			}
		}
		m.audit.Write(e)
	}
	if old.Roster == nil || next.Roster == nil || old.Roster == next.Roster {
		return
	}
	for _, n := range next.Roster.Nodes() {
		was := old.Roster.Node(n.UUID)
		if was == nil || was.Ports.SSH == n.Ports.SSH && slices.EqualFunc(was.HostKeys, n.HostKeys, sameKey) {
			continue
		}
		m.audit.Write(audit.Event{
			Act: audit.HostKeysChanged, Caller: audit.CallerOf(ctx), Target: string(n.Name),
			Before: hostValues(was), After: hostValues(&n),
		})
	}
}

func hostValues(n *candmap.RosterNode) audit.Values {
	return audit.Values{"host_keys": fingerprints(n.HostKeys), "ssh_port": strconv.Itoa(int(n.Ports.SSH))}
}

func mapValues(v *candmap.View) audit.Values {
	out := audit.Values{"version": v.At().String(), "hash": v.Map.Hash.String()}
	if c := v.Map.Candidate(v.Map.Master); c != nil {
		out["master"] = string(c.Name)
	}
	return out
}

func candidateNames(v *candmap.View) []string {
	var names []string
	for _, c := range v.Map.Candidates {
		names = append(names, string(c.Name))
	}
	return names
}

// difference lists what only the one and only the other has.
func difference(a, b []string) (onlyA, onlyB string) {
	only := func(a, b []string) string {
		return strings.Join(slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) }), ",")
	}
	return only(a, b), only(b, a)
}

func sameKey(a, b cluster.SSHKey) bool { return a.Type == b.Type && string(a.Blob) == string(b.Blob) }

// fingerprints are those that ssh-keygen -l prints.
func fingerprints(keys []cluster.SSHKey) string {
	var list []string
	for _, k := range keys {
		sum := sha256.Sum256(k.Blob)
		list = append(list, "SHA256:"+base64.RawStdEncoding.EncodeToString(sum[:]))
	}
	return strings.Join(list, ",")
}

func (m *member) auditKeys(ctx context.Context, act audit.Act, files []string, err error) {
	e := audit.Event{Act: act, Caller: audit.CallerOf(ctx), Target: string(m.name()), Count: int64(len(files))}
	m.audit.Write(e.Of(err))
}
