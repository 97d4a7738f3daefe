package query

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// plain returns the wire form without JSON's escapes of < and >.
func plain(t *testing.T, f *Filter) string {
	t.Helper()
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(b))
}

func TestTextToWire(t *testing.T) {
	for text, want := range map[string]string{
		`role == "M" or role == "C"`:             `["|",["=","role","M"],["=","role","C"]]`,
		`offline`:                                `["?","offline"]`,
		` not offline `:                          `["!",["?","offline"]]`,
		`not not offline`:                        `["!",["!",["?","offline"]]]`,
		`a and b or c and not d`:                 `["|",["&",["?","a"],["?","b"]],["&",["?","c"],["!",["?","d"]]]]`,
		`a and (b or c) and d`:                   `["&",["?","a"],["|",["?","b"],["?","c"]],["?","d"]]`,
		`not (a or b)`:                           `["!",["|",["?","a"],["?","b"]]]`,
		`((a))`:                                  `["?","a"]`,
		`not a == 5`:                             `["!",["=","a",5]]`,
		`a!=-5`:                                  `["!=","a",-5]`,
		`a < 5 and a <= 6.25 and a > 7 and a>=8`: `["&",["<","a",5],["<=","a",6.25],[">","a",7],[">=","a",8]]`,
		`offline == true and drained == False`:   `["&",["=","offline",true],["=","drained",false]]`,
		`"web" in tags`:                          `["=[]","tags","web"]`,
		`'web' not in tags`:                      `["!",["=[]","tags","web"]]`,
		`5 in tags`:                              `["=[]","tags",5]`,
		`name == 'it\'s \"q\" \\ \n'`:            `["=","name","it's \"q\" \\ n"]`,
		`name == "a'b"`:                          `["=","name","a'b"]`,
		`name =~ m/^node\d/`:                     `["=~","name","^node\\d"]`,
		`name !~ m#a/b#i`:                        `["!",["=~","name","(?i)a/b"]]`,
		`name =~ m|a\|b|`:                        `["=~","name","a|b"]`,
		`name =~ m^a^s`:                          `["=~","name","(?s)a"]`,
		`name =~ m/a/is and b`:                   `["&",["=~","name","(?is)a"],["?","b"]]`,
		`name =~ m/a/si`:                         `["=~","name","(?is)a"]`,
		`name =~ m/\//`:                          `["=~","name","/"]`,
		`name =~ m/a\\/`:                         `["=~","name","a\\\\"]`,
		`name =* "node?.a*"`:                     `["=~","name","^node.\\.a.*(\\..*)?$"]`,
		`name !* 'x'`:                            `["!",["=~","name","^x(\\..*)?$"]]`,
		`ndp/ssh_port == 22 and group.uuid == "x"`: `["&",["=","ndp/ssh_port",22],["=","group.uuid","x"]]`,
		`android or order or nothing or inner`:     `["|",["?","android"],["?","order"],["?","nothing"],["?","inner"]]`,
		`name == "größer ☃"`:                       `["=","name","größer ☃"]`,
		"a\n\tand\r\nb":                            `["&",["?","a"],["?","b"]]`,
	} {
		f, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := plain(t, f); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
		back, err := ParseWire([]byte(plain(t, f)))
		if err != nil || !reflect.DeepEqual(shape(back), shape(f)) {
			t.Errorf("%s: from the wire: %v, %v", text, back, err)
		}
		again, err := Parse(f.String())
		if err != nil || !reflect.DeepEqual(shape(again), shape(f)) {
			t.Errorf("%s: printed %s: %v, %v", text, f, again, err)
		}
	}
}

// shape is a filter without what is derived.
func shape(f *Filter) any {
	if f == nil {
		return nil
	}
	args := []any{}
	for _, a := range f.Args {
		args = append(args, shape(a))
	}
	return []any{f.Op, f.Field, f.Value, args}
}

func TestSyntaxErrors(t *testing.T) {
	for text, want := range map[string]string{
		``:                                       "column 1: want a field, and the filter ends",
		`role ==`:                                "column 8: want a value, and the filter ends",
		`role == M`:                              `column 9: want a value; a text stands in quotes: "M"`,
		`role = "M"`:                             "column 6: want == for equality",
		`role == "M`:                             "column 9: the text has no closing \"",
		`role == "M\`:                            "column 9: the text has no closing \"",
		`röle`:                                   "column 2: want and, or, or the end",
		`"ö" == x`:                               "column 5: want in, or not in, after a value",
		`a and`:                                  "column 6: want a field, and the filter ends",
		`a and and b`:                            "column 7: want a field, and and is none",
		`a b`:                                    "column 3: want and, or, or the end",
		`(a or b`:                                "column 8: want ) for the ( in column 1",
		`a)`:                                     "column 2: want and, or, or the end",
		`()`:                                     "column 2: want a field",
		`a == 1x`:                                "column 6: want a number",
		`a == 1.`:                                "column 6: want a number",
		`a == -`:                                 "column 6: want a number",
		`a == 1e5`:                               "column 6: want a number",
		`a == 111111111122222222223333333333444`: "column 6: want a number",
		`a =~ "x"`:                               "column 6: want a regular expression",
		`a =~ m`:                                 "column 6: want a regular expression",
		`a =~ m!x!`:                              "column 6: want a regular expression",
		`a =~ m/x`:                               "column 6: the regular expression has no closing /",
		`a =~ m/(/`:                              "column 6: the regular expression is none: missing closing )",
		`a =~ m/(a)\1/`:                          "column 6: the regular expression is none: invalid escape sequence",
		`a =~ m/(?=a)/`:                          "column 6: the regular expression is none",
		`a =~ m/a{1001}/`:                        "column 6: the regular expression is none: invalid repeat count",
		`a =~ m/a/x`:                             "column 10: want and, or, or the end",
		`a == 9007199254740994`:                  "column 6: want a number",
		`a =~ m/` + strings.Repeat("a", 600) + `/ or a =* "` + strings.Repeat("a", 600) + `"`: "column 618: the regular expressions are over 1024 bytes",
		`a =* x`:                         "column 6: want a pattern in quotes",
		`a =* 'x`:                        "column 6: the text has no closing '",
		`true`:                           "column 1: want a field, and true is none",
		`not`:                            "column 4: want a field",
		`5 in`:                           "column 5: want a field",
		`true in tags`:                   "column 1: want a field",
		`a == @`:                         "column 6: want a value: a text in quotes, or a number",
		"a \x00":                         "column 3: want and, or, or the end",
		"\xff":                           "column 1: the filter is not UTF-8",
		strings.Repeat("(", 40):          "column 33: the filter is nested over 32 levels deep",
		strings.Repeat("not ", 40) + "a": "nested over 32 levels",
		strings.Repeat("a or ", MaxText/5) + "a or a": "column 1: the filter is over 8192 bytes",
		strings.Repeat("a", 65):                       "the name of a field is over 64 bytes",
		`a =~ m/` + strings.Repeat("a", 1025) + `/`:   "column 6: the regular expressions are over 1024 bytes",
		`a =* "` + strings.Repeat("a", 1025) + `"`:    "column 6: the regular expressions are over 1024 bytes",
	} {
		f, err := Parse(text)
		var at *SyntaxError
		if !errors.As(err, &at) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, %v, want %q", text, f, err, want)
		}
	}
}

func TestWireForms(t *testing.T) {
	for text, want := range map[string]string{
		`["==","a","x"]`:                            `a == "x"`,
		` [ "=" , "a" , 1.50 ] `:                    `a == 1.5`,
		`["&",["?","a"]]`:                           `a`,
		`["&",["&",["?","a"],["?","b"]],["?","c"]]`: `(a and b) and c`,
		`["!",["&",["?","a"],["?","b"]]]`:           `not (a and b)`,
		`["!",["=~","a","x/y"]]`:                    `a !~ m#x/y#`,
		`["=~","a","/#^|"]`:                         `a =~ m/\/#^|/`,
		`["=","a","\u00fc\"\\"]`:                    `a == "ü\"\\"`,
		`["=","a",true]`:                            `a == true`,
		`null`:                                      ``,
	} {
		f, err := ParseWire([]byte(text))
		if err != nil || f.String() != want {
			t.Errorf("%s: %q, %v, want %q", text, f, err, want)
		}
	}
	for text, want := range map[string]string{
		``:                          "it is not JSON",
		`{}`:                        "want a list",
		`[]`:                        "want a list",
		`"a"`:                       "want a list",
		`[1]`:                       `"1" is no operator`,
		`["^"]`:                     `"^" is no operator`,
		`[""]`:                      `"" is no operator`,
		`["&"]`:                     "& has 0 operands",
		`["!",["?","a"],["?","b"]]`: "! has 2 operands",
		`["?"]`:                     "? has 0 operands, want 1",
		`["?","a","b"]`:             "? has 2 operands, want 1",
		`["?",1]`:                   "the first operand of ? is not the name of a field",
		`["?","a b"]`:               "not the name of a field",
		`["?","not"]`:               "not the name of a field",
		`["?","_a"]`:                "not the name of a field",
		`["=","a"]`:                 "= has 1 operands, want 2",
		`["=","a",null]`:            "the second operand of = is not a value",
		`["=","a",[1]]`:             "is not a value",
		`["=","a",1e5]`:             "is not a number up to 2^53 without an exponent",
		`["=~","a",1]`:              "is not a regular expression",
		`["=~","a","("]`:            "the regular expression is none",
		`["&",["=~","a","` + strings.Repeat("a", 600) + `"],["=~","a","` + strings.Repeat("a", 600) + `"]]`: "at [2]: the regular expressions are over 1024 bytes",
		`["=[]","a",true]`:            "is not a text or a number",
		`["|",["?","a"],["!",["x"]]]`: `filter, at [2][1]: "x" is no operator`,
		`["?","a"] 1`:                 "it is not JSON",
		"[\"?\",\"\xff\"]":            "it is not JSON",
		strings.Repeat(`["!",`, 40) + `["?","a"]` + strings.Repeat("]", 40): "nested over 32 levels",
		`["=","a","` + strings.Repeat("x", MaxWire) + `"]`:                  "it is over 65536 bytes",
	} {
		f, err := ParseWire([]byte(text))
		var at *WireError
		if !errors.As(err, &at) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, %v, want %q", text, f, err, want)
		}
	}
}

func genFilter(depth int) *rapid.Generator[*Filter] {
	field := rapid.StringMatching(`x[a-z0-9_./]{0,8}`)
	return rapid.Custom(func(t *rapid.T) *Filter {
		most := 5
		if depth > 0 {
			most = 8
		}
		kind := rapid.IntRange(0, most).Draw(t, "kind")
		name := field.Draw(t, "field")
		switch kind {
		case 0:
			return &Filter{Op: OpTrue, Field: name}
		case 1:
			f, err := Glob(name, rapid.String().Draw(t, "glob"))
			if err != nil {
				t.Skip(err)
			}
			return f
		case 2:
			f, err := match(name, rapid.StringMatching(`[a-z/#^|]{0,4}(\\[d#^|])?`).Draw(t, "regexp"))
			if err != nil {
				t.Skip(err)
			}
			return f
		case 3:
			return &Filter{Op: OpContains, Field: name, Value: rapid.String().Draw(t, "element")}
		case 4, 5:
			op := rapid.SampledFrom([]Op{OpEqual, OpNotEqual, OpLess, OpLessEqual, OpGreater, OpGreaterEqual}).Draw(t, "op")
			var value any = rapid.String().Draw(t, "text")
			switch rapid.IntRange(0, 2).Draw(t, "type") {
			case 0:
				value = float64(rapid.Int64Range(-1<<53, 1<<53).Draw(t, "number")) / 8
			case 1:
				value = rapid.Bool().Draw(t, "bool")
			}
			return &Filter{Op: op, Field: name, Value: value}
		case 6:
			return not(genFilter(depth-1).Draw(t, "not"))
		}
		op := rapid.SampledFrom([]Op{OpAnd, OpOr}).Draw(t, "join")
		return join(op, rapid.SliceOfN(genFilter(depth-1), 2, 4).Draw(t, "args"))
	})
}

// TestPrintedFiltersParse to the same, in both forms.
func TestPrintedFiltersParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := genFilter(4).Draw(t, "filter")
		text := f.String()
		if back, err := Parse(text); len(text) <= MaxText && (err != nil || !reflect.DeepEqual(shape(back), shape(f))) {
			t.Fatalf("%s\nread as %v, %v", text, back, err)
		}
		wire, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseWire(wire); len(wire) <= MaxWire && (err != nil || !reflect.DeepEqual(shape(back), shape(f))) {
			t.Fatalf("%s\nread as %v, %v", wire, back, err)
		}
	})
}

// FuzzParse: whatever is a filter prints as one with the same meaning.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`role == "M" or not (a and b !~ m/x\/y/is)`, `'x' not in tags`, `n =* "a?*"`, `a >= -1.5`, `a =~ m/\/#^|\\/`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		filter, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(filter.String())
		if err != nil && len(filter.String()) <= MaxText && len(s) <= maxRegexp {
			t.Fatalf("%q printed as %q: %v", s, filter, err)
		}
		if err == nil && again.String() != filter.String() {
			t.Fatalf("%q printed as %q, then as %q", s, filter, again)
		}
		filter.Match(func(string) Cell { return Cell{Value: "x"} })
	})
}

func FuzzParseWire(f *testing.F) {
	for _, s := range []string{`["|",["=","role","M"],["!",["=~","a","x"]]]`, `["=[]","a",1]`, `null`, `["&",["<","a",1.5],["?","b"]]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		filter, err := ParseWire(s)
		if err != nil {
			return
		}
		wire, err := json.Marshal(filter)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseWire(wire)
		if err != nil && len(wire) <= MaxWire || err == nil && !reflect.DeepEqual(shape(again), shape(filter)) {
			t.Fatalf("%q became %s: %v", s, wire, err)
		}
		filter.Match(func(string) Cell { return Cell{Value: []string{"x"}} })
	})
}
