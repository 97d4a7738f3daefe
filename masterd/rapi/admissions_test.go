package rapi_test

import (
	"fmt"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/rapi"
	"rolekey/masterd/state"
)

// TestRAPIAdmissionsPromoteNobody: where RAPI may not promote, no admission string
// made over it leads to a candidate, nor changes what may be one.
func TestRAPIAdmissionsPromoteNobody(t *testing.T) {
	rapi.FastHashes(t)
	for _, c := range []struct {
		promote, capable bool // what RAPI may
		name, fields     string
		status           int
	}{
		{true, false, "node9.lab.test", "", 200},
		{true, false, "node9.lab.test", `,"master_capable":true`, 200},
		{false, false, "node9.lab.test", "", 403},
		{false, true, "node9.lab.test", `,"master_capable":true`, 403},
		{false, false, "node9.lab.test", `,"master_capable":false`, 200},
		{false, false, "node2.lab.test", `,"readd":true`, 403},
		{false, false, "node2.lab.test", `,"readd":true,"master_capable":false`, 403},
		{false, true, "node2.lab.test", `,"readd":true,"master_capable":false`, 200},
		{false, false, "node3.lab.test", `,"readd":true`, 200}, // it is not capable
		{true, false, "node3.lab.test", `,"readd":true,"master_capable":true`, 403},
		{true, true, "node3.lab.test", `,"readd":true,"master_capable":true`, 200},
	} {
		r := newRemote(t, 3)
		r.user("root", "the password", cluster.PermissionAdmin)
		s, _ := r.State()
		r.Do(state.KindNodeChange, state.NodeChange{Node: s.NodeByName("node3.lab.test").UUID, Flags: &state.FlagPatch{MasterCapable: new(false)}})
		r.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{
			RAPIMayPromote: &c.promote, MasterCapabilityRAPIModifiable: &c.capable,
		}})
		body := fmt.Sprintf(`{"name":%q%s}`, c.name, c.fields)
		if w := r.call("POST", "/2/admissions", body, "root", "the password"); w.Code != c.status {
			t.Errorf("%+v: %d: %s", c, w.Code, w.Body)
		}
		var any struct{}
		r.want("POST", "/2/admissions", body, &any) // local root may
	}
}
