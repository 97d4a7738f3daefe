package verify

import (
	"fmt"
	"strings"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// Repair is what puts a finding right without danger. Whatever could be wrong to
// do, because somebody may have meant it or evidence would be lost, has none.
type Repair string

// The repairs.
const (
	RepairNone    Repair = ""
	RepairPush    Repair = "push"     // deliver map and roster anew, and have the files rewritten that follow from them
	RepairNode    Repair = "node"     // the node puts its own files right
	RepairKeys    Repair = "keys"     // the node destroys keys of a role that it does not have
	RepairRekey   Repair = "rekey"    // the candidate gets new keys, by a job
	RepairSSHKeys Repair = "ssh-keys" // the candidates get the SSH keys that they should have, by a job
	RepairPool    Repair = "pool"     // nodes are promoted until the pool is full
)

// Finding is an error or a warning of a report.
type Finding struct {
	Severity string // ERROR, or WARNING
	Code     string
	Kind     string // of the object, such as node
	Name     string // of the object; empty: the cluster as a whole
	Node     cluster.NodeID
	Text     string
	Remedy   string // what to do, for people: never empty
	Repair   Repair
	Rest     string // what is left to do by hand once it is repaired
}

// Error reports whether the finding makes verify fail.
func (f *Finding) Error() bool { return f.Severity == "ERROR" }

// Report is what verify found.
type Report struct {
	Findings []*Finding
	codes    bool
}

// OK reports whether no error was found.
func (r Report) OK() bool {
	for _, f := range r.Findings {
		if f.Error() {
			return false
		}
	}
	return true
}

// Line renders a line of the report, as the opcode wanted its form.
func (r Report) Line(severity, code, kind, name, text string) string {
	return line(r.codes, severity, code, kind, name, text)
}

func line(codes bool, severity, code, kind, name, text string) string {
	if !codes {
		return fmt.Sprintf("  - %s: %s %s: %s", severity, kind, name, text)
	}
	if name == "" {
		name = "None"
	}
	return fmt.Sprintf("  - %s:%s:%s:%s:%s", severity, code, kind, name, text)
}

// RemedyMark begins the line of the report that follows a finding, with what to do.
const RemedyMark = "    remedy: "

// cure says how a finding is put right, where that is not what its code says.
func (f *Finding) cure(r Repair, format string, args ...any) {
	f.Repair, f.Remedy = r, printable(fmt.Sprintf(format, args...))
	if len(f.Remedy) > maxRemedy { // half a command is none
		f.Remedy = "the node names more than can be repeated here: look at it yourself"
	}
}

// then says what the repair leaves to do by hand.
func (f *Finding) then(format string, args ...any) {
	f.Rest = printable(fmt.Sprintf(format, args...))
	f.Remedy += "; then, by hand: " + f.Rest
}

// remedies are what to do about findings of a code, unless something else is
// said: NAME is the node.
var remedies = map[string]string{
	CodeClusterConfig:    "the master follows by itself within seconds; if it is still so in a minute, its log says why (masterd on the master)",
	CodeClientCert:       "gnt-cluster renew-crypto --new-node-certificates --node NAME",
	CodeClusterCert:      "gnt-cluster renew-crypto --new-node-certificates --node NAME",
	CodeNodeRPC:          "on NAME: systemctl restart rolekey-noded; if the machine is gone: gnt-node modify -O yes NAME",
	CodeNodeNet:          "noded on NAME tries again by itself; its log says what is in the way",
	CodeNodeSSH:          "on NAME: put right what the line says, then, on the master: gnt-cluster redist-conf",
	CodeNodeTime:         "set the clock of NAME, and keep it by NTP: chronyc makestep",
	CodeNodeMap:          "gnt-cluster redist-conf",
	CodeNodeKey:          "gnt-cluster verify --repair",
	CodeNodeGate:         "gnt-node modify -O yes NAME, find out what runs there instead of the noded that the others run, and add it again: gnt-node add --readd NAME",
	CodeNodeHooks:        "run the script by hand on NAME, and mend it",
	CodeClusterFileCheck: "gnt-cluster redist-conf",
	CodeNodeFileCheck:    "gnt-cluster verify --repair",
	CodeNodeVersion:      "install the master's release on NAME",
}

// found notes a finding and tells its line. What cures it may still be said
// until the next line is told. Beyond maxFindings it only counts.
func (c *check) found(severity, code, kind, name, text string) *Finding {
	about := strings.TrimSpace(severity + " " + kind + " " + name)
	if c.told[about]++; c.told[about] > maxFindings {
		return &Finding{}
	}
	text = plain(text)
	f := &Finding{Severity: severity, Code: code, Kind: kind, Name: name, Text: text}
	f.Remedy = strings.ReplaceAll(remedies[code], "NAME", name)
	for _, n := range c.s.SortedNodes() {
		if kind == "node" && string(n.Name) == name {
			f.Node = n.UUID
		}
	}
	c.tell(line(c.opts.ErrorCodes, severity, code, kind, name, text))
	c.findings, c.untold = append(c.findings, f), f
	return f
}

// tell tells a line of the report, after the remedy of what was found last.
func (c *check) tell(text string) {
	c.tellRemedy()
	c.out(printable(text))
}

func (c *check) tellRemedy() {
	f := c.untold
	if c.untold = nil; f != nil && (c.opts.Verbose || c.opts.Remedies) {
		c.out(RemedyMark + f.Remedy)
	}
}

// rekeyable says how a candidate gets new keys: by a job, unless it is the master,
// which would lose its role.
func (c *check) rekeyable(f *Finding, n *state.Node) {
	if n.UUID == c.s.Master {
		f.cure(RepairNone, "gnt-cluster master-failover --to ANOTHER, and then, there: gnt-cluster verify --repair")
		return
	}
	f.cure(RepairRekey, "gnt-cluster verify --repair")
}
