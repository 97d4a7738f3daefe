package sshkeys

import (
	"bytes"
	"encoding/base64"
	"strings"

	"rolekey/cluster"
)

// findForeign lists the lines outside the block that hold a key of the block, a
// former key, a key that was taken out of the block just now, or any key under
// our comment that is in no other cluster's block. known_hosts is not searched:
// a host key that somebody else vouches for opens nothing.
func findForeign(content []byte, b Block, taken []string) []Foreign {
	if b.file != authorizedKeys {
		return nil
	}
	s := searcher{current: map[string]bool{}, former: map[string]bool{}}
	for _, l := range b.lines {
		s.current[l.key] = true
	}
	for _, k := range b.Former {
		s.former[string(k.Blob)] = true
	}
	for _, key := range taken {
		s.former[key] = true
	}
	lines := parseFile(content, b.cluster, b.file)
	// Claiming once more finds the block just written, and only that.
	mine, _ := claim(lines)
	var found []Foreign
	inOther := false
	for i, l := range lines {
		switch {
		case mine[i]:
			continue
		case l.kind == beginOther:
			inOther = true
		case l.kind == endOther:
			inOther = false
		}
		if k, ok := s.search(l.bytes, !inOther); ok {
			found = append(found, Foreign{Line: i + 1, Key: k, Current: s.current[string(k.Blob)]})
		}
	}
	return found
}

type searcher struct{ current, former map[string]bool }

// search looks at every word of a line that is no comment. That is more than
// sshd would read, so an odd line is reported rather than missed. With byComment, a key under our comment counts as well.
func (s searcher) search(raw []byte, byComment bool) (cluster.SSHKey, bool) {
	text, _, _ := bytes.Cut(raw, []byte{0}) // sshd's lines end at a NUL
	words := strings.Fields(string(text))
	if len(words) == 0 || words[0][0] == '#' {
		return cluster.SSHKey{}, false
	}
	_, ours := parseComment(words[len(words)-1])
	ours = ours && byComment
	for _, w := range words {
		blob, err := base64.StdEncoding.DecodeString(w)
		if err != nil || blobType(blob) == "" {
			continue
		}
		if ours || s.current[string(blob)] || s.former[string(blob)] {
			return cluster.SSHKey{Type: blobType(blob), Blob: blob}, true
		}
	}
	return cluster.SSHKey{}, false
}
