package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

// The statuses that INTERFACES fixes; clients of other languages branch on
// them.
func TestHTTPStatus(t *testing.T) {
	cases := map[int][]Code{
		401: {"no_certificate"},
		403: {
			"not_in_roster", "not_in_map", "identity_mismatch", "not_master",
			"token_unknown", "token_used", "token_expired", "token_node_mismatch",
		},
		409: {"map_older", "map_fork"},
		413: {"too_large"},
		422: {"bad_signature", "bad_format", "unsupported_format"},
		429: {"busy"},
		503: {"map_stale", "no_map", "no_quorum"},
		500: {"internal", "a code from the future"},
	}
	for status, codes := range cases {
		for _, c := range codes {
			if c.HTTPStatus() != status {
				t.Errorf("%s: %d, want %d", c, c.HTTPStatus(), status)
			}
		}
	}
}

// declaredCodes reads the values of all Code constants from the source, so
// that a new code cannot be forgotten in the table of statuses.
func declaredCodes(t *testing.T) []Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []Code
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Code" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, Code(text))
		}
		return false
	})
	return codes
}

func TestEveryCodeHasAStatus(t *testing.T) {
	codes := declaredCodes(t)
	if len(codes) < 20 {
		t.Fatalf("found only %d codes", len(codes))
	}
	for _, c := range codes {
		if _, ok := httpStatus[c]; !ok {
			t.Errorf("code %s has no status", c)
		}
	}
	if len(httpStatus) != len(codes) {
		t.Errorf("%d statuses for %d codes", len(httpStatus), len(codes))
	}
}

func TestErrorsIsComparesCodes(t *testing.T) {
	err := fmt.Errorf("push map: %w", Errorf(CodeMapOlder, "have %d", 7))
	if !errors.Is(err, &Error{Code: CodeMapOlder}) {
		t.Error("the same code does not match")
	}
	if errors.Is(err, &Error{Code: CodeMapFork}) || errors.Is(err, &Error{Code: CodeMapOlder, Message: "other"}) {
		t.Error("another code or message matches")
	}
	if errors.Is(err, errors.New("have 7")) {
		t.Error("another type matches")
	}
}

func TestCodeAndHint(t *testing.T) {
	base := Errorf(CodeNoQuorum, "2 of 5 voters answer")
	hinted := base.WithHint("start masterd on %s", "node3")
	cases := []struct {
		err  error
		code Code
		hint string
	}{
		{nil, "", ""},
		{errors.New("x"), CodeInternal, ""},
		{base, CodeNoQuorum, ""},
		{fmt.Errorf("commit: %w", hinted), CodeNoQuorum, "start masterd on node3"},
	}
	for _, c := range cases {
		if CodeOf(c.err) != c.code || HintOf(c.err) != c.hint {
			t.Errorf("%v: code %q, hint %q", c.err, CodeOf(c.err), HintOf(c.err))
		}
	}
}

func TestErrorText(t *testing.T) {
	e := Errorf(CodeBusy, "too many streams")
	if e.Error() != "too many streams" {
		t.Errorf("text %q", e.Error())
	}
	e.Node = "node2"
	if e.Error() != "node2: too many streams" {
		t.Errorf("text with node %q", e.Error())
	}
}

// The body of a refusal has exactly these fields, all of them always.
func TestRefusalBody(t *testing.T) {
	b, err := json.Marshal(&Error{Code: CodeNotInMap, Message: "m", Node: "n", RequestID: "r"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"code":"not_in_map","message":"m","hint":"","node":"n","request_id":"r"}`
	if string(b) != want {
		t.Errorf("%s, want %s", b, want)
	}
}
