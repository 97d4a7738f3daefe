package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
)

// event is one line of `go test -json` (go doc test2json, go help buildjson).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build events
	FailedBuild string // the ImportPath that a failed package waited for
	Test        string
	Elapsed     float64
	Output      string
}

// summary gathers the events of a run.
type summary struct {
	out                     io.Writer
	printed                 bool
	packages                map[string]*pkg
	builds                  map[string]*strings.Builder
	passed, failed, skipped int
	failures                []string // names, for the end
}

// pkg is a package whose tests are running.
type pkg struct {
	output strings.Builder // what belongs to no test
	tests  map[string]*test
	order  []string
}

type test struct {
	output  strings.Builder
	verdict string // pass, fail, skip, or nothing yet
	parent  bool   // it has subtests
	failed  bool   // a subtest failed
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, packages: map[string]*pkg{}, builds: map[string]*strings.Builder{}}
}

func (s *summary) printf(format string, args ...any) {
	s.printed = true
	fmt.Fprintf(s.out, format, args...)
}

// line takes one line. What is no event, such as a message of the go command,
// is shown as it is.
func (s *summary) line(b []byte) {
	var e event
	if err := json.Unmarshal(b, &e); err != nil || e.Action == "" {
		s.printf("%s", b)
		return
	}
	switch {
	case strings.HasPrefix(e.Action, "build-"):
		s.build(e)
	case e.Test != "":
		s.pkg(e.Package).test(e)
	case e.Action == "output":
		s.pkg(e.Package).output.WriteString(e.Output)
	case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
		s.finish(e)
	}
}

func (s *summary) pkg(name string) *pkg {
	p := s.packages[name]
	if p == nil {
		p = &pkg{tests: map[string]*test{}}
		s.packages[name] = p
	}
	return p
}

func (s *summary) build(e event) {
	b := s.builds[e.ImportPath]
	if b == nil {
		b = &strings.Builder{}
		s.builds[e.ImportPath] = b
	}
	b.WriteString(e.Output)
}

func (p *pkg) test(e event) {
	t := p.tests[e.Test]
	if t == nil {
		t = &test{}
		p.tests[e.Test] = t
		p.order = append(p.order, e.Test)
	}
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		t.verdict = e.Action
	}
}

// finish counts the tests of a package that ended and prints its line.
func (s *summary) finish(e event) {
	p := s.pkg(e.Package)
	delete(s.packages, e.Package)
	p.linkParents()
	failed := 0
	for _, name := range p.order {
		failed += s.count(e.Package, name, p.tests[name])
	}
	if e.Action == "skip" && len(p.order) == 0 {
		return // no test files
	}
	if e.Action == "fail" && failed == 0 {
		s.failed++
		s.failures = append(s.failures, e.Package)
	}
	if e.Action == "fail" {
		s.printBuild(e.FailedBuild)
		s.printf("%s", p.output.String())
	}
	took := time.Duration(e.Elapsed * float64(time.Second)).Round(10 * time.Millisecond)
	s.printf("%-4s %s (%d tests, %v)\n", strings.ToUpper(e.Action), e.Package, len(p.order), took)
}

// printBuild shows a build's errors once, however many packages wait for it.
func (s *summary) printBuild(importPath string) {
	if b := s.builds[importPath]; b != nil {
		s.printf("%s", b.String())
		delete(s.builds, importPath)
	}
}

// linkParents marks tests that have subtests, or failed subtests.
func (p *pkg) linkParents() {
	for name, t := range p.tests {
		for i := range len(name) {
			if name[i] != '/' {
				continue
			}
			if parent := p.tests[name[:i]]; parent != nil {
				parent.parent = true
				parent.failed = parent.failed || t.verdict == "fail" || t.verdict == ""
			}
		}
	}
}

// count adds a test to the totals, and returns 1 if it failed. A test without
// a verdict was running when its process died.
func (s *summary) count(pkgName, name string, t *test) int {
	bad := t.verdict == "fail" || t.verdict == ""
	if bad {
		s.printf("--- %s %s\n%s", pkgName, name, indent(t.output.String()))
	}
	switch {
	case bad && !t.failed:
		s.failed++
		s.failures = append(s.failures, pkgName+" "+name)
		return 1
	case t.parent || bad:
		return 0
	case t.verdict == "skip":
		s.skipped++
		s.printf("--- %s %s\n%s", pkgName, name, indent(t.output.String()))
	default:
		s.passed++
	}
	return 0
}

func indent(s string) string {
	if s == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n    ") + "\n"
}

// end prints the totals and reports whether all went well.
func (s *summary) end() bool {
	unfinished := make([]string, 0, len(s.packages))
	for name := range s.packages {
		unfinished = append(unfinished, name)
	}
	sort.Strings(unfinished)
	for _, name := range unfinished {
		s.finish(event{Action: "fail", Package: name})
	}
	for _, b := range s.builds { // of packages that no test package waits for
		s.printf("%s", b.String())
	}
	if len(s.failures) > 0 {
		s.printf("\nfailed:\n  %s\n", strings.Join(s.failures, "\n  "))
	}
	if s.passed+s.failed+s.skipped == 0 {
		s.printf("no test ran\n")
		s.failed++
	}
	s.printf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	return s.failed == 0
}
