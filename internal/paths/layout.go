// Package paths knows where everything lies, and opens Unix sockets however
// long their path is.
//
// Every path can be moved below another root (--root, ROLEKEY_ROOT): that is
// how development clusters run many nodes on one machine. A socket below such
// a root is often longer than the 107 bytes that sockaddr_un holds (unix(7)),
// so sockets are bound and dialled relative to an open folder, through
// /proc/self/fd.
//
// All functions may be used concurrently.
package paths

import "path/filepath"

// Layout gives the paths below a root; the zero Layout is the real system.
type Layout struct {
	Root string // absolute, or empty for /
}

// In moves an absolute path of the real system below the root.
func (l Layout) In(path string) string { return filepath.Join("/", l.Root, path) }

// ConfigDir holds the local configuration files.
func (l Layout) ConfigDir() string { return l.In("/etc/rolekey") }

// NodedConfig is noded's local configuration.
func (l Layout) NodedConfig() string { return l.In("/etc/rolekey/noded.toml") }

// MasterdConfig is masterd's local configuration.
func (l Layout) MasterdConfig() string { return l.In("/etc/rolekey/masterd.toml") }

// HooksDir holds the administrator's hooks, in Ganeti's arrangement.
func (l Layout) HooksDir() string { return l.In("/etc/rolekey/hooks") }

// StateDir holds all state; losing it means joining anew.
func (l Layout) StateDir() string { return l.In("/var/lib/rolekey") }

// NodeDir holds the node's certificates, their keys and the cluster's CA.
func (l Layout) NodeDir() string { return l.In("/var/lib/rolekey/node") }

// CACert is the cluster's CA certificate.
func (l Layout) CACert() string { return l.In("/var/lib/rolekey/node/ca.pem") }

// ServerCert is the certificate that noded and masterd serve with.
func (l Layout) ServerCert() string { return l.In("/var/lib/rolekey/node/server.pem") }

// ServerKey is the private key of ServerCert.
func (l Layout) ServerKey() string { return l.In("/var/lib/rolekey/node/server.key") }

// IdentityCert is the certificate by which the node asks the keyserver.
func (l Layout) IdentityCert() string { return l.In("/var/lib/rolekey/node/node.pem") }

// IdentityKey is the private key of IdentityCert.
func (l Layout) IdentityKey() string { return l.In("/var/lib/rolekey/node/node.key") }

// MapDir holds the verified map, the roster and evidence of forks.
func (l Layout) MapDir() string { return l.In("/var/lib/rolekey/map") }

// CurrentMap is the envelope of the newest verified map.
func (l Layout) CurrentMap() string { return l.In("/var/lib/rolekey/map/current.json") }

// RosterDir holds the roster's buckets, by hash.
func (l Layout) RosterDir() string { return l.In("/var/lib/rolekey/map/roster") }

// EvidenceDir holds second payloads of known versions.
func (l Layout) EvidenceDir() string { return l.In("/var/lib/rolekey/map/evidence") }

// SSHDir holds the node's cluster SSH key; normal nodes have none.
func (l Layout) SSHDir() string { return l.In("/var/lib/rolekey/ssh") }

// SSHKey is the private half of the cluster SSH key.
func (l Layout) SSHKey() string { return l.In("/var/lib/rolekey/ssh/id") }

// SSHPublicKey is the public half of the cluster SSH key.
func (l Layout) SSHPublicKey() string { return l.In("/var/lib/rolekey/ssh/id.pub") }

// MasterdDir holds what masterd alone may read.
func (l Layout) MasterdDir() string { return l.In("/var/lib/rolekey/masterd") }

// CandidateCert is the candidate's RPC client certificate.
func (l Layout) CandidateCert() string { return l.In("/var/lib/rolekey/masterd/candidate.pem") }

// CandidateKey is the private key of CandidateCert.
func (l Layout) CandidateKey() string { return l.In("/var/lib/rolekey/masterd/candidate.key") }

// NextCandidateKey is the client key that is to be used next.
func (l Layout) NextCandidateKey() string { return l.CandidateKey() + ".next" }

// SigningKey signs maps and beacons.
func (l Layout) SigningKey() string { return l.In("/var/lib/rolekey/masterd/signing.key") }

// NextSigningKey is there while it is replaced.
func (l Layout) NextSigningKey() string { return l.SigningKey() + ".next" }

// Keyring holds the data keys of state at rest.
func (l Layout) Keyring() string { return l.In("/var/lib/rolekey/masterd/keyring") }

// RaftDB is the raft log and stable store.
func (l Layout) RaftDB() string { return l.In("/var/lib/rolekey/masterd/raft.db") }

// SnapshotDir holds raft snapshots.
func (l Layout) SnapshotDir() string { return l.In("/var/lib/rolekey/masterd/snapshots") }

// RecoveryDir holds a recovered state, from its commit until it is in force.
func (l Layout) RecoveryDir() string { return l.In("/var/lib/rolekey/masterd/recovery") }

// RecoveryNote is the map that was offered to the recovery keys last.
func (l Layout) RecoveryNote() string { return l.In("/var/lib/rolekey/masterd/recovery.json") }

// SSConf is the file that tells other programs one fact about the cluster, by
// Ganeti's names.
func (l Layout) SSConf(name string) string { return l.In("/var/lib/rolekey/ssconf_" + name) }

// InitMarker exists while `gnt-cluster init` or a join is under way, so that a
// later run knows what an interrupted one left.
func (l Layout) InitMarker() string { return l.In("/var/lib/rolekey/init-in-progress") }

// LogDir holds logs of those who do not use the journal, and audit logs.
func (l Layout) LogDir() string { return l.In("/var/log/rolekey") }

// NodedAudit is noded's audit log.
func (l Layout) NodedAudit() string { return l.In("/var/log/rolekey/noded-audit.log") }

// MasterdAudit is masterd's audit log.
func (l Layout) MasterdAudit() string { return l.In("/var/log/rolekey/masterd-audit.log") }

// RunDir holds the sockets.
func (l Layout) RunDir() string { return l.In("/run/rolekey") }

// NodedSock is noded's control socket.
func (l Layout) NodedSock() string { return l.In("/run/rolekey/noded.sock") }

// SSHAgentSock is where noded serves the SSH keys that it holds in memory, by
// the protocol of ssh-agent(1).
func (l Layout) SSHAgentSock() string { return l.In("/run/rolekey/ssh-agent.sock") }

// MasterdSock is masterd's control socket, which speaks RAPI.
func (l Layout) MasterdSock() string { return l.In("/run/rolekey/masterd.sock") }

// SSHDropIn tells root's ssh client which key, port and host key to use.
func (l Layout) SSHDropIn() string { return l.In("/etc/ssh/ssh_config.d/50-rolekey.conf") }

// SSHDDropIn tells sshd to ask noded for keys.
func (l Layout) SSHDDropIn() string { return l.In("/etc/ssh/sshd_config.d/50-rolekey.conf") }

// SSHDConfig is the configuration of the machine's sshd.
func (l Layout) SSHDConfig() string { return l.In("/etc/ssh/sshd_config") }

// RootHome is root's home directory.
func (l Layout) RootHome() string { return l.In("/root") }
