package faults

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"rolekey/internal/lab"
	"rolekey/internal/paths"
)

// How a fault is put right.
const (
	byRepair = "``--repair``"
	byRemedy = "the printed remedy"
	byBoth   = "``--repair`` and the printed remedy"
	byItself = "the cluster by itself"
)

// fault is one thing that can be wrong with a running cluster.
type fault struct {
	name string
	node string // short name of the node that it is on; empty: the cluster
	says []say  // what verify reports, and nothing else; the table names the first code
	cure string

	// alone tells why no other fault is put on the same node at the same time.
	alone string
	// restarts is another node whose noded is started anew to inject it.
	restarts string
	// heals tells that noded looks now and then, and may be quicker than --repair;
	// quick, that it may even be quicker than verify.
	heals, quick bool
	// allPairs tells that not every run of verify tries it, but one with --all-pairs.
	allPairs bool
	// asRoot tells that only root can do this to a daemon.
	asRoot bool
	// strict tells that it needs an sshd with StrictModes.
	strict bool

	inject func(w *world) error
	remedy func(w *world, f finding) error // does what the printed remedy of the first finding says
}

// Why a fault is alone on its node.
const (
	silent    = "noded answers nothing about the node"
	restarted = "it starts a daemon of the node anew, which puts right what others inject, and ends what they hold"
	rewritten = "its cure replaces what others inject"
)

// say is what verify says of a fault.
type say struct {
	code string
	node string // short name; empty: the cluster; anyNode: whoever notices
	text string // part of what it says
	warn bool   // it is a warning
	may  bool   // it may be missing
}

const anyNode = "*"

func (s say) is(x finding) bool {
	return s.code == x.Code && (s.node == anyNode || x.Name == full(s.node)) && s.warn == (x.Level == "WARNING") && strings.Contains(x.Text, s.text)
}

// is reports whether a finding is about this fault.
func (f fault) is(x finding) bool {
	return slices.ContainsFunc(f.says, func(s say) bool { return s.is(x) })
}

// first is the finding that the table names, of a report.
func (f fault) first(r *report) (finding, bool) {
	for _, x := range r.all() {
		if f.says[0].is(x) {
			return x, true
		}
	}
	return finding{}, false
}

func full(short string) string {
	if short == "" {
		return "None"
	}
	return short + "." + lab.Domain
}

// judge compares a report with what the faults must yield: all that they say,
// and no finding that is none of theirs.
func judge(r *report, faults []fault) error {
	var errs []error
	for _, x := range r.all() {
		if !slices.ContainsFunc(faults, func(f fault) bool { return f.is(x) }) {
			errs = append(errs, fmt.Errorf("also reported: %s %s %s: %s", x.Level, x.Code, x.Name, x.Text))
		}
		if x.Remedy == "" {
			errs = append(errs, fmt.Errorf("no remedy for: %s", x.Text))
		}
	}
	for _, f := range faults {
		for _, s := range f.says {
			if !s.may && !f.quick && !slices.ContainsFunc(r.all(), s.is) {
				errs = append(errs, fmt.Errorf("not reported of %q: %+v", f.name, s))
			}
		}
	}
	return errors.Join(errs...)
}

func (w *world) layout(name string) paths.Layout { return paths.Layout{Root: w.node(name).Root} }

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	return err
}

// started starts what does not run on a node, as the remedy says.
func (w *world) started(node, unit string, f finding) error {
	if !strings.Contains(f.Remedy, "systemctl restart "+unit) {
		return fmt.Errorf("remedy %q does not name %s", f.Remedy, unit)
	}
	return w.Start(w.ctx, node)
}

// restarted ends a daemon of a node, which may hang, and starts it.
func (w *world) restarted(node, daemon string) error {
	return errors.Join(w.Kill(w.ctx, node, daemon), w.Start(w.ctx, node))
}

// asSaid runs the first command of the remedy that begins so on the master. Those
// that ask are told not to.
func (w *world) asSaid(f finding, begins string) error {
	_, rest, ok := strings.Cut(f.Remedy, begins)
	if !ok {
		return fmt.Errorf("remedy %q does not say %q", f.Remedy, begins)
	}
	end := strings.IndexAny(rest, ";,&")
	if end < 0 {
		end = len(rest)
	}
	return w.command(0, strings.Fields(begins+rest[:end])...)
}

// command runs a command on the master, which must end with the code.
func (w *world) command(code int, args ...string) error {
	if slices.Contains([]string{"renew-crypto", "accept-host-keys"}, args[1]) {
		args = append(args, "-f")
	}
	master, err := w.Master(w.ctx)
	if err == nil {
		_, err = w.Must(w.ctx, code, master, args...)
	}
	return err
}

// editor has a file open for writing, as editors and configuration managers do
// that write in place: noded waits until it has closed it.
func (w *world) editor(path string, change func(text string) string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	w.t.Cleanup(func() { _ = f.Close() }) // it may be closed
	w.edited[path] = f
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(change(string(text))), 0)
	return err
}

// quit ends the editor.
func (w *world) quit(path string) error { return w.edited[path].Close() }

// TestJudge: the judge of these tests must be able to say no.
func TestJudge(t *testing.T) {
	f := fault{name: "x", says: []say{{code: "C", node: "node4", text: "abc"}, {code: "D", node: anyNode, may: true}}}
	good := finding{Level: "ERROR", Code: "C", Name: full("node4"), Text: "x abc", Remedy: "r"}
	change := func(edit func(*finding)) *report {
		x := good
		edit(&x)
		return &report{Errors: []finding{x}}
	}
	if err := judge(change(func(*finding) {}), []fault{f}); err != nil {
		t.Error(err)
	}
	for what, r := range map[string]*report{
		"nothing": {}, "another code": change(func(x *finding) { x.Code = "E" }), "another node": change(func(x *finding) { x.Name = full("node5") }),
		"another text": change(func(x *finding) { x.Text = "y" }), "a warning": change(func(x *finding) { x.Level = "WARNING" }),
		"no remedy": change(func(x *finding) { x.Remedy = "" }), "noise": {Errors: []finding{good, {Level: "ERROR", Code: "F", Remedy: "r"}}},
	} {
		if judge(r, []fault{f}) == nil {
			t.Errorf("%s passes", what)
		}
	}
}
