package cluster

import "fmt"

// SSHKeyMode says whose the keys are by which root's ssh opens other nodes.
type SSHKeyMode string

// The modes. PerCandidate: every candidate has a key of its own, whose private
// half never leaves it. Shared: the cluster has one, which the master hands to
// every candidate, and replaces when one of them loses the role.
const (
	KeyPerCandidate SSHKeyMode = "per-candidate"
	KeyShared       SSHKeyMode = "shared"
)

// SSHKeyStorage says where a node keeps the private half.
type SSHKeyStorage string

// The storages: a file that only root reads, or the memory of noded, which then
// serves ssh-agent(1)'s protocol and gets a new key when it was restarted.
const (
	StorageFile  SSHKeyStorage = "file"
	StorageAgent SSHKeyStorage = "agent"
)

// SSHAuthorize says how sshd learns which keys to accept.
type SSHAuthorize string

// The ways: a block in authorized_keys, or sshd asks noded at each login
// (AuthorizedKeysCommand in sshd_config(5)).
const (
	AuthorizeFile    SSHAuthorize = "file"
	AuthorizeCommand SSHAuthorize = "command"
)

// SSHKeySpec is a kind of key: type "ed25519", "ecdsa" or "rsa", as in
// ssh-keygen(1), and the bits where there is a choice.
type SSHKeySpec struct {
	Type string `json:"type"`
	Bits int    `json:"bits,omitempty"`
}

// Bounds of RSA keys. Larger ones add nothing but time to each login.
const (
	MinRSABits = 3072
	MaxRSABits = 8192
)

// DefaultSSHKey is the kind of key that a cluster uses that says nothing else.
var DefaultSSHKey = SSHKeySpec{Type: "ed25519"}

// ParseSSHKeySpec checks a type, and bits, where 0 is the type's default.
func ParseSSHKeySpec(kind string, bits int) (SSHKeySpec, error) {
	switch {
	case kind == "ed25519" && (bits == 0 || bits == 256):
		return SSHKeySpec{Type: kind}, nil
	case kind == "ed25519":
		return SSHKeySpec{}, fmt.Errorf("ssh key of %d bits: ed25519 keys have 256", bits)
	case kind == "ecdsa" && bits == 0:
		return SSHKeySpec{kind, 256}, nil
	case kind == "ecdsa" && bits != 256 && bits != 384 && bits != 521:
		return SSHKeySpec{}, fmt.Errorf("ssh key of %d bits: ecdsa keys have 256, 384 or 521", bits)
	case kind == "rsa" && bits == 0:
		return SSHKeySpec{kind, MinRSABits}, nil
	case kind == "rsa" && (bits < MinRSABits || bits > MaxRSABits):
		return SSHKeySpec{}, fmt.Errorf("ssh key of %d bits: rsa keys have %d to %d here", bits, MinRSABits, MaxRSABits)
	case kind == "ecdsa" || kind == "rsa":
		return SSHKeySpec{kind, bits}, nil
	}
	return SSHKeySpec{}, fmt.Errorf("ssh key type %q: want ed25519, ecdsa or rsa", clip(kind))
}

// String returns the spec for people, as in "rsa 4096".
func (s SSHKeySpec) String() string {
	if s.Bits == 0 {
		return s.Type
	}
	return fmt.Sprintf("%s %d", s.Type, s.Bits)
}

// ParseSSHKeyMode reads a mode.
func ParseSSHKeyMode(s string) (SSHKeyMode, error) {
	if m := SSHKeyMode(s); m == KeyPerCandidate || m == KeyShared {
		return m, nil
	}
	return "", fmt.Errorf("parse ssh key mode %q: want per-candidate or shared", clip(s))
}

// ParseSSHKeyStorage reads a storage.
func ParseSSHKeyStorage(s string) (SSHKeyStorage, error) {
	if m := SSHKeyStorage(s); m == StorageFile || m == StorageAgent {
		return m, nil
	}
	return "", fmt.Errorf("parse ssh key storage %q: want file or agent", clip(s))
}

// ParseSSHAuthorize reads a way.
func ParseSSHAuthorize(s string) (SSHAuthorize, error) {
	if m := SSHAuthorize(s); m == AuthorizeFile || m == AuthorizeCommand {
		return m, nil
	}
	return "", fmt.Errorf("parse ssh authorize %q: want file or command", clip(s))
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *SSHKeyMode) UnmarshalText(b []byte) (err error) {
	*m, err = ParseSSHKeyMode(string(b))
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *SSHKeyStorage) UnmarshalText(b []byte) (err error) {
	*m, err = ParseSSHKeyStorage(string(b))
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *SSHAuthorize) UnmarshalText(b []byte) (err error) {
	*m, err = ParseSSHAuthorize(string(b))
	return err
}

// SSHSettings say how all nodes handle root's SSH keys.
type SSHSettings struct {
	KeyMode   SSHKeyMode    `json:"key_mode"`
	KeyType   string        `json:"key_type"`
	KeyBits   int           `json:"key_bits"` // 0: the type leaves no choice
	Storage   SSHKeyStorage `json:"key_storage"`
	Authorize SSHAuthorize  `json:"authorize"`
}

// DefaultSSHSettings are those of a cluster that says nothing else.
var DefaultSSHSettings = SSHSettings{KeyMode: KeyPerCandidate, KeyType: DefaultSSHKey.Type, Storage: StorageFile, Authorize: AuthorizeFile}

// KeySpec returns the kind of key.
func (s SSHSettings) KeySpec() SSHKeySpec { return SSHKeySpec{s.KeyType, s.KeyBits} }

// Check finds what no node could act on.
func (s SSHSettings) Check() error {
	if spec, err := ParseSSHKeySpec(s.KeyType, s.KeyBits); err != nil {
		return err
	} else if spec != s.KeySpec() {
		return fmt.Errorf("ssh key bits %d: want %d", s.KeyBits, spec.Bits)
	}
	if _, err := ParseSSHKeyMode(string(s.KeyMode)); err != nil {
		return err
	}
	if _, err := ParseSSHKeyStorage(string(s.Storage)); err != nil {
		return err
	}
	_, err := ParseSSHAuthorize(string(s.Authorize))
	return err
}
