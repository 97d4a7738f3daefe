package floors

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// module is the path of this module; root is its folder, seen from here.
const (
	module = "rolekey"
	root   = "../.."
)

// source is one parsed Go file.
type source struct {
	path  string // below the root
	pkg   string // the folder of path
	name  string // the name in the package clause
	test  bool
	file  *ast.File
	lines int
}

var fset = token.NewFileSet()

// sources parses every Go file of the tree once.
var sources = sync.OnceValues(func() ([]source, error) {
	var all []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		s, err := parse(path)
		all = append(all, s)
		return err
	})
	return all, err
})

func parse(path string) (source, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return source{}, err
	}
	file, err := parser.ParseFile(fset, path, text, parser.ParseComments)
	if err != nil {
		return source{}, err
	}
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return source{}, err
	}
	return source{
		path: rel, pkg: filepath.ToSlash(filepath.Dir(rel)), name: file.Name.Name, file: file,
		test: strings.HasSuffix(path, "_test.go"), lines: bytes.Count(text, []byte("\n")),
	}, nil
}

func load(t *testing.T) []source {
	t.Helper()
	all, err := sources()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("found only %d Go files", len(all))
	}
	return all
}

// in reports the packages that exist, so that a rule about a package that was
// renamed is noticed.
func in(all []source) map[string]bool {
	pkgs := map[string]bool{}
	for _, s := range all {
		pkgs[s.pkg] = true
	}
	return pkgs
}
