package verify

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// TestHostileAnswerHidesNothing: a node whose answers are as long and as strange
// as they may be takes its share of the report, and no more: what is said of
// another node is there, and no line does anything to a terminal.
func TestHostileAnswerHidesNothing(t *testing.T) {
	f := newField(t)
	nasty := "\x1b[2J\x1b]0;x\a\u202e\u009b31m\n  - ERROR:ENODEKEY:node:node2.lab.test:forged\r" + strings.Repeat("x", 1000)
	a, facts := f.at(4), rpc.NodeFacts{Files: map[string]cluster.Digest{}}
	for i := range 3000 {
		a.BlockProblems = append(a.BlockProblems, nasty)
		a.KeyFiles = append(a.KeyFiles, nasty)
		facts.Modes = append(facts.Modes, nasty)
		facts.Unsearched = append(facts.Unsearched, nasty)
		facts.Files[fmt.Sprintf("ssconf_%d%s", i, nasty)] = cluster.Digest{1}
		facts.Copies = append(facts.Copies, rpc.KeyCopy{Path: nasty, Key: f.node(1).Keys.SSH[0]})
	}
	a.Software = nasty
	for _, n := range f.lab.S.SortedNodes() {
		facts.Gossip = append(facts.Gossip, n.UUID)
	}
	facts.Files["ssconf_master_node"] = cluster.Digest{1}
	f.facts = map[cluster.NodeID]rpc.NodeFacts{statetest.ID(4): facts}
	f.errs[statetest.ID(6)] = errors.New(nasty)
	f.at(2).PrivateKey = false
	f.opts = `{"error_codes":true,"remedies":true}`
	ok, bad := f.run()
	if want := "  - ERROR:ENODEKEY:node:node2.lab.test:Master candidate 'node2.lab.test' has no private cluster SSH key"; ok || !slices.Contains(bad, want) {
		t.Errorf("%t, the finding about another node is not there", ok)
	}
	about, size := map[string]int{}, 0
	for _, line := range f.lines {
		size += len(line)
		if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", line)
		}
	}
	for _, line := range bad {
		about[strings.Split(line, ":")[3]]++
	}
	if about["node4.lab.test"] != maxFindings+1 || about["node2.lab.test"] != 1 || about["node6.lab.test"] != 1 || about["None"] != 0 {
		t.Errorf("findings: %v", about) // of node 4 errors, and a warning about its release
	}
	if size > state.MaxLogBytes/4 || len(f.lines) > 150 {
		t.Errorf("%d lines of %d bytes together", len(f.lines), size)
	}
	if !slices.ContainsFunc(f.lines, func(l string) bool { return strings.Contains(l, "more of 'ERROR node node4.lab.test' are left out") }) {
		t.Error("nobody says that some are left out")
	}
}

// TestWarningsDoNotHideErrors: each severity has its own bound.
func TestWarningsDoNotHideErrors(t *testing.T) {
	c := &check{s: &state.State{}, out: func(string) {}, told: map[string]int{}}
	for range 2 * maxFindings {
		c.line("WARNING", CodeNodeSSH, "node", "node1", "x")
	}
	c.report(CodeNodeKey, "node", "node1", "x")
	if len(c.findings) != maxFindings+1 || (Report{Findings: c.findings}).OK() {
		t.Errorf("%d findings", len(c.findings))
	}
}

// TestShellWordsAreOnePath: whatever a node names its files, a command that
// somebody copies from a remedy has it as one argument.
func TestShellWordsAreOnePath(t *testing.T) {
	for _, path := range []string{"/root/.ssh/id", "/tmp/a b", "/tmp/x'; touch /tmp/y; '", "/tmp/$(id)`id`", "-rf", "", "/tmp/a\"b\\c"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "for w in "+shellWord(path)+"; do echo \"[$w]\"; done").Output()
		if err != nil || string(out) != "["+path+"]\n" && path != "/tmp/a\"b\\c" { // echo reads the backslash
			t.Errorf("%q: %q, %v", path, out, err)
		}
	}
}
