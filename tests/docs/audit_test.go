package docs

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every act and field that the code can write is in docs/audit.rst, and the
// page lists no others.
func TestAuditPageIsComplete(t *testing.T) {
	text := pages(t)["docs/audit.rst"].text
	fields, acts, ok := strings.Cut(after(text, "\nFields\n==="), "\nActs\n===")
	if !ok {
		t.Fatal("docs/audit.rst lacks its sections")
	}
	acts, _, _ = strings.Cut(acts, "\nExamples\n===")
	compare(t, "act", constants(t, "internal/audit/acts.go", `(?m)^\t\w+ +Act += "(\w+)"`), named(acts, "(?m)^``\\w+``(?:, ``\\w+``)*$"))
	compare(t, "field", constants(t, "internal/audit/event.go", "`json:\"(\\w+)(?:,omitempty)?\"`"), named(fields, "(?m)^``\\w+`` "))
}

// named returns the literals of the lines that fit the pattern.
func named(text, lines string) map[string]bool {
	found := map[string]bool{}
	for _, l := range regexp.MustCompile(lines).FindAllString(text, -1) {
		for _, m := range regexp.MustCompile("``(\\w+)``").FindAllStringSubmatch(l, -1) {
			found[m[1]] = true
		}
	}
	return found
}

func compare(t *testing.T, what string, code, page map[string]bool) {
	t.Helper()
	for name := range code {
		if !page[name] {
			t.Errorf("the page does not list the %s %s", what, name)
		}
	}
	for name := range page {
		if !code[name] {
			t.Errorf("the page lists the %s %s, which does not exist", what, name)
		}
	}
}

// Acts are the constants that the page is compared with, and nothing else.
func TestActsAreConstants(t *testing.T) {
	literal := regexp.MustCompile(`\bAct:\s*"|audit\.Act\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		if literal.MatchString(read(t, path)) {
			t.Errorf("%s makes an act up: add it to internal/audit/acts.go", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every metric is in the table of docs/operations.rst, and the table has no
// others.
func TestMetricsAreListed(t *testing.T) {
	text, _, _ := strings.Cut(after(pages(t)["docs/operations.rst"].text, "\n.. list-table:: Metrics\n"), "\nRules to begin with")
	code := map[string]bool{}
	for _, path := range []string{"internal/monitor/common.go", "noded/metrics.go", "masterd/metrics.go"} {
		for name := range constants(t, path, `\b(?:Gauge|Counter)\("(rolekey_\w+)"`) {
			code[name] = true
		}
	}
	page := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^   \\* - ``(\\w+)(?:\\{\\w+\\})?``").FindAllStringSubmatch(text, -1) {
		page[m[1]] = true
	}
	compare(t, "metric", code, page)
	for name := range code {
		if strings.Count(text, name+"``")+strings.Count(text, name+"{") != 1 {
			t.Errorf("docs/operations.rst lists %s more than once", name)
		}
	}
}
