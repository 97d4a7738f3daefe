package sshkeys

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
)

// Limits on keys. The largest RSA key that OpenSSH reads has 16384 bits, and
// its blob stays below maxBlob.
const (
	maxBlob    = 4 << 10
	minRSABits = 3072
	maxRSABits = 16384
)

// commentPrefix starts the comment of every key that Rolekey writes.
const commentPrefix = "rolekey:"

// ParseKey checks a public key before it may reach a file: Ed25519, ECDSA on
// P-256, P-384 or P-521, or RSA of at least 3072 bits; the type that it claims
// is the type of the blob, and the blob is the only encoding of its key. DSA,
// certificates and hardware-bound keys are refused.
func ParseKey(k cluster.SSHKey) (ssh.PublicKey, error) {
	if len(k.Blob) > maxBlob {
		return nil, fmt.Errorf("parse ssh key: %d bytes, at most %d", len(k.Blob), maxBlob)
	}
	pub, err := ssh.ParsePublicKey(k.Blob)
	if err != nil {
		return nil, fmt.Errorf("parse ssh key: %w", err)
	}
	if pub.Type() != k.Type {
		return nil, fmt.Errorf("parse ssh key: it says %.40q and is %q", k.Type, pub.Type())
	}
	if !bytes.Equal(pub.Marshal(), k.Blob) {
		return nil, fmt.Errorf("parse ssh key: the %s key is not in its canonical encoding", k.Type)
	}
	if err := checkStrength(pub); err != nil {
		return nil, fmt.Errorf("parse ssh key: %w", err)
	}
	return pub, nil
}

func checkStrength(pub ssh.PublicKey) error {
	switch pub.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return nil
	case ssh.KeyAlgoRSA:
		return checkRSA(pub)
	default:
		return fmt.Errorf("type %q is not allowed: use ssh-ed25519, ecdsa-sha2-nistp256/384/521, or ssh-rsa of %d bits or more", pub.Type(), minRSABits)
	}
}

func checkRSA(pub ssh.PublicKey) error {
	c, ok := pub.(ssh.CryptoPublicKey)
	if !ok {
		return fmt.Errorf("ssh-rsa key without numbers")
	}
	k, ok := c.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("ssh-rsa key without numbers")
	}
	if n := k.N.BitLen(); n < minRSABits || n > maxRSABits {
		return fmt.Errorf("ssh-rsa key of %d bits: want %d to %d", n, minRSABits, maxRSABits)
	}
	return nil
}

// KeyOf returns the plain form of a parsed key. It checks nothing: ParseKey
// decides what may be used.
func KeyOf(pub ssh.PublicKey) cluster.SSHKey {
	return cluster.SSHKey{Type: pub.Type(), Blob: pub.Marshal()}
}

// ParsePublicLine reads the first key of a .pub file, such as a host key, and
// checks it as ParseKey does. Options are refused: a .pub file has none.
func ParsePublicLine(line []byte) (cluster.SSHKey, error) {
	if len(line) > 3*maxBlob {
		return cluster.SSHKey{}, fmt.Errorf("parse public key line: more than %d bytes", 3*maxBlob)
	}
	pub, _, options, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		return cluster.SSHKey{}, fmt.Errorf("parse public key line: %w", err)
	}
	if len(options) != 0 {
		return cluster.SSHKey{}, fmt.Errorf("parse public key line: it starts with options")
	}
	k := KeyOf(pub)
	if _, err := ParseKey(k); err != nil {
		return cluster.SSHKey{}, err
	}
	return k, nil
}

// Fingerprint returns the form that ssh-keygen -l and sshd's log print.
func Fingerprint(k cluster.SSHKey) string {
	sum := cluster.DigestOf(k.Blob)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Comment returns the comment of a node's key.
func Comment(node cluster.NodeID) string { return commentPrefix + node.String() }

// keyText is "type base64 comment", the tail of every line.
func keyText(k cluster.SSHKey, node cluster.NodeID) string {
	return k.Type + " " + base64.StdEncoding.EncodeToString(k.Blob) + " " + Comment(node)
}

// parseComment reads the comment that Comment writes.
func parseComment(s string) (cluster.NodeID, bool) {
	text, ok := strings.CutPrefix(s, commentPrefix)
	if !ok {
		return cluster.NodeID{}, false
	}
	id, err := cluster.ParseUUID(text)
	return id, err == nil && !id.IsZero()
}
