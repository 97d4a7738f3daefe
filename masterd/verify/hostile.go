package verify

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"rolekey/cluster"
	"rolekey/rpc"
)

// Bounds on what a node can make the report say, so that it hides nothing that is
// said of others: the log of a job has an end.
const (
	maxFindings = 30   // of one severity, about one node
	maxText     = 1000 // bytes of one
	maxRemedy   = 1200
	maxFiles    = 64 // names of derived files of one node
)

// plain makes one line of a text that may come from a node, without what could
// play tricks on a terminal.
func plain(text string) string {
	text = printable(oneLine(text))
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "..."
}

func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

var shellWords = regexp.MustCompile(`^[A-Za-z0-9/._+:,@%-]+$`)

// shellWord quotes a path that a node names, for a command that somebody copies.
func shellWord(path string) string {
	if path = printable(path); shellWords.MatchString(path) && path[0] != '-' {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func shellList(paths []string) string {
	var words []string
	for _, p := range paths[:min(len(paths), maxFiles)] {
		words = append(words, shellWord(p))
	}
	return strings.Join(words, " ")
}

var derivedName = regexp.MustCompile(`^ssconf_[a-z_]{1,64}$`)

// derived are the files of an answer that can be some that nodes derive from the
// map: others would be reported as missing everywhere else.
func derived(f rpc.NodeFacts) map[string]cluster.Digest {
	out := map[string]cluster.Digest{}
	for _, name := range slices.Sorted(maps.Keys(f.Files)) {
		if len(out) < maxFiles && derivedName.MatchString(name) {
			out[name] = f.Files[name]
		}
	}
	return out
}

// leftOut tells of whom more was found than is told.
func (c *check) leftOut() {
	for _, about := range slices.Sorted(maps.Keys(c.told)) {
		if n := c.told[about] - maxFindings; n > 0 {
			c.tell("  - NOTICE: " + strconv.Itoa(n) + " more of '" + about + "' are left out.")
		}
	}
}
