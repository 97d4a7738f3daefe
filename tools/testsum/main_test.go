package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goTest runs `go test -json` on a module made of the given files.
func goTest(t *testing.T, files map[string]string, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	files["go.mod"] = "module m\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", append([]string{"test", "-json", "-vet=off"}, args...)...)
	cmd.Dir = dir
	out, _ := cmd.Output() // it fails on purpose in many cases
	return out
}

func testFile(body string) string { return "package p\n\nimport \"testing\"\n\n" + body }

func TestSummaries(t *testing.T) {
	const pass = "func TestA(t *testing.T) {}\n"
	cases := []struct {
		name  string
		files map[string]string
		last  string
		ok    bool
		shows []string
		hides []string
	}{
		{
			name: "pass", last: "2 passed, 0 failed, 0 skipped", ok: true,
			files: map[string]string{
				"p/p_test.go": testFile("func TestA(t *testing.T) { t.Log(\"quiet\") }\nfunc TestB(t *testing.T) {}\n"),
				"q/q.go":      "package q\n",
			},
			shows: []string{"PASS m/p (2 tests"}, hides: []string{"quiet", "m/q"},
		},
		{
			name: "subtests count, parents do not", last: "2 passed, 1 failed, 1 skipped",
			files: map[string]string{"p/p_test.go": testFile(pass + `func TestB(t *testing.T) {
				t.Run("good", func(t *testing.T) {})
				t.Run("bad", func(t *testing.T) { t.Error("it is wrong") })
				t.Run("skipped", func(t *testing.T) { t.Skip("no kernel support") })
			}`)},
			shows: []string{"it is wrong", "no kernel support", "FAIL m/p", "\nfailed:\n  m/p TestB/bad\n"}, hides: []string{"  m/p TestB\n"},
		},
		{
			name: "parent fails itself", last: "1 passed, 1 failed, 0 skipped",
			files: map[string]string{"p/p_test.go": testFile(`func TestB(t *testing.T) {
				t.Run("good", func(t *testing.T) {})
				t.Error("afterwards")
			}`)},
			shows: []string{"afterwards", "  m/p TestB\n"},
		},
		{
			name: "build failure", last: "1 passed, 1 failed, 0 skipped",
			files: map[string]string{"p/p_test.go": testFile(pass), "q/q_test.go": testFile("func TestA(t *testing.T) { undefinedName() }\n")},
			shows: []string{"undefined: undefinedName", "FAIL m/q", "PASS m/p"},
		},
		{
			name: "panic", last: "0 passed, 1 failed, 0 skipped",
			files: map[string]string{"p/p_test.go": testFile("func TestA(t *testing.T) { panic(\"at the disco\") }\n")},
			shows: []string{"at the disco", "  m/p TestA\n"},
		},
		{
			name: "exit in the middle", last: "1 passed, 1 failed, 0 skipped",
			files: map[string]string{"p/p_test.go": "package p\n\nimport (\n\"os\"\n\"testing\"\n)\n" + pass + "func TestB(t *testing.T) { os.Exit(3) }\n"},
			shows: []string{"  m/p TestB\n"},
		},
		{
			name: "TestMain fails", last: "1 passed, 1 failed, 0 skipped",
			files: map[string]string{"p/p_test.go": "package p\n\nimport (\n\"os\"\n\"testing\"\n)\n" + pass +
				"func TestMain(m *testing.M) { m.Run(); println(\"cleanup failed\"); os.Exit(1) }\n"},
			shows: []string{"cleanup failed", "  m/p\n"},
		},
		{
			name: "no tests", last: "0 passed, 1 failed, 0 skipped",
			files: map[string]string{"p/p.go": "package p\n"},
			shows: []string{"no test ran"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			stream := goTest(t, c.files, "./...")
			check(t, stream, c.last, c.ok, c.shows, c.hides)
		})
	}
}

func check(t *testing.T, stream []byte, last string, wantOK bool, shows, hides []string) {
	t.Helper()
	var out bytes.Buffer
	ok, err := run(bytes.NewReader(stream), &out)
	if err != nil || ok != wantOK {
		t.Errorf("ok %v, %v, want %v", ok, err, wantOK)
	}
	text := out.String()
	if !strings.HasSuffix(text, "\n"+last+"\n") {
		t.Errorf("last line is not %q", last)
	}
	for _, s := range shows {
		if !strings.Contains(text, s) {
			t.Errorf("output lacks %q", s)
		}
	}
	for _, s := range hides {
		if strings.Contains(text, s) {
			t.Errorf("output contains %q", s)
		}
	}
	if t.Failed() {
		t.Logf("output:\n%s\nstream:\n%s", text, stream)
	}
}

func TestCutStreamFails(t *testing.T) {
	stream := `{"Action":"start","Package":"m/p"}
{"Action":"run","Package":"m/p","Test":"TestA"}
{"Action":"pass","Package":"m/p","Test":"TestA"}
{"Action":"run","Package":"m/p","Test":"TestB"}
`
	check(t, []byte(stream), "1 passed, 1 failed, 0 skipped", false, []string{"  m/p TestB\n", "FAIL m/p"}, nil)
	check(t, nil, "0 passed, 1 failed, 0 skipped", false, []string{"no test ran"}, nil)
}

func TestOtherLinesAreShown(t *testing.T) {
	stream := "go: warning: odd\n{\"not\":\"an event\"}\n"
	check(t, []byte(stream), "0 passed, 1 failed, 0 skipped", false, []string{"go: warning: odd\n", `{"not":"an event"}`}, nil)
}
