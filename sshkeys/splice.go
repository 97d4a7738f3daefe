package sshkeys

import (
	"bytes"
	"fmt"

	"rolekey/cluster"
)

// MaxFile bounds the files that Splice reads. A larger one is an error: what
// cannot be read whole cannot be kept whole.
const MaxFile = 16 << 20

// Report says what Splice found, and what File.Apply did.
type Report struct {
	// Changed says that the content differs from what was there.
	Changed bool
	// Damage tells, for people, which markers were not as we leave them.
	Damage []string
	// Kept counts foreign lines that stood between our markers.
	Kept int
	// Foreign are lines of others that hold a key of the block, a former key,
	// or a key under our comment. They are never edited.
	Foreign []Foreign
	// Repaired tells, for people, which owners and modes were put right, and
	// Unsafe which ones sshd may refuse and are not ours to change.
	Repaired, Unsafe []string
	// Disabled counts revoked lines that were made to open nothing, and InPlace
	// lines that were written, in place because the file could not be replaced.
	Disabled, InPlace int
}

// Foreign is a line that Rolekey did not write and that holds a cluster key.
type Foreign struct {
	Line    int // in the new content, from 1
	Key     cluster.SSHKey
	Current bool // the key is authorized by the block too; otherwise it should open nothing
}

// Splice returns old with this cluster's block replaced by b, or removed if b
// is empty. Foreign bytes are kept exactly and in order; see the package
// comment for the rule. Splicing the same block again changes nothing.
func Splice(old []byte, b Block) ([]byte, Report, error) {
	if b.cluster.IsZero() {
		return nil, Report{}, fmt.Errorf("splice key block: no cluster id")
	}
	if len(old) > MaxFile {
		return nil, Report{}, fmt.Errorf("splice key block: the file has more than %d bytes", MaxFile)
	}
	lines := parseFile(old, b.cluster, b.file)
	drop, report := claim(lines)
	var taken []string
	for i, l := range lines {
		if drop[i] && l.key != "" {
			taken = append(taken, l.key)
		}
	}
	block := b.Bytes()
	out := make([]byte, 0, len(old)+len(block))
	if at := blockPlace(drop); at == 0 {
		out = append(out, block...)
		block = nil
	} else {
		out = append(out, joinKept(lines[:at], drop[:at])...)
		out = append(out, block...)
		lines, drop = lines[at:], drop[at:]
	}
	out = append(out, joinKept(lines, drop)...)
	report.Changed = !bytes.Equal(old, out)
	report.Foreign = findForeign(out, b, taken)
	return out, report, nil
}

// blockPlace is the index of the first dropped line, 0 if there is none.
func blockPlace(drop []bool) int {
	for i, d := range drop {
		if d {
			return i
		}
	}
	return 0
}

func joinKept(lines []line, drop []bool) []byte {
	var out []byte
	for i, l := range lines {
		if !drop[i] {
			out = append(out, l.bytes...)
		}
	}
	return out
}

// claimer walks over the lines once and decides which ones are ours.
type claimer struct {
	lines  []line
	drop   []bool
	report Report

	ours   bool         // after our BEGIN
	begins int          // how many of ours there were
	other  cluster.UUID // after another cluster's BEGIN
	outer  cluster.UUID // the other cluster whose block ours is nested in
}

func claim(lines []line) ([]bool, Report) {
	c := claimer{lines: lines, drop: make([]bool, len(lines))}
	for i, l := range lines {
		c.step(i, l)
	}
	if last := len(lines) - 1; c.ours {
		c.damaged(last, "BEGIN without END before it")
		if lines[last].kind == cutLine && c.other.IsZero() {
			c.drop[last] = true
			c.report.Kept--
		}
	}
	return c.drop, c.report
}

func (c *claimer) damaged(i int, what string) {
	c.report.Damage = append(c.report.Damage, fmt.Sprintf("line %d: %s", i+1, what))
}

func (c *claimer) step(i int, l line) {
	switch l.kind {
	case beginOurs:
		c.begin(i)
	case endOurs:
		c.end(i)
	case beginOther:
		c.other = l.id
	case endOther:
		if c.other == l.id {
			c.other = cluster.UUID{}
		}
	case keyLine:
		c.drop[i] = c.ours && c.other.IsZero()
	}
	if c.ours && !c.drop[i] {
		c.report.Kept++
	}
}

func (c *claimer) begin(i int) {
	c.begins++
	if c.ours {
		c.damaged(i, "BEGIN after a BEGIN without END")
	} else if c.begins > 1 {
		c.damaged(i, "a second block")
	}
	c.drop[i], c.ours = true, true
	switch {
	case c.other.IsZero():
	case c.overlaps(i):
		c.damaged(i, "the block overlaps the one of cluster "+c.other.String())
	default:
		c.outer, c.other = c.other, cluster.UUID{}
	}
}

// overlaps reports whether the open block of another cluster ends between our
// BEGIN at i and our END: then both could claim what lies before that end.
func (c *claimer) overlaps(i int) bool {
	for _, l := range c.lines[i+1:] {
		if l.kind == endOurs {
			return false
		}
		if l.kind == endOther && l.id == c.other {
			return true
		}
	}
	return false
}

func (c *claimer) end(i int) {
	if !c.ours {
		c.damaged(i, "END without BEGIN")
		c.claimRun(i)
	}
	if c.other.IsZero() {
		c.other = c.outer
	}
	c.drop[i], c.ours, c.outer = true, false, cluster.UUID{}
}

// claimRun takes the key lines directly before an END without BEGIN.
func (c *claimer) claimRun(end int) {
	if !c.other.IsZero() {
		return
	}
	for i := end - 1; i >= 0 && c.lines[i].kind == keyLine; i-- {
		c.drop[i] = true
	}
}
