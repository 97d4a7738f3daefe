package floors

import (
	"go/ast"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

func TestFilesAreShort(t *testing.T) {
	for _, s := range load(t) {
		if s.lines > maxFileLines {
			t.Errorf("%s has %d lines, at most %d are readable", s.path, s.lines, maxFileLines)
		}
	}
}

func TestFunctionsAreShort(t *testing.T) {
	for _, s := range load(t) {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line + 1; n > maxFuncLines {
				t.Errorf("%s: func %s has %d lines, at most %d are readable", s.path, f.Name.Name, n, maxFuncLines)
			}
		}
	}
}

// A package says once what it is for. Test files may say what they do.
func TestOnePackageComment(t *testing.T) {
	comments := map[string][]string{}
	for _, s := range load(t) {
		if s.test {
			continue
		}
		if comments[s.pkg] == nil {
			comments[s.pkg] = []string{}
		}
		if s.file.Doc == nil {
			continue
		}
		comments[s.pkg] = append(comments[s.pkg], s.path)
		want := "Package " + s.name + " "
		if s.name == "main" {
			want = "Command " + filepath.Base(s.pkg) + " "
		}
		if text := s.file.Doc.Text(); !strings.HasPrefix(text, want) {
			t.Errorf("%s: the package comment begins %.40q, want %q", s.path, text, want)
		}
	}
	for pkg, files := range comments {
		sort.Strings(files)
		if len(files) != 1 {
			t.Errorf("package %s has %d package comments, want 1: %v", pkg, len(files), files)
		}
	}
}

// Waiting for an event by sleeping is slow or wrong. What sleeps for another
// reason says so: "why-sleep: ..." on the line of the call or the one above.
func TestSleepsAreExplained(t *testing.T) {
	for _, s := range load(t) {
		if s.test {
			continue
		}
		explained := map[int]bool{}
		for _, group := range s.file.Comments {
			if strings.Contains(group.Text(), "why-sleep:") {
				line := fset.Position(group.End()).Line
				explained[line], explained[line+1] = true, true
			}
		}
		for _, c := range calls(s) {
			if c.name == "time.Sleep" && !explained[c.line] {
				t.Errorf("%s:%d sleeps without a comment that says why-sleep:", s.path, c.line)
			}
		}
	}
}
