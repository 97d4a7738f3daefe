package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/internal/lab"
)

// suffer puts faults into the cluster and waits until verify reports them and
// nothing else: daemons that were just started, and nodes that were just lost,
// take a moment.
func (w *world) suffer(faults []fault) *report {
	w.t.Helper()
	for _, f := range faults {
		if f.asRoot && os.Geteuid() != 0 {
			w.t.Skip("only root can do this: " + f.name)
		}
		if st, err := w.State(w.ctx); f.strict && (err != nil || st.Lax != "") {
			w.t.Skip("sshd here is not strict: " + f.name)
		}
		err := f.inject(w)
		if errors.Is(err, lab.ErrNoNamespaces) {
			w.t.Skip("cuts need namespaces")
		}
		if err != nil {
			w.t.Fatalf("%s: %v", f.name, err)
		}
	}
	var args []string
	if slices.ContainsFunc(faults, func(f fault) bool { return f.allPairs }) {
		args = append(args, "--all-pairs")
	}
	var r *report
	said := ""
	took := w.until("verify reports "+names(faults), func(context.Context) (err error) {
		if r, err = w.verify(args...); err == nil {
			err = judge(r, faults)
		}
		if now := fmt.Sprint(err); err != nil && now != said {
			w.t.Logf("not yet: %s", now)
			said = now
		}
		for _, f := range faults {
			if err != nil && f.heals && !f.quick {
				_ = f.inject(w) // noded may have put it right while the others were not seen yet
			}
		}
		return err
	})
	w.t.Logf("%s: reported after %s", names(faults), took.Round(time.Millisecond))
	return r
}

func names(faults []fault) string {
	var list []string
	for _, f := range faults {
		list = append(list, f.name)
	}
	return strings.Join(list, "; ")
}

// heal has --repair and the printed remedies put the faults right. --repair must
// leave what it is not to touch, and do nothing when it is run again.
func (w *world) heal(faults []fault, r *report) {
	w.t.Helper()
	var rest []fault // what --repair leaves
	patient := true  // nothing need be left for it
	for _, f := range faults {
		if f.cure != byRepair && f.cure != byBoth {
			rest = append(rest, f)
			continue
		}
		patient = patient && f.heals
	}
	if len(rest) < len(faults) {
		done, err := w.verify("--repair")
		w.must(err)
		if len(done.Repaired) == 0 && !patient {
			w.t.Errorf("nothing was repaired: %q", done.Lines)
		}
		w.until("--repair has put right "+names(faults), func(context.Context) error {
			left, err := w.verify()
			if err == nil {
				err = judge(left, rest)
			}
			return err
		})
		again, err := w.verify("--repair")
		w.must(err)
		if len(again.Repaired) > 0 || again.OK != (len(again.Errors) == 0) {
			w.t.Errorf("--repair once more of %s: %q", names(faults), again.Lines)
		}
	}
	for _, f := range slices.SortedStableFunc(slices.Values(faults), daemonsFirst) {
		if x, ok := f.first(r); ok && f.remedy != nil {
			w.must(f.remedy(w, x))
		}
	}
	w.clean()
	rested = !w.t.Failed()
}

// daemonsFirst sorts the remedies that start daemons before those that need them.
func daemonsFirst(a, b fault) int {
	if (a.alone != "") == (b.alone != "") {
		return 0
	}
	if a.alone != "" {
		return -1
	}
	return 1
}

// TestEachFault: verify reports it, with its code and its node, and nothing else.
func TestEachFault(t *testing.T) {
	for _, f := range catalogue {
		t.Run(f.name, func(t *testing.T) {
			w := open(t)
			one := []fault{f}
			w.heal(one, w.suffer(one))
		})
	}
}

// TestFaultsTogether: some at once. ROLEKEY_SEED chooses others; 0 means by the
// clock.
func TestFaultsTogether(t *testing.T) {
	seed := uint64(20261126)
	if s := os.Getenv("ROLEKEY_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("ROLEKEY_SEED=%d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	for round := range 3 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			w := open(t)
			some := pick(dice, 2+dice.IntN(3))
			w.heal(some, w.suffer(some))
		})
	}
}

// pick chooses faults that do not hide one another.
func pick(dice *rand.Rand, n int) []fault {
	var some []fault
	for _, i := range dice.Perm(len(catalogue)) {
		f := catalogue[i]
		fits := len(some) < n && (!f.asRoot || os.Geteuid() == 0)
		for _, o := range some {
			fits = fits && !clash(f, o)
		}
		if fits {
			some = append(some, f)
		}
	}
	return some
}

// clash reports whether two faults cannot be told apart: both are on one node, and
// one is to be alone there, for the reason that stands with it.
func clash(a, b fault) bool {
	if a.restarts != "" && a.restarts == b.node || b.restarts != "" && b.restarts == a.node {
		return true // which puts right what is injected there, or keeps noded from starting
	}
	return a.node == b.node && (a.alone != "" || b.alone != "" || touches(a, b))
}

// touches reports whether both are about logins to one node, which fail once, or
// change one file of the node.
func touches(a, b fault) bool {
	logins := func(f fault) bool {
		return slices.ContainsFunc(f.says, func(s say) bool { return s.code == "ENODESSH" })
	}
	return logins(a) && logins(b)
}

// changed is a file that somebody has changed.
type changed struct {
	what string
	path string
	text []byte // what it must hold again, as many lines at least
}

// TestCuredByItself: what the cluster puts right before an administrator could
// look.
func TestCuredByItself(t *testing.T) {
	w := open(t)
	n4 := w.node("node4")
	old, err := os.ReadFile(w.layout("node5").CurrentMap())
	w.must(err)
	for _, drained := range []string{"yes", "no"} { // makes new maps
		w.must(w.modify("node4", "-D", drained))
	}
	var files []changed
	change := func(what, path, text string) error {
		b, err := os.ReadFile(path)
		files = append(files, changed{what, path, b})
		return errors.Join(err, os.WriteFile(path, []byte(text), 0o600))
	}
	text := func(path string) string {
		b, err := os.ReadFile(path)
		w.must(err)
		return string(b)
	}
	w.must(errors.Join(
		w.Kill(w.ctx, "node5", "noded"), change("an old map was restored", w.layout("node5").CurrentMap(), string(old)), w.Start(w.ctx, "node5"),
		change("a key is not authorized", n4.AuthorizedKeys(), withoutOne(text(n4.AuthorizedKeys()))),
		change("a host is not known", n4.KnownHosts(), withoutOne(text(n4.KnownHosts()))),
		change("ssh's configuration is not as the roster says", w.layout("node2").SSHDropIn(), "# mine\n"),
		os.Chmod(filepath.Dir(n4.AuthorizedKeys()), 0o777), // of which sshd would say nothing but no
		os.Remove(w.layout("node2").SSHKey()),              // a candidate's own SSH key
	))
	took := w.until("all is back", func(context.Context) error {
		var errs []error
		for _, f := range files {
			if got, err := os.ReadFile(f.path); err != nil || strings.Count(string(got), "\n") < strings.Count(string(f.text), "\n") || len(got) < len(f.text)/2 {
				errs = append(errs, fmt.Errorf("%s: %s is not back", f.what, f.path))
			}
		}
		if got, err := os.ReadFile(w.layout("node5").CurrentMap()); err != nil || string(got) == string(old) {
			errs = append(errs, errors.New("node5 has the old map"))
		}
		if info, err := os.Stat(filepath.Dir(n4.AuthorizedKeys())); err != nil || info.Mode().Perm()&0o022 != 0 {
			errs = append(errs, errors.New("others may write to root's .ssh"))
		}
		return errors.Join(errs...)
	})
	t.Logf("put right after %s", took)
	w.clean()
}

// withoutOne takes one line with a key out of the cluster's block.
func withoutOne(text string) string {
	lines := strings.SplitAfter(text, "\n")
	inside := false
	for i, l := range lines {
		if strings.HasPrefix(l, "# BEGIN ROLEKEY") {
			inside = true
		} else if inside && !strings.HasPrefix(l, "#") {
			return strings.Join(append(lines[:i:i], lines[i+1:]...), "")
		}
	}
	return text
}

// TestRemediesAreSaid: with -v after the finding that they are about.
func TestRemediesAreSaid(t *testing.T) {
	w := open(t)
	path := w.layout("node5").ServerKey()
	w.must(os.Chmod(path, 0o644))
	master, err := w.Master(w.ctx)
	w.must(err)
	run, err := w.Must(w.ctx, 1, master, "gnt-cluster", "verify", "-v")
	w.must(err)
	if _, after, ok := strings.Cut(run.Stdout, "  - ERROR: node "+full("node5")+": "+path); !ok || !strings.Contains(strings.Join(strings.SplitN(after, "\n", 3)[:2], "\n"), "remedy: gnt-cluster verify --repair") {
		t.Errorf("%s", run.Stdout)
	}
	run, err = w.Must(w.ctx, 0, master, "gnt-cluster", "verify", "--repair")
	w.must(err)
	if !strings.Contains(run.Stdout, "  - REPAIRED: node "+full("node5")+": ") {
		t.Errorf("%s", run.Stdout)
	}
	w.clean()
}

// TestOpenString: an admission string is a notice, and no fault.
func TestOpenString(t *testing.T) {
	w := open(t)
	master, err := w.Master(w.ctx)
	w.must(err)
	_, err = w.Must(w.ctx, 0, master, "gnt-node", "add", full("node9"), "--address", "192.0.2.9")
	w.must(err)
	r, err := w.verify()
	w.must(err)
	if !r.OK || len(r.all()) > 0 || !strings.Contains(strings.Join(r.Lines, "\n"), "NOTICE: an admission string for "+full("node9")+" is open") {
		t.Errorf("%+v", r)
	}
}
