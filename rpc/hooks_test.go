package rpc

import (
	"slices"
	"strings"
	"testing"

	"rolekey/cluster"
)

// TestG10HooksTakeNoArgument: a call names neither a script nor a folder, and
// no value that it passes means anything to a shell.
func TestG10HooksTakeNoArgument(t *testing.T) {
	good := HooksRequest{Hook: HookNodeModify, Phase: HooksPost, Vars: map[string]string{
		"CLUSTER": "c.example", "MASTER": "node1.example", "OP_CODE": "OP_NODE_SET_PARAMS", "NODE_NAME": "node2.example",
		"NODE_PIP": "2001:db8::2", "NODE_SIP": "", "OFFLINE": "None", "POST_OFFLINE": "True",
	}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*HooksRequest){
		"hook":                func(r *HooksRequest) { r.Hook = "../../tmp/x" },
		"no hook":             func(r *HooksRequest) { r.Hook = "" },
		"phase":               func(r *HooksRequest) { r.Phase = "../pre" },
		"a variable of sh":    func(r *HooksRequest) { r.Vars["IFS"] = "x" },
		"the path":            func(r *HooksRequest) { r.Vars["PATH"] = "/tmp" },
		"the phase":           func(r *HooksRequest) { r.Vars["HOOKS_PHASE"] = "pre" },
		"a substitution":      func(r *HooksRequest) { r.Vars["NODE_NAME"] = "$(reboot)" },
		"a second line":       func(r *HooksRequest) { r.Vars["NODE_NAME"] = "a\nLD_PRELOAD=/tmp/x" },
		"a NUL":               func(r *HooksRequest) { r.Vars["NODE_NAME"] = "a\x00b" },
		"a word for a flag":   func(r *HooksRequest) { r.Vars["OFFLINE"] = "true" },
		"a long name":         func(r *HooksRequest) { r.Vars["MASTER"] = strings.Repeat("a", 254) },
		"a general one, post": func(r *HooksRequest) { r.Vars["POST_MASTER"] = "node1.example" },
		"a result in advance": func(r *HooksRequest) { r.Phase = HooksPre },
	} {
		r := good
		r.Vars = map[string]string{}
		for k, v := range good.Vars {
			r.Vars[k] = v
		}
		spoil(&r)
		if err := r.Check(); cluster.CodeOf(err) != cluster.CodeBadFormat {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHookEnviron(t *testing.T) {
	r := HooksRequest{Hook: HookNodeAdd, Phase: HooksPre, Vars: map[string]string{"NODE_NAME": "node2.example", "OP_CODE": "OP_NODE_ADD"}}
	want := []string{
		"GANETI_DATA_DIR=/var/lib/rolekey", "GANETI_HOOKS_PATH=node-add", "GANETI_HOOKS_PHASE=pre", "GANETI_HOOKS_VERSION=2",
		"GANETI_NODE_NAME=node2.example", "GANETI_OBJECT_TYPE=NODE", "GANETI_OP_CODE=OP_NODE_ADD", "PATH=/sbin:/bin:/usr/sbin:/usr/bin",
	}
	if got := r.Environ(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
