package faults

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rolekey/candmap"
	"rolekey/internal/lab"
	"rolekey/pki"
	"rolekey/tests/kit"
)

// fork makes another map, signed by a majority of the voters with stolen keys:
// what nobody can tell from a real one.
func (w *world) fork(alter func(m *candmap.Map)) (candmap.Envelope, error) {
	var env candmap.Envelope
	held, err := kit.CurrentMap(w.node("node1"))
	if err != nil {
		return env, err
	}
	for i, name := range []string{"node1", "node2", "node3"} {
		loot, err := kit.Steal(w.node(name))
		if err != nil {
			return env, err
		}
		loot.Map = held
		one, err := loot.Forge(alter)
		if err != nil {
			return env, err
		}
		if i == 0 {
			env = one
		}
		env = candmap.Merge(env, one.Signatures...)
	}
	return env, nil
}

// deliver gives a map to a node, as anybody may, and returns the refusal's code.
func (w *world) deliver(node string, env candmap.Envelope) (string, error) {
	a, err := kit.Caller{}.Call(w.ctx, w.Noded(w.node(node)), "PUT", "/v1/map", nil, map[string]any{"maps": []candmap.Envelope{env}})
	return a.Code, err
}

var ofMaps = []fault{
	{
		name: "a second map of a version, signed by a majority of the voters", node: "node4", cure: byRemedy, alone: restarted,
		says: []say{{code: "ENODEMAP", node: "node4", text: "holds evidence of 1 signed map"}},
		inject: func(w *world) error {
			env, err := w.fork(func(m *candmap.Map) {
				m.Version--
				m.Issued = m.Issued.Add(time.Second)
			})
			if err != nil {
				return err
			}
			code, err := w.deliver("node4", env)
			if err == nil && code != "map_fork" {
				err = fmt.Errorf("a fork was answered with %q", code)
			}
			return err
		},
		remedy: func(w *world, f finding) error {
			return errors.Join(w.asSaid(f, "gnt-cluster renew-crypto"), w.forgetEvidence("node4"))
		},
	},
	{
		name: "a node follows another map of the version", node: "node5", cure: byRemedy, alone: restarted,
		says: []say{{code: "ENODEMAP", node: "node5", text: "enforces another candidate map"}, {code: "ENODEMAP", node: "node5", text: "holds evidence of"}},
		inject: func(w *world) error {
			env, err := w.fork(func(m *candmap.Map) { m.Issued = m.Issued.Add(time.Second) })
			if err != nil {
				return err
			}
			if code, err := w.deliver("node5", env); err != nil || code != "" {
				return fmt.Errorf("forged map: %q, %w", code, err)
			}
			return w.modify("node4", "-D", "yes")
		},
		remedy: func(w *world, f finding) error {
			return errors.Join(w.readd("node5", f), w.modify("node4", "-D", "no"))
		},
	},
	{
		name: "the map on a node's disk is damaged", node: "node5", cure: byRemedy, alone: silent,
		says: []say{{code: "ENODEMAP", node: "node5", text: "holds no candidate map"}},
		inject: func(w *world) error {
			return errors.Join(w.Kill(w.ctx, "node5", "noded"), os.WriteFile(w.layout("node5").CurrentMap(), []byte("{"), 0o600), w.Start(w.ctx, "node5"))
		},
		remedy: func(w *world, f finding) error {
			_, command, _ := strings.Cut(f.Remedy, "as root: ")
			_, err := w.Must(w.ctx, 0, full("node5"), append(strings.Fields(command), "--yes")...)
			return err
		},
	},
	{
		name: "noded does not run", node: "node5", cure: byRemedy, alone: silent,
		says:   []say{{code: "ENODERPC", node: "node5", text: "while contacting node"}},
		inject: func(w *world) error { return w.Kill(w.ctx, "node5", "noded") },
		remedy: func(w *world, f finding) error { return w.started("node5", "rolekey-noded", f) },
	},
	{
		name: "noded hangs", node: "node4", cure: byRemedy, alone: silent,
		says:   []say{{code: "ENODERPC", node: "node4", text: "while contacting node"}},
		inject: func(w *world) error { return w.Signal(w.ctx, "node4", "noded", syscall.SIGSTOP) },
		remedy: func(w *world, f finding) error {
			return errors.Join(w.Kill(w.ctx, "node4", "noded"), w.started("node4", "rolekey-noded", f))
		},
	},
	{
		name: "a node is cut off", node: "node5", cure: byItself, alone: silent,
		says:   []say{{code: "ENODERPC", node: "node5", text: "while contacting node"}},
		inject: func(w *world) error { return w.Partition(w.ctx, "node5") },
		remedy: func(w *world, _ finding) error { return w.Heal(w.ctx) },
	},
	{
		name: "a node has heard no beacon for longer than the lease", node: "node5", cure: byItself, alone: silent, quick: true, // it is told the newest one at once
		says: []say{{code: "ENODEMAP", node: "node5", text: "its candidate map is stale"}, {code: "ENODENET", node: anyNode, text: "gossip does not reach " + full("node5"), warn: true}},
		inject: func(w *world) error {
			if err := w.Signal(w.ctx, "node5", "noded", syscall.SIGSTOP); err != nil {
				return err
			}
			_, err := kit.Until(w.ctx, limit, func(context.Context) error { return w.lost("node5") })
			return errors.Join(err, w.Signal(w.ctx, "node5", "noded", syscall.SIGCONT))
		},
	},
	{
		name: "a renewal has not reached a node", node: "node4", cure: byRemedy, alone: silent,
		says: []say{{code: "ECLUSTERCERT", node: "node4", text: "the renewal of", warn: true}, {code: "ENODERPC", node: "node4", text: "while contacting node"}},
		inject: func(w *world) error {
			return errors.Join(w.Kill(w.ctx, "node4", "noded"), w.command(0, "gnt-cluster", "renew-crypto", "--new-node-certificates", "--node", full("node4")))
		},
		remedy: func(w *world, _ finding) error { return w.Start(w.ctx, "node4") },
	},
}

// modify changes a node. A node that has just joined or started may confirm the map
// a moment later than the change waits, which is exit code 3.
func (w *world) modify(node string, args ...string) error {
	master, err := w.Master(w.ctx)
	if err != nil {
		return err
	}
	r, err := w.Sh(w.ctx, master, append([]string{"gnt-node", "modify", full(node)}, args...)...)
	if err == nil && r.Code != 3 {
		err = r.Want(0)
	}
	return err
}

// lost returns nil when the master has not heard of a node for longer than the
// lease.
func (w *world) lost(node string) error {
	master, err := w.Master(w.ctx)
	if err != nil {
		return err
	}
	m, err := w.ReadMap(w.ctx, master)
	if err != nil {
		return err
	}
	for _, n := range m.Nodes {
		if n.Name == full(node) && n.Fresh {
			return errors.New(node + " is fresh")
		}
	}
	return nil
}

// arrange gives the nodes the roles that the faults count on: the first three are
// candidates.
func (w *world) arrange() error {
	var errs []error
	for i, role := range []string{"yes", "yes", "no", "no"} {
		errs = append(errs, w.modify(fmt.Sprintf("node%d", i+2), "-C", role))
	}
	return errors.Join(errs...)
}

// forgetEvidence removes the evidence of forks on a node, as an administrator
// does who has read it.
func (w *world) forgetEvidence(node string) error {
	dir := w.layout(node).EvidenceDir()
	files, err := os.ReadDir(dir)
	for _, f := range files {
		err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
	}
	return errors.Join(err, w.restarted(node, "noded"))
}

// readd adds a node again, as an administrator does who trusts nothing on it.
func (w *world) readd(node string, f finding) error {
	n := w.node(node)
	if !strings.Contains(f.Remedy, "gnt-node add --readd "+n.Name) {
		return fmt.Errorf("remedy %q", f.Remedy)
	}
	if err := w.Stop(w.ctx, node); err != nil {
		return err
	}
	at := w.layout(node)
	for _, dir := range []string{at.NodeDir(), at.MapDir(), at.SSHDir(), at.MasterdDir()} {
		files, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, f := range files {
			if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
				return err
			}
		}
	}
	master, err := w.Master(w.ctx)
	if err != nil {
		return err
	}
	r, err := w.Must(w.ctx, 0, master, "gnt-node", "add", "--readd", n.Name)
	if err == nil {
		err = w.Start(w.ctx, node)
	}
	if err != nil {
		return err
	}
	joined, err := w.Feed(w.ctx, n.Name, r.Stdout, "noded", "join", "-")
	return errors.Join(err, joined.Want(0))
}

// ownCert writes a certificate of the administrator's for the remote API.
func (w *world) ownCert(life time.Duration) (path string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: lab.ClusterName}, DNSNames: []string{lab.ClusterName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", err
	}
	text, err := pki.EncodeKey(key)
	if err != nil {
		return "", err
	}
	path = filepath.Join(w.t.TempDir(), "rapi.pem")
	return path, os.WriteFile(path, append(pki.EncodeCert(der), text.Reveal()...), 0o600)
}

// ends is a certificate of the administrator's that ends.
func ends(name string, life time.Duration, warn bool) fault {
	return fault{
		name: name, cure: byRemedy, alone: rewritten,
		says: []say{{code: "ECLUSTERCERT", text: "the remote API's own certificate ends", warn: warn}},
		inject: func(w *world) error {
			path, err := w.ownCert(life)
			if err != nil {
				return err
			}
			return w.command(0, "gnt-cluster", "renew-crypto", "--rapi-certificate", path)
		},
		remedy: func(w *world, _ finding) error {
			return w.command(0, "gnt-cluster", "renew-crypto", "--new-rapi-certificate")
		},
	}
}

var ofCluster = []fault{
	{
		name: "an ssconf file was changed", node: "node4", cure: byRepair, heals: true,
		says: []say{{code: "ECLUSTERFILECHECK", text: "ssconf_cluster_name found with 2 different checksums"}},
		inject: func(w *world) error {
			path := w.layout("node4").SSConf("cluster_name") // which nobody but root may write to
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("mine\n"), 0o444))
		},
	},
	{
		name: "an ssconf file was removed", node: "node3", cure: byRepair, heals: true,
		says:   []say{{code: "ECLUSTERFILECHECK", text: "ssconf_master_node is missing from node(s) " + full("node3")}},
		inject: func(w *world) error { return os.Remove(w.layout("node3").SSConf("master_node")) },
	},
	{
		name: "a firewall stops gossip to and from a node", node: "node4", cure: byRemedy,
		says:   []say{{code: "ENODENET", node: anyNode, text: "gossip does not reach ", warn: true}},
		inject: func(w *world) error { return w.Block(w.ctx, w.Ports.Gossip, "node4") },
		remedy: func(w *world, f finding) error {
			if want := fmt.Sprintf("open port %d, tcp and udp", w.Ports.Gossip); !strings.Contains(f.Remedy, want) {
				return fmt.Errorf("remedy %q", f.Remedy)
			}
			return w.Heal(w.ctx)
		},
	},
	{
		name: "the disk of a node is full", node: "node5", cure: byRemedy, asRoot: true,
		says: []say{{code: "ENODEMAP", node: "node5", text: "follows its candidate map, and cannot save it"}},
		inject: func(w *world) error {
			dir := w.layout("node5").MapDir()
			if err := unix.Mount("full", dir, "tmpfs", 0, "size=4k,nr_inodes=1"); err != nil {
				return err
			}
			return w.modify("node4", "-D", "yes")
		},
		remedy: func(w *world, _ finding) error {
			return errors.Join(unix.Unmount(w.layout("node5").MapDir(), unix.MNT_DETACH), w.modify("node4", "-D", "no"))
		},
	},
	{
		name: "masterd of a candidate does not run", node: "node3", cure: byRemedy, alone: restarted,
		says:   []say{{code: "ECLUSTERCFG", node: "node3", text: "Its master daemon does not answer noded"}},
		inject: func(w *world) error { return w.Kill(w.ctx, "node3", "masterd") },
		remedy: func(w *world, f finding) error { return w.started("node3", "rolekey-masterd", f) },
	},
	{
		name: "masterd of a candidate hangs", node: "node2", cure: byRemedy, alone: restarted,
		says:   []say{{code: "ECLUSTERCFG", node: "node2", text: "Its master daemon does not answer noded"}},
		inject: func(w *world) error { return w.Signal(w.ctx, "node2", "masterd", syscall.SIGSTOP) },
		remedy: func(w *world, f finding) error {
			return errors.Join(w.Kill(w.ctx, "node2", "masterd"), w.started("node2", "rolekey-masterd", f))
		},
	},
	ends("the administrator's certificate of the remote API ends within days", 72*time.Hour, false),
	ends("the administrator's certificate of the remote API ends within weeks", 20*24*time.Hour, true),
	{
		name: "the candidate pool is too small", node: "node3", cure: byRepair, alone: rewritten,
		says: []say{{code: "ECLUSTERCFG", text: "Not enough master candidates: actual 2, target 3"}},
		inject: func(w *world) error { // only while no other node could be a candidate, one may lose the role
			return errors.Join(w.modify("node4", "--master-capable", "no"), w.modify("node5", "--master-capable", "no"), w.modify("node3", "-C", "no"))
		},
		remedy: func(w *world, _ finding) error { // which ends what was done for the test
			return errors.Join(w.modify("node4", "--master-capable", "yes"), w.modify("node5", "--master-capable", "yes"))
		},
	},
	{
		name: "a script of the administrator's finds a fault", node: "node5", cure: byRemedy,
		says: []say{{code: "ENODEHOOKS", node: "node5", text: "Hook script mine failed"}},
		inject: func(w *world) error {
			dir := filepath.Join(w.layout("node5").HooksDir(), "cluster-verify-post.d")
			return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "mine"), []byte("#!/bin/sh\necho no good\nexit 1\n"), 0o755))
		},
		remedy: func(w *world, _ finding) error {
			return os.Remove(filepath.Join(w.layout("node5").HooksDir(), "cluster-verify-post.d", "mine"))
		},
	},
}

// catalogue is what is put into real daemons.
var catalogue = append(append(append(append([]fault{}, ofSSH...), ofKeys...), ofMaps...), ofCluster...)
