package floors

import (
	"go/ast"
	"path"
	"strconv"
	"strings"
	"testing"
)

func TestImportsPointDown(t *testing.T) {
	for _, s := range load(t) {
		for _, to := range imports(s) {
			to, ours := strings.CutPrefix(to, module+"/")
			if !ours {
				continue
			}
			if why := judge(s.pkg, to, s.test); why != "" {
				t.Errorf("%s imports %s: %s", s.path, to, why)
			}
		}
	}
}

func imports(s source) []string {
	var paths []string
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil { // the parser has seen to it
			paths = append(paths, p)
		}
	}
	return paths
}

// The judge itself must be able to say no.
func TestJudge(t *testing.T) {
	cases := []struct {
		from, to string
		test, ok bool
	}{
		{"tools/noded", "noded", false, true},
		{"masterd", "rpc", false, true},
		{"masterd/consensus", "masterd/state", false, true},
		{"rpc", "candmap", false, true},
		{"candmap", "cluster", false, true},
		{"candmap", "internal/task", false, true},
		{"internal/paths", "cluster", false, true},
		{"internal/paths", "internal/task", false, true},
		{"tests/e2e", "masterd", false, true},
		{"candmap", "pki", true, true},
		{"candmap", "pki", false, false},
		{"candmap", "rpc", false, false},
		{"candmap", "rpc", true, false},
		{"noded", "masterd", false, false},
		{"masterd/state", "noded", false, false},
		{"cluster", "candmap", false, false},
		{"internal/paths", "candmap", false, false},
		{"internal/paths", "candmap", true, false},
		{"rpc", "tests/e2e", true, false},
		{"extra", "cluster", false, false},
		{"rpc", "extra", false, false},
	}
	for _, c := range cases {
		if why := judge(c.from, c.to, c.test); (why == "") != c.ok {
			t.Errorf("%s imports %s (test %v): %q", c.from, c.to, c.test, why)
		}
	}
}

func TestPurePackages(t *testing.T) {
	all := load(t)
	pkgs := in(all)
	for pkg := range pure {
		if !pkgs[pkg] {
			t.Errorf("the pure package %s does not exist", pkg)
		}
	}
	for _, s := range all {
		why, ok := pure[s.pkg]
		if !ok || s.test {
			continue
		}
		for _, p := range imports(s) {
			if impureImports[p] {
				t.Errorf("%s imports %s, but %s is pure: %s", s.path, p, s.pkg, why)
			}
		}
		for _, c := range calls(s) {
			if impureCalls[c.name] {
				t.Errorf("%s:%d calls %s, but %s is pure: %s", s.path, c.line, c.name, s.pkg, why)
			}
		}
	}
}

// call is the use of a name of another package, such as time.Sleep.
type call struct {
	name string
	line int
}

func calls(s source) []call {
	local := map[string]string{}
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has seen to it
		}
		if spec.Name != nil {
			local[spec.Name.Name] = p
		} else {
			local[path.Base(p)] = p
		}
	}
	var found []call
	ast.Inspect(s.file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if id, ok := sel.X.(*ast.Ident); ok && local[id.Name] != "" {
			found = append(found, call{local[id.Name] + "." + sel.Sel.Name, fset.Position(sel.Pos()).Line})
		}
		return true
	})
	return found
}
