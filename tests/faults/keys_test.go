package faults

import (
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/seal"
	"rolekey/tests/kit"
)

// shred removes what the remedy says.
func shred(_ *world, f finding) error {
	_, rest, ok := strings.Cut(f.Remedy, "shred -u ")
	path, _, ok2 := strings.Cut(rest, ";")
	if !ok || !ok2 {
		return fmt.Errorf("remedy %q", f.Remedy)
	}
	return os.Remove(strings.Trim(path, "'"))
}

// copied puts a copy of the SSH key of node2 somewhere.
func (w *world) copied(node, path string) error {
	path = w.layout(node).In(path)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), copyFile(w.layout("node2").SSHKey(), path))
}

// modes are what verify says of files that others may read.
func modes(node string, files ...string) (list []say) {
	for _, file := range files {
		list = append(list, say{code: "ENODEFILECHECK", node: node, text: file})
	}
	return list
}

// candidateCert installs the candidate certificate and key of a loot on a node,
// sealed by that node's keyring, while its masterd does not run.
func (w *world) candidateCert(node string, from *kit.Loot) error {
	own, err := kit.Steal(w.node(node))
	if err != nil {
		return err
	}
	at := w.layout(node)
	ring, err := seal.Open(at.Keyring(), seal.Context{Cluster: own.Cluster, Node: own.ID, Incarnation: own.Incarnation})
	if err != nil {
		return err
	}
	signer, _ := from.Candidate.PrivateKey.(crypto.Signer)
	key, err := pki.EncodeKey(signer)
	if err != nil {
		return err
	}
	return errors.Join(w.Kill(w.ctx, node, "masterd"), ring.SealFile(at.CandidateKey(), "candidate-key", key),
		os.WriteFile(at.CandidateCert(), pki.EncodeCert(from.Candidate.Certificate[0]), 0o644), w.Start(w.ctx, node))
}

// backup copies files of a folder aside, and returns how they are restored.
func backup(dir string, names ...string) (func() error, error) {
	kept := map[string][]byte{}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		kept[name] = b
	}
	return func() (err error) {
		for name, b := range kept {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), b, 0o600))
		}
		return err
	}, nil
}

// oldCerts has new certificates made for a node, and then restores old files.
func (w *world) oldCerts(node string, names ...string) error {
	restore, err := backup(w.layout(node).NodeDir(), names...)
	if err != nil {
		return err
	}
	return errors.Join(w.command(0, "gnt-cluster", "renew-crypto", "--new-node-certificates", "--node", full(node)),
		w.Kill(w.ctx, node, "noded"), restore(), w.Start(w.ctx, node))
}

var ofKeys = []fault{
	{
		name: "a copy of a candidate's SSH key on a normal node", node: "node5", cure: byRemedy,
		says:   []say{{code: "ENODEKEY", node: "node5", text: "A copy of the private SSH key of node2"}},
		inject: func(w *world) error { return w.copied("node5", "/root/backup.key") },
		remedy: shred,
	},
	{
		name: "copies of a candidate's SSH key in ``/tmp``, ``/var/tmp``, ``/var/backups`` and ``/etc/ssh``", node: "node4", cure: byRemedy,
		says: []say{
			{code: "ENODEKEY", node: "node4", text: "/var/backups/old/id"},
			{code: "ENODEKEY", node: "node4", text: "/tmp/id"},
			{code: "ENODEKEY", node: "node4", text: "/var/tmp/id"},
			{code: "ENODEKEY", node: "node4", text: "/etc/ssh/id"},
		},
		inject: func(w *world) error {
			return errors.Join(w.copied("node4", "/var/backups/old/id"), w.copied("node4", "/tmp/id"), w.copied("node4", "/var/tmp/id"), w.copied("node4", "/etc/ssh/id"))
		},
		remedy: func(w *world, f finding) error {
			at := w.layout("node4")
			return errors.Join(shred(w, f), os.Remove(at.In("/tmp/id")), os.Remove(at.In("/var/tmp/id")), os.Remove(at.In("/etc/ssh/id")),
				w.asSaid(f, "gnt-cluster renew-crypto"))
		},
	},
	{
		name: "a signing key was left on a normal node", node: "node4", cure: byRepair, heals: true,
		says: []say{{code: "ENODEKEY", node: "node4", text: "is not a master candidate, but these key files lie on it"}},
		inject: func(w *world) error {
			to := w.layout("node4").SigningKey()
			return errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), copyFile(w.layout("node2").SigningKey(), to))
		},
	},
	{
		name: "root's private cluster key was put on a normal node", node: "node5", cure: byBoth, heals: true,
		says: []say{{code: "ENODEKEY", node: "node5", text: "A copy of the private SSH key of node3"}, {code: "ENODEKEY", node: "node5", text: "these key files lie on it"}},
		inject: func(w *world) error {
			to := w.layout("node5")
			return errors.Join(os.MkdirAll(to.SSHDir(), 0o700), copyFile(w.layout("node3").SSHKey(), to.SSHKey()))
		},
		remedy: func(w *world, f finding) error { return w.asSaid(f, "gnt-cluster renew-crypto") },
	},
	{
		name: "the SSH key of a candidate is gone", node: "node3", cure: byRepair, heals: true, quick: true,
		says: []say{
			{code: "ENODEKEY", node: "node3", text: "has no private cluster SSH key"},
			{code: "ENODESSH", node: "node3", text: "is not the one in the candidate map"},
			{code: "ENODESSH", node: "node3", text: "ssh communication with node"}, // by the new key, before the map lists it
		},
		inject: func(w *world) error { return os.Remove(w.layout("node3").SSHKey()) },
	},
	{
		name: "a candidate lost its keys", node: "node3", cure: byRepair, alone: restarted,
		says: []say{{code: "ENODEKEY", node: "node3", text: "holds no candidate keys"}},
		inject: func(w *world) error {
			at := w.layout("node3")
			return errors.Join(w.Kill(w.ctx, "node3", "masterd"), os.RemoveAll(at.MasterdDir()), os.Mkdir(at.MasterdDir(), 0o700), w.Start(w.ctx, "node3"))
		},
	},
	{
		name: "an old candidate certificate was restored from a backup", node: "node2", cure: byRepair, alone: restarted,
		says: []say{{code: "ECLUSTERCLIENTCERT", node: "node2", text: "does not match its entry"}},
		inject: func(w *world) error {
			old, err := kit.Steal(w.node("node2"))
			if err != nil {
				return err
			}
			return errors.Join(w.command(0, "gnt-cluster", "renew-crypto", "--new-node-certificates", "--node", full("node2")), w.candidateCert("node2", old))
		},
	},
	{
		name: "two candidates with one certificate", node: "node3", cure: byBoth, alone: restarted,
		says: []say{{code: "ECLUSTERCLIENTCERT", node: "node3", text: "using a certificate of another node"}},
		inject: func(w *world) error {
			other, err := kit.Steal(w.node("node2"))
			if err != nil {
				return err
			}
			return w.candidateCert("node3", other)
		},
		remedy: func(w *world, f finding) error { return w.asSaid(f, "gnt-cluster renew-crypto") },
	},
	{
		name: "a normal node with a candidate's certificate", node: "node4", cure: byBoth, heals: true, quick: true,
		says: []say{{code: "ECLUSTERCLIENTCERT", node: "node4", text: "incorrectly using a certificate of another node"}, {code: "ENODEKEY", node: "node4", text: "these key files lie on it"}},
		inject: func(w *world) error {
			other, err := kit.Steal(w.node("node2"))
			if err != nil {
				return err
			}
			at := w.layout("node4")
			if err := os.MkdirAll(at.MasterdDir(), 0o700); err != nil {
				return err
			}
			ring, err := seal.Ensure(at.Keyring(), seal.Context{Cluster: other.Cluster, Node: other.ID, Incarnation: other.Incarnation})
			if err != nil {
				return err
			}
			signer, _ := other.Candidate.PrivateKey.(crypto.Signer)
			key, err := pki.EncodeKey(signer)
			if err != nil {
				return err
			}
			return errors.Join(ring.SealFile(at.SigningKey(), "signing-key", cluster.NewSecret(other.Signing.Seed())), ring.SealFile(at.CandidateKey(), "candidate-key", key),
				os.WriteFile(at.CandidateCert(), pki.EncodeCert(other.Candidate.Certificate[0]), 0o644))
		},
		remedy: func(w *world, f finding) error { return w.asSaid(f, "gnt-cluster renew-crypto") },
	},
	{
		name: "an identity certificate that the roster does not pin", node: "node4", cure: byRemedy, alone: restarted,
		says:   []say{{code: "ECLUSTERCERT", node: "node4", text: "that the roster does not pin"}},
		inject: func(w *world) error { return w.oldCerts("node4", "node.pem", "node.key") },
		remedy: func(w *world, f finding) error { return w.asSaid(f, "gnt-cluster renew-crypto") },
	},
	{
		name: "a server certificate that the roster does not pin", node: "node5", cure: byRemedy, alone: restarted,
		says:   []say{{code: "ENODERPC", node: "node5", text: "the server's key is not the one in the roster"}},
		inject: func(w *world) error { return w.oldCerts("node5", "server.pem", "server.key") },
		remedy: func(w *world, f finding) error { return w.readd("node5", f) },
	},
	{
		name: "others may read the key of a server", node: "node5", cure: byRepair,
		says:   []say{{code: "ENODEFILECHECK", node: "node5", text: "has mode 0644"}},
		inject: func(w *world) error { return os.Chmod(w.layout("node5").ServerKey(), 0o644) },
	},
	{
		name: "others may read all of Rolekey's secrets on a candidate", node: "node2", cure: byRepair,
		says: modes("node2", "node/node.key", "node/gossip.key", "ssh has", "masterd/candidate.key", "masterd/signing.key", "masterd/keyring", "masterd/raft.db"),
		inject: func(w *world) error {
			at := w.layout("node2")
			var errs []error
			for _, path := range []string{at.IdentityKey(), filepath.Join(at.NodeDir(), "gossip.key"), at.CandidateKey(), at.SigningKey(), at.Keyring(), at.RaftDB()} {
				errs = append(errs, os.Chmod(path, 0o666))
			}
			return errors.Join(append(errs, os.Chmod(at.SSHDir(), 0o755))...)
		},
	},
	{
		name: "a link in the place of a key", node: "node4", cure: byRemedy,
		says: []say{{code: "ENODEFILECHECK", node: "node4", text: "server.key is a symbolic link"}},
		inject: func(w *world) error {
			path := w.layout("node4").ServerKey()
			return errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path))
		},
		remedy: func(w *world, f finding) error {
			path := w.layout("node4").ServerKey()
			if !strings.Contains(f.Remedy, "in the place of the link") {
				return fmt.Errorf("remedy %q", f.Remedy)
			}
			return os.Rename(path+".moved", path)
		},
	},
	{
		name: "a key belongs to another user", node: "node2", cure: byRepair, asRoot: true,
		says:   []say{{code: "ENODEFILECHECK", node: "node2", text: "belongs to user 12345"}},
		inject: func(w *world) error { return os.Chown(w.layout("node2").IdentityKey(), 12345, -1) },
	},
}
