package sshkeys

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rolekey/cluster"
)

// Authorized is one node whose keys open this node, as the map says it.
type Authorized struct {
	Node cluster.NodeID
	Keys []cluster.SSHKey
	From []netip.Prefix // where its connections may come from; empty authorizes nothing
}

// Host is one node to connect to, as the roster says it.
type Host struct {
	Node      cluster.NodeID
	Name      cluster.Name
	Addresses []netip.Addr // the first is the one that ssh connects to
	Port      uint16
	Keys      []cluster.SSHKey // its host keys
}

// Block is what one file should hold for one cluster. Make it with
// AuthorizedBlock or KnownHostsBlock.
type Block struct {
	// Former are keys of former candidates. Splice reports foreign lines that
	// hold one of them, as it does for the keys of the block itself.
	Former []cluster.SSHKey

	cluster cluster.UUID
	file    fileKind
	lines   []blockLine
}

type blockLine struct {
	text string // without newline
	key  string // blob
}

// AuthorizedBlock makes the block of authorized_keys: for each key
//
//	from="<addresses>",expiry-time="<YYYYMMDDHHMMSSZ>" <type> <blob> rolekey:<node>
//
// Entries that do not check out are left out and told in the error; the block
// returned beside it is good and must be applied, since leaving a revocation
// undone is worse than leaving a key out. Only a missing expiry or cluster
// yields no block. Without entries the block is empty and expires may be zero.
func AuthorizedBlock(id cluster.UUID, list []Authorized, expires time.Time, o Options) (Block, error) {
	if id.IsZero() {
		return Block{}, fmt.Errorf("make key block: no cluster id")
	}
	b := Block{cluster: id, file: authorizedKeys}
	if len(list) == 0 {
		return b, nil
	}
	until, err := o.expiryOption(expires)
	if err != nil {
		return Block{}, fmt.Errorf("make key block: %w", err)
	}
	var errs []error
	for _, a := range list {
		lines, err := a.lines(until)
		if err != nil {
			errs = append(errs, fmt.Errorf("make key block: node %s: %w", a.Node, err))
		}
		b.lines = append(b.lines, lines...)
	}
	b.sort()
	return b, errors.Join(errs...)
}

func (a Authorized) lines(until string) ([]blockLine, error) {
	if a.Node.IsZero() {
		return nil, fmt.Errorf("no node id")
	}
	from, err := fromOption(a.From)
	if err != nil {
		return nil, err
	}
	var lines []blockLine
	var errs []error
	for _, k := range a.Keys {
		if _, err := ParseKey(k); err != nil {
			errs = append(errs, err)
			continue
		}
		lines = append(lines, blockLine{from + until + " " + keyText(k, a.Node), string(k.Blob)})
	}
	return lines, errors.Join(errs...)
}

// fromOption renders prefixes as sshd reads them: no host bits (sshd refuses
// the whole list otherwise), whole addresses without a length, sorted, once.
func fromOption(prefixes []netip.Prefix) (string, error) {
	if len(prefixes) == 0 {
		return "", fmt.Errorf("no address to authorize from")
	}
	var texts []string
	for _, p := range prefixes {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return "", fmt.Errorf("prefix %s: want a plain IPv4 or IPv6 prefix", p)
		}
		p = p.Masked()
		if p.IsSingleIP() {
			texts = append(texts, p.Addr().String())
		} else {
			texts = append(texts, p.String())
		}
	}
	slices.Sort(texts)
	return `from="` + strings.Join(slices.Compact(texts), ",") + `"`, nil
}

// KnownHostsBlock makes the block of known_hosts: one line per host key with
// the host's name and addresses, and their [host]:port forms if the port is not
// 22. The plain name stays in any case: it is what HostKeyAlias looks up.
// Entries that do not check out are left out and told in the error, beside a
// good block.
func KnownHostsBlock(id cluster.UUID, hosts []Host) (Block, error) {
	if id.IsZero() {
		return Block{}, fmt.Errorf("make host key block: no cluster id")
	}
	b := Block{cluster: id, file: knownHosts}
	var errs []error
	for _, h := range hosts {
		lines, err := h.lines()
		if err != nil {
			errs = append(errs, fmt.Errorf("make host key block: node %.64q: %w", string(h.Name), err))
		}
		b.lines = append(b.lines, lines...)
	}
	b.sort()
	return b, errors.Join(errs...)
}

func (h Host) lines() ([]blockLine, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	names := strings.Join(h.patterns(), ",")
	var lines []blockLine
	var errs []error
	for _, k := range h.Keys {
		if _, err := ParseKey(k); err != nil {
			errs = append(errs, err)
			continue
		}
		lines = append(lines, blockLine{names + " " + keyText(k, h.Node), string(k.Blob)})
	}
	return lines, errors.Join(errs...)
}

// check guards the files once more: a name is a type that any string converts
// to, and a pattern among the names would vouch for every host.
func (h Host) check() error {
	if h.Node.IsZero() {
		return fmt.Errorf("no node id")
	}
	if _, err := cluster.ParseName(string(h.Name)); err != nil {
		return err
	}
	if len(h.Addresses) == 0 || h.Port == 0 {
		return fmt.Errorf("no address or no port")
	}
	for _, a := range h.Addresses {
		if err := cluster.CheckAddr(a); err != nil {
			return err
		}
	}
	return nil
}

func (h Host) patterns() []string {
	names := []string{string(h.Name)}
	for _, a := range h.Addresses {
		names = append(names, a.String())
	}
	if h.Port == sshPort {
		return names
	}
	out := names[:1:1]
	for _, n := range names {
		out = append(out, fmt.Sprintf("[%s]:%d", n, h.Port))
	}
	return out
}

const sshPort = 22

// sort makes the bytes of a block depend on what it says only.
func (b *Block) sort() {
	slices.SortFunc(b.lines, func(x, y blockLine) int { return strings.Compare(x.text, y.text) })
	b.lines = slices.Compact(b.lines)
}

// Cluster returns the cluster that the block belongs to.
func (b Block) Cluster() cluster.UUID { return b.cluster }

// Without returns an empty block, for a file where the keys of b do not belong:
// lines of others that hold one of them are reported.
func (b Block) Without() Block {
	b.Former = slices.Clone(b.Former)
	for _, l := range b.lines {
		b.Former = append(b.Former, cluster.SSHKey{Type: blobType([]byte(l.key)), Blob: []byte(l.key)})
	}
	b.lines = nil
	return b
}

// Len returns the number of key lines.
func (b Block) Len() int { return len(b.lines) }

// Bytes returns the block with its markers, or nothing if it has no lines.
func (b Block) Bytes() []byte {
	if len(b.lines) == 0 {
		return nil
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s%s\n", beginPrefix, b.cluster)
	for _, l := range b.lines {
		out.WriteString(l.text)
		out.WriteByte('\n')
	}
	fmt.Fprintf(&out, "%s%s\n", endPrefix, b.cluster)
	return out.Bytes()
}
