package query

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

func must(t *testing.T, text string) *Filter {
	t.Helper()
	f, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func fleet() []wire.Node {
	list := make([]wire.Node, 4)
	for i := range list {
		list[i] = wire.Node{
			Name: cluster.Name(fmt.Sprintf("node%d.lab.test", i+1)), Role: "R", RoleName: cluster.RoleRegular, PIP: netip.MustParseAddr(fmt.Sprintf("10.77.0.%d", i+1)),
			MasterCapable: true, MapEpoch: 1, MapVersion: uint64(10 + i), Fresh: i != 1, CTime: 1795289449.5, Tags: []string{}, SerialNo: i,
		}
		list[i].Addresses = []netip.Addr{list[i].PIP}
	}
	list[0].Role, list[0].RoleName, list[0].MasterCandidate = "M", cluster.RoleMaster, true
	list[1].Role, list[1].RoleName, list[1].MasterCandidate = "C", cluster.RoleCandidate, true
	list[2].MapVersion, list[2].Tags = 0, []string{"web", "rack:3"}
	list[3].Role, list[3].RoleName, list[3].Offline, list[3].MapVersion = "O", cluster.RoleOffline, true, 0
	return list
}

func TestFiltersOfNodes(t *testing.T) {
	for text, want := range map[string]string{
		`offline`:                              "4",
		`not offline`:                          "123",
		`offline == false and offline != true`: "123",
		`role == "C"`:                          "2",
		`role == "master-candidate"`:           "2",
		`role != "M" and role != "O"`:          "23",
		`master`:                               "1",
		`name == "node3"`:                      "3",
		`name == "node3.lab"`:                  "3",
		`name == "node3.lab.test"`:             "3",
		`name == "node"`:                       "",
		`name != "node3"`:                      "124",
		`name > "node2.lab.test"`:              "34",
		`name <= "node2.lab.test"`:             "12",
		`name =* "node*"`:                      "1234",
		`name =* "*3"`:                         "3",
		`name =* "node?.lab"`:                  "1234",
		`name !* "node1"`:                      "234",
		`name =~ m/NODE[12]/i`:                 "12",
		`name =~ m/^ode/`:                      "",
		`name !~ m/[12]/`:                      "34",
		`"web" in tags`:                        "3",
		`"web" not in tags`:                    "124",
		`tags =* "rack:*"`:                     "3",
		`address == "10.77.0.2"`:               "2",
		`address =~ m/\.4$/`:                   "4",
		`"10.77.0.3" in addresses`:             "3",
		`serial_no >= 2 and serial_no < 3`:     "3",
		`serial_no > 0.5 and serial_no <= 2`:   "23",
		`ctime == 1795289449.5`:                "1234",
		`ctime > "2026-09-21T00:00:00Z"`:       "1234",
		`ctime < "2026-09-21T00:00:00+02:00"`:  "",
		`map_version == 11`:                    "2",
		`map_version != 11`:                    "1", // what is missing is not unequal
		`map_version < 100`:                    "12",
		`map_version >= 0 or map_version < 0`:  "12",
		`not map_version == 11`:                "134",
		`fresh`:                                "1",
		`not fresh`:                            "234",
		`fresh == false`:                       "2",
		`pinst_cnt == 0 or pinst_cnt != 0`:     "",
		`not powered`:                          "1234",
		`group =~ m/./ or group !~ m/./`:       "1234",
	} {
		f := must(t, text)
		if err := Nodes.Check(f); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := ""
		for _, n := range Nodes.Select(fleet(), f) {
			got += string(n.Name[4])
		}
		if got != want {
			t.Errorf("%s: nodes %q, want %q", text, got, want)
		}
	}
	if all := Nodes.Select(fleet(), nil); len(all) != 4 {
		t.Errorf("without a filter: %d nodes", len(all))
	}
}

func TestWhatCannotBeMeant(t *testing.T) {
	for text, want := range map[string]string{
		`colour == "red"`:          "Unknown filter field 'colour'",
		`offline and not (colour)`: "Unknown filter field 'colour'",
		`name`:                     "condition name: the field is of the type Text, which is neither true nor false",
		`name == 5`:                "type Text, and the value is not",
		`offline == "Y"`:           "type Boolean, and the value is not",
		`offline > true`:           "which has no order",
		`serial_no == "5"`:         "type Number, and the value is not",
		`serial_no =~ m/5/`:        "only texts match a pattern",
		`ctime == "yesterday"`:     "neither seconds nor as",
		`ctime == true`:            "type Timestamp, and the value is not",
		`tags == "web"`:            "type List, use in, not in or a pattern",
		`5 in tags`:                "only texts can be in lists",
		`"x" in name`:              "type Text, and only texts can be in lists",
		`ndparams == "x"`:          "type Custom, which cannot be compared",
	} {
		err := Nodes.Check(must(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		var unknown *UnknownFieldError
		if errors.As(err, &unknown) != strings.HasPrefix(want, "Unknown") {
			t.Errorf("%s: %T", text, err)
		}
	}
}

func TestFiltersOfJobs(t *testing.T) {
	at := func(s int64) *wire.Time { return &wire.Time{s, 250000} }
	failed := "no route to host"
	jobs := []wire.JobHead{
		{ID: 1, Status: "success", Summary: []string{"NODE_SET_PARAMS(node2.lab.test)"}, ReceivedTS: at(100), StartTS: at(101), EndTS: at(102), Actor: "root (local socket)"},
		{ID: 2, Status: "error", Summary: []string{"CLUSTER_VERIFY"}, ReceivedTS: at(200), EndTS: at(200), Error: &failed, RequestID: "abc"},
		{ID: 3, Status: "queued", Summary: []string{"NODE_REMOVE(node3)", "CLUSTER_VERIFY"}, ReceivedTS: at(300)},
	}
	for text, want := range map[string][]int64{
		`id == 2`: {2},
		`status == "queued" or status == "error"`: {2, 3},
		`summary =~ m/node2/`:                     {1},
		`"CLUSTER_VERIFY" in summary`:             {2, 3},
		`end_ts > 0`:                              {1, 2},
		`end_ts > 0 and end_ts <= 102.25`:         {1},
		`received_ts > 200.2`:                     {2, 3},
		`error =~ m/route/`:                       {2},
		`not end_ts > 0`:                          {3},
		`request_id == "abc"`:                     {2},
		`actor =* "root*"`:                        {1},
	} {
		f := must(t, text)
		if err := Jobs.Check(f); err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []int64
		for _, j := range Jobs.Select(jobs, f) {
			got = append(got, j.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: jobs %v, want %v", text, got, want)
		}
	}
}

// Every field must say what it is, and hold what it says.
func TestTables(t *testing.T) {
	checkTable(t, Nodes, fleet()[0])
	failed := "x"
	checkTable(t, Jobs, wire.JobHead{ReceivedTS: &wire.Time{1}, StartTS: &wire.Time{1}, EndTS: &wire.Time{1}, Summary: []string{}, OpStatus: []string{}, Ops: []json.RawMessage{}, Error: &failed})
	for _, want := range []string{
		"name", "uuid", "role", "master", "master_candidate", "master_capable", "vm_capable", "drained", "offline", "powered", "pip", "sip", "group", "group.uuid",
		"ndparams", "custom_ndparams", "pinst_cnt", "sinst_cnt", "pinst_list", "sinst_list", "hv_state", "disk_state", "tags", "serial_no", "ctime", "mtime",
		"bootid", "cnodes", "cnos", "csockets", "ctotal", "dfree", "dtotal", "mfree", "mnode", "mtotal", "spfree", "sptotal",
	} {
		if _, ok := Nodes.Find(want); !ok {
			t.Errorf("Ganeti's field %s is missing", want)
		}
	}
	f, ok := Nodes.Find("nosuch")
	if ok || f.Cell(wire.Node{}).Status != StatusUnknown || f.Title != "nosuch" {
		t.Errorf("unknown field: %+v", f)
	}
}

func checkTable[T any](t *testing.T, table *Table[T], row T) {
	t.Helper()
	names := table.Names()
	if len(names) != len(table.byName) {
		t.Error("two fields have one name")
	}
	for _, f := range table.Fields {
		if !isField(f.Name) || f.Title == "" || f.Doc == "" || strings.HasSuffix(f.Doc, ".") {
			t.Errorf("field %q: title %q, description %q", f.Name, f.Title, f.Doc)
		}
		c := f.Cell(row)
		if c.Status != StatusNormal {
			continue
		}
		ok := true
		switch f.Kind {
		case KindText:
			ok = len(texts(c.Value)) == 1
		case KindBool:
			_, ok = c.Value.(bool)
		case KindNumber:
			_, ok = number(c.Value)
		case KindTime:
			_, ok = c.Value.(time.Time)
		case KindList:
			_, ok = c.Value.([]string)
		}
		if !ok {
			t.Errorf("field %s is of the type %s and holds %T", f.Name, f.Kind, c.Value)
		}
	}
}
