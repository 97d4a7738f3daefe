package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"rolekey/cluster"
)

// HostsType is the type of a statement of host keys, its first member.
const HostsType = "application/vnd.rolekey.host-keys.v1+json"

// Hosts is what a member says of its own sshd. Whether the keys may be used is
// for package sshkeys to say.
type Hosts struct {
	Cluster     cluster.UUID
	Node        cluster.NodeID
	Incarnation uint64
	Issued      time.Time // UTC, whole milliseconds; later statements have later times
	Port        uint16
	Keys        []cluster.SSHKey // sorted by type and blob, each once
}

type wireHosts struct {
	Type        string           `json:"type"`
	Cluster     cluster.UUID     `json:"cluster"`
	Node        cluster.NodeID   `json:"node"`
	Incarnation uint64           `json:"incarnation"`
	Issued      time.Time        `json:"issued"`
	Port        uint16           `json:"ssh_port"`
	Keys        []cluster.SSHKey `json:"host_keys"`
}

// SignedHosts is a statement as it is sent. Open is the only way to its content.
type SignedHosts struct {
	Statement []byte `json:"statement"` // JSON
	Key       []byte `json:"key"`       // the signer's SubjectPublicKeyInfo, DER
	Signature []byte `json:"signature"`
}

// SignHosts makes a statement with the key of the node's identity certificate.
func SignHosts(key crypto.Signer, h Hosts) (SignedHosts, error) {
	if err := h.check(); err != nil {
		return SignedHosts{}, fmt.Errorf("sign host keys: %w", err)
	}
	statement, err := json.Marshal(wireHosts{HostsType, h.Cluster, h.Node, h.Incarnation, h.Issued, h.Port, h.Keys})
	if err != nil {
		return SignedHosts{}, fmt.Errorf("sign host keys: %w", err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return SignedHosts{}, fmt.Errorf("sign host keys: %w", err)
	}
	message, opts := transcript(domainHosts, statement), crypto.SignerOpts(crypto.Hash(0))
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		sum := sha256.Sum256(message)
		message, opts = sum[:], crypto.SHA256
	}
	sig, err := key.Sign(rand.Reader, message, opts)
	if err != nil {
		return SignedHosts{}, fmt.Errorf("sign host keys: %w", err)
	}
	return SignedHosts{statement, pub, sig}, nil
}

// Open returns the statement if it was signed by a key with one of the pins.
// Nothing of it is parsed before.
func (s SignedHosts) Open(pins []cluster.Digest) (Hosts, error) {
	if len(s.Statement) > maxHosts || len(s.Key) > maxCSR || len(s.Signature) > maxSignature {
		return Hosts{}, cluster.Errorf(cluster.CodeTooLarge, "host keys: over %d bytes", maxHosts)
	}
	if !slices.Contains(pins, cluster.DigestOf(s.Key)) {
		return Hosts{}, cluster.Errorf(cluster.CodeIdentityMismatch, "host keys: the signing key is not an identity key of the node")
	}
	pub, err := x509.ParsePKIXPublicKey(s.Key)
	if err == nil {
		err = CheckPublicKey(pub)
	}
	if err != nil {
		return Hosts{}, cluster.Errorf(cluster.CodeBadSignature, "host keys: %v", err)
	}
	if !verifies(pub, transcript(domainHosts, s.Statement), s.Signature) {
		return Hosts{}, cluster.Errorf(cluster.CodeBadSignature, "host keys: the signature does not verify")
	}
	h, err := parseHosts(s.Statement)
	if err != nil {
		return Hosts{}, cluster.Errorf(cluster.CodeBadFormat, "host keys: %v", err)
	}
	return h, nil
}

func verifies(pub crypto.PublicKey, message, sig []byte) bool {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(k, sum[:], sig)
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, sig)
	}
	return false
}

// parseHosts accepts what SignHosts writes and nothing else: what is encoded
// again must be the same.
func parseHosts(b []byte) (Hosts, error) {
	var w wireHosts
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return Hosts{}, errors.New("not a statement of host keys")
	}
	if w.Type != HostsType {
		return Hosts{}, fmt.Errorf("type %.60q, want %s", w.Type, HostsType)
	}
	again, err := json.Marshal(w)
	if err != nil || !bytes.Equal(again, b) {
		return Hosts{}, errors.New("not the canonical encoding")
	}
	h := Hosts{w.Cluster, w.Node, w.Incarnation, w.Issued, w.Port, w.Keys}
	return h, h.check()
}

func (h Hosts) check() error {
	switch {
	case h.Cluster.IsZero() || h.Node.IsZero() || h.Incarnation == 0 || h.Port == 0:
		return errors.New("cluster, node, incarnation and port must be set")
	case h.Issued.Location() != time.UTC || !h.Issued.Equal(h.Issued.Truncate(time.Millisecond)) || h.Issued.Unix() <= 0:
		return errors.New("the time must be in UTC and whole milliseconds")
	case len(h.Keys) == 0 || len(h.Keys) > MaxHostKeys:
		return fmt.Errorf("%d keys, want 1 to %d", len(h.Keys), MaxHostKeys)
	}
	for i, k := range h.Keys {
		if i > 0 && CompareHostKeys(h.Keys[i-1], k) >= 0 {
			return errors.New("the keys are not sorted, each once")
		}
	}
	return nil
}

// CompareHostKeys orders keys as a statement lists them.
func CompareHostKeys(a, b cluster.SSHKey) int {
	if a.Type != b.Type {
		if a.Type < b.Type {
			return -1
		}
		return 1
	}
	return bytes.Compare(a.Blob, b.Blob)
}
