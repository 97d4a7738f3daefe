package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/verify"
)

const root = "../.."

// page is one page of the documentation.
type page struct {
	path, text string
}

// pages returns everything that is written for people, by path.
func pages(t *testing.T) map[string]page {
	t.Helper()
	all := map[string]page{}
	for _, pattern := range []string{"*.rst", "docs/*.rst", "man/*.rst"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			all[strings.TrimPrefix(p, root+"/")] = page{p, read(t, p)}
		}
	}
	if len(all) < 8 {
		t.Fatalf("found only %d pages", len(all))
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

var (
	link    = regexp.MustCompile("`[^`<]*<([^>:]+)>`_")
	literal = regexp.MustCompile("``([^`\\s]+)``")
	folders = regexp.MustCompile(`^(?:candmap|cluster|docs|internal|man|masterd|noded|pki|rpc|seal|sshkeys|tests|tools)/[\w./-]*$`)
)

func TestLinksLeadSomewhere(t *testing.T) {
	found := 0
	for name, p := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(p.text, -1) {
			found++
			if !exists(filepath.Join(filepath.Dir(p.path), m[1])) {
				t.Errorf("%s links to %s, which does not exist", name, m[1])
			}
		}
	}
	if found == 0 {
		t.Error("no link was found; does the pattern still fit?")
	}
}

func TestNamedFilesExist(t *testing.T) {
	found := 0
	for name, p := range pages(t) {
		for _, m := range literal.FindAllStringSubmatch(p.text, -1) {
			if !folders.MatchString(m[1]) {
				continue
			}
			found++
			if !exists(filepath.Join(root, m[1])) {
				t.Errorf("%s names %s, which does not exist", name, m[1])
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d paths were found; does the pattern still fit?", found)
	}
}

var (
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
	testName = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	family   = regexp.MustCompile(`^(?:Test|Fuzz)[GW]\d+$`)
)

// tests returns the names of all tests in the tree.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, m := range testFunc.FindAllStringSubmatch(read(t, path), -1) {
			names[m[1]] = true
		}
		return nil
	})
	if err != nil || len(names) < 100 {
		t.Fatalf("found only %d tests: %v", len(names), err)
	}
	return names
}

func TestNamedTestsExist(t *testing.T) {
	all := tests(t)
	for name, p := range pages(t) {
		for _, test := range testName.FindAllString(p.text, -1) {
			if !all[test] && !family.MatchString(test) {
				t.Errorf("%s names %s, which does not exist", name, test)
			}
		}
	}
}

// Every guarantee names a test that tries to break it.
func TestGuaranteesAreTested(t *testing.T) {
	text := pages(t)["docs/security.rst"].text
	for g := 1; g <= 10; g++ {
		row, _, _ := strings.Cut(after(text, fmt.Sprintf("* - G%d\n", g)), "\n   * - ")
		if !regexp.MustCompile(fmt.Sprintf(`\bTestG%d[A-Z]`, g)).MatchString(row) {
			t.Errorf("docs/security.rst names no test in the row of G%d", g)
		}
	}
}

func after(text, mark string) string {
	_, rest, _ := strings.Cut(text, mark)
	return rest
}

// constants returns what constants of a file are set to.
func constants(t *testing.T, path, pattern string) map[string]bool {
	t.Helper()
	values := map[string]bool{}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(read(t, filepath.Join(root, path)), -1) {
		values[m[1]] = true
	}
	if len(values) < 5 {
		t.Fatalf("%s: found only %d constants", path, len(values))
	}
	return values
}

func TestRefusalCodesAreListed(t *testing.T) {
	text := pages(t)["docs/operations.rst"].text
	left := constants(t, "cluster/errors.go", `(?m)^\tCode\w+ +Code = "(\w+)"`)
	for _, m := range regexp.MustCompile("(?m)^``(\\w+)`` +(\\d{3}) ").FindAllStringSubmatch(text, -1) {
		if !left[m[1]] {
			t.Errorf("docs/operations.rst lists the code %s, which does not exist, or twice", m[1])
		}
		if want := strconv.Itoa(cluster.Code(m[1]).HTTPStatus()); m[2] != want {
			t.Errorf("docs/operations.rst says that %s has status %s, it has %s", m[1], m[2], want)
		}
		delete(left, m[1])
	}
	for code := range left {
		t.Errorf("docs/operations.rst does not list the code %s", code)
	}
}

func TestExitCodesAreListed(t *testing.T) {
	section, _, _ := strings.Cut(after(pages(t)["docs/operations.rst"].text, "Exit codes\n=="), "\nCodes of")
	left := constants(t, "tools/cli/exit.go", `(?m)^\tExit\w+ += (\d+)`)
	for _, m := range regexp.MustCompile(`(?m)^(\d+) `).FindAllStringSubmatch(section, -1) {
		if !left[m[1]] {
			t.Errorf("docs/operations.rst lists the exit code %s, which does not exist, or twice", m[1])
		}
		delete(left, m[1])
	}
	for code := range left {
		t.Errorf("docs/operations.rst does not list the exit code %s", code)
	}
}

func TestVerifyCodesExist(t *testing.T) {
	known := map[string]bool{}
	for _, c := range verify.Codes() {
		known[c] = true
	}
	for name, p := range pages(t) {
		for _, m := range regexp.MustCompile("``(E[A-Z]{6,})``").FindAllStringSubmatch(p.text, -1) {
			if !known[m[1]] {
				t.Errorf("%s names the code %s, which verify does not report", name, m[1])
			}
		}
	}
}

// Every module that go.mod requires directly has a place, in its version.
func TestModulesAreExplained(t *testing.T) {
	text := pages(t)["docs/dependencies.rst"].text
	direct := regexp.MustCompile(`(?m)^\t(\S+ v\S+)$`).FindAllStringSubmatch(read(t, filepath.Join(root, "go.mod")), -1)
	if len(direct) < 10 {
		t.Fatalf("found only %d direct requirements", len(direct))
	}
	for _, m := range direct {
		if !strings.Contains(text, m[1]) {
			t.Errorf("docs/dependencies.rst does not explain %s", m[1])
		}
	}
}
