package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rolekey/masterd/query"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

// listed returns the names that gnt-node list prints.
func (m *machine) listed(args ...string) string {
	m.t.Helper()
	out := m.want(Node, append([]string{"list", "--no-headers", "-o", "name"}, args...)...)
	return strings.ReplaceAll(strings.ReplaceAll(out, ".lab.test", ""), "\n", " ")
}

func TestNodeListFilters(t *testing.T) {
	m := threeNodes(t)
	m.b.Do(state.KindNodeChange, state.NodeChange{Node: statetest.ID(2), AddTags: []string{"web", "rack:1"}})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-F", `role == "C" or role == "M"`}, "node1 node2 "},
		{[]string{"--filter", `not offline and map_version > 0`}, "node1 "},
		{[]string{`role == "offline"`}, "node3 "},
		{[]string{"-F", "voter"}, "node1 "},
		{[]string{"-F", `"web" in tags`}, "node2 "},
		{[]string{"-F", "master_capable", "node2", "node1"}, "node2 node1 "},
		{[]string{"-F", "voter", "node2"}, ""},
		{[]string{"*2", "node3"}, "node2 node3 "},
		{[]string{"node?"}, "node1 node2 node3 "},
		{[]string{"x*"}, ""},
		{[]string{statetest.ID(2).String()}, "node2 "},
	} {
		if got := m.listed(c.args...); got != c.want {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
	var list []map[string]any
	if m.wantJSON(&list, Node, "list", "--json", "-F", "offline", "-o", "name,tags"); len(list) != 1 || list[0]["name"] != "node3.lab.test" || len(list[0]) != 2 {
		t.Errorf("%v", list)
	}
	m.fail(ExitFailed, "filter, column 9: want a value; a text stands in quotes: \"M\"\n  role == M\n          ^\n", Node, "list", "-F", "role == M")
	m.fail(ExitUnknownField, "Unknown filter field 'colour'", Node, "list", "-F", `colour == "red"`)
	m.fail(ExitFailed, "error type: wrong_input, error details:\nfilter, condition name: the field is of the type Text", Node, "list", "-F", "name")
	m.fail(ExitFailed, "Node 'nosuch' not known", Node, "list", "node*", "nosuch")
}

func TestStatusMarks(t *testing.T) {
	m := threeNodes(t)
	s, _ := m.b.State()
	fields := "name,map_version,fresh,pinst_cnt,powered,colour"
	r := m.run(Node, "list", "--separator", "|", "-o", fields)
	want := "Node|MapVersion|Fresh|Pinst|Powered|colour\n" +
		fmt.Sprintf("node1.lab.test|%d|Y|-|-|??\n", s.Head().Version.Version) + "node2.lab.test|?|?|-|-|??\nnode3.lab.test|*|*|-|-|??\n"
	if r.code != ExitUnknownField || r.out != want || r.err != "Warning: Queried for unknown fields colour\n" {
		t.Errorf("%+v", r)
	}
	r = m.run(Node, "list", "--separator", "|", "--no-headers", "-v", "-o", fields+",nosuch")
	want = fmt.Sprintf("node1.lab.test|%d|Y|(unavail)|(unavail)|(unknown)|(unknown)\n", s.Head().Version.Version) + "node2.lab.test|(nodata)|(nodata)|(unavail)|(unavail)|(unknown)|(unknown)\n" +
		"node3.lab.test|(offline)|(offline)|(unavail)|(unavail)|(unknown)|(unknown)\n"
	if r.code != ExitUnknownField || r.out != want || r.err != "Warning: Queried for unknown fields colour, nosuch\n" {
		t.Errorf("%+v", r)
	}
	var list []map[string]any
	m.wantJSON(&list, Node, "list", "--json", "-o", "fresh,pinst_cnt,map_version,addresses,ctime", "node2")
	if n := list[0]; n["fresh"] != nil || n["pinst_cnt"] != nil || n["map_version"] != 0.0 || len(n["addresses"].([]any)) != 1 || !strings.HasSuffix(n["ctime"].(string), "Z") { //nolint:forcetypeassert // a panic fails the test
		t.Errorf("%v", n)
	}
}

// Every field can be printed, for people and as JSON.
func TestAllFieldsPrint(t *testing.T) {
	m := threeNodes(t)
	m.submitted()
	m.b.Do(state.KindJobUpdate, state.JobUpdate{ID: 1, Status: state.JobError, Error: new("one\ntwo")})
	for _, c := range []struct {
		program Program
		names   []string
	}{{Node, query.Nodes.Names()}, {Job, query.Jobs.Names()}} {
		out := m.want(c.program, "list", "--no-headers", "--separator", "\x01", "-o", strings.Join(c.names, ","))
		for line := range strings.Lines(out) {
			if cells := strings.Split(line, "\x01"); len(cells) != len(c.names) || slices.Contains(cells, "") && c.names[0] != "actor" && !slices.Contains(c.names, "tags") {
				t.Errorf("%q", line)
			}
		}
		var list []map[string]json.RawMessage
		m.wantJSON(&list, c.program, "list", "--json", "-o", strings.Join(c.names, ","))
		if len(list) == 0 || len(list[0]) != len(c.names) {
			t.Errorf("%v", list)
		}
	}
}

func TestListFields(t *testing.T) {
	m := newMachine(t) // no daemon is asked
	if got := m.want(Node, "list-fields", "name", "ctime"); got != "Name  Type      Title Description\nname  Text      Node  Full name\nctime Timestamp CTime When it was added\n" {
		t.Errorf("%q", got)
	}
	if got := m.want(Job, "list-fields", "--no-headers", "--separator=|", "status"); !strings.HasPrefix(got, "status|Text|Status|queued, ") {
		t.Errorf("%q", got)
	}
	if got := m.want(Node, "list-fields"); strings.Count(got, "\n") != len(query.Nodes.Fields)+1 {
		t.Errorf("%s", got)
	}
	var list []fieldReport
	if m.wantJSON(&list, Node, "list-fields", "--json", "tags"); len(list) != 1 || list[0] != (fieldReport{"tags", "other", "Tags", "Tags"}) {
		t.Errorf("%v", list)
	}
	r := m.run(Job, "list-fields", "--no-headers", "--separator=|", "colour")
	if r.code != ExitUnknownField || r.out != "colour|Unknown|colour|Unknown field\n" || r.err != "Warning: Queried for unknown fields colour\n" {
		t.Errorf("%+v", r)
	}
}

func TestNodeListDefaults(t *testing.T) {
	m := threeNodes(t)
	t.Setenv("GNT_NODE_LIST", `--no-headers -o 'name' --separator=" | "`)
	if got := m.want(Node, "list", "node2"); got != "node2.lab.test\n" {
		t.Errorf("%q", got)
	}
	if got := m.want(Node, "list", "-o", "name,role", "node2"); got != "node2.lab.test | master-candidate\n" {
		t.Errorf("what is given does not prevail: %q", got)
	}
	m.want(Node, "info") // is another command
	m.want(Node, "list-fields")
	t.Setenv("GNT_NODE_LIST", "-o 'name")
	m.fail(ExitFailed, "$GNT_NODE_LIST: a quote is not closed", Node, "list")
	t.Setenv("GNT_NODE_LIST", "--no-headers node2 node3")
	if got := m.want(Node, "list", "-o", "name"); got != "node2.lab.test\nnode3.lab.test\n" {
		t.Errorf("%q", got)
	}
}

func TestShellWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                     nil,
		"  a  b\t":             {"a", "b"},
		`'a b' "c d"e f\ g ''`: {"a b", "c de", "f g", ""},
		`"a\"b" 'c\d'`:         {`a"b`, `c\d`},
		`'ü'`:                  {"ü"},
	} {
		if got, ok := shellWords(text); !ok || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v", text, got, ok)
		}
	}
	for _, bad := range []string{`'a`, `"a`, `a\`, `"a'`} {
		if got, ok := shellWords(bad); ok {
			t.Errorf("%s: %q", bad, got)
		}
	}
}

func TestFieldCompletion(t *testing.T) {
	names := []string{"name", "role", "role2"}
	for typed, want := range map[string][]string{
		"": names, "ro": {"role", "role2"}, "name,ro": {"name,role", "name,role2"}, "+na": {"+name"}, "+name,n": {"+name,name"}, "x": nil,
	} {
		if got := completeFields(names, typed); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
	m := newMachine(t)
	if out := m.want(Node, "__complete", "list", "-o", "name,map_v"); !strings.HasPrefix(out, "name,map_version\n") {
		t.Errorf("%q", out)
	}
}

func TestJobListGroups(t *testing.T) {
	m := master(t, 1)
	for i, status := range []state.JobStatus{"", state.JobRunning, state.JobError, state.JobSuccess, state.JobCanceled, state.JobCanceling, state.JobWaiting} {
		id := m.submitted()
		if status != "" {
			m.b.Do(state.KindJobUpdate, state.JobUpdate{ID: id, Status: status})
		}
		if id != int64(i+1) {
			t.Fatal(id)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "1 2 3 4 5 6 7 "},
		{[]string{"--pending"}, "1 6 7 "},
		{[]string{"--queued"}, "1 "},
		{[]string{"--waiting"}, "7 "},
		{[]string{"--running"}, "2 "},
		{[]string{"--error"}, "3 "},
		{[]string{"--finished"}, "3 4 5 "},
		{[]string{"--running", "--error"}, "2 3 "},
		{[]string{"--finished", "-F", `status != "error"`}, "4 5 "},
		{[]string{"5", "2"}, "5 2 "},
		{[]string{"--running", "5", "2"}, "2 "},
		{[]string{`id > 5`}, "6 7 "},
		{[]string{"-F", `summary =~ m/node2/ and received_ts > 0 and id <= 2`}, "1 2 "},
	} {
		out := m.want(Job, append([]string{"list", "--no-headers", "-o", "id"}, c.args...)...)
		if got := strings.ReplaceAll(out, "\n", " "); got != c.want {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
	m.fail(ExitFailed, "Job 9 not found", Job, "list", "9")
	m.fail(ExitFailed, "Invalid job ID 'x'", Job, "list", "x")
	m.fail(ExitUnknownField, "Unknown filter field 'name'", Job, "list", "-F", "name")
}
