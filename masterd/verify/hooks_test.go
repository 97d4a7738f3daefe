package verify

import (
	"errors"
	"slices"
	"testing"

	"rolekey/masterd/hooks"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

func TestHooksArePartOfTheReport(t *testing.T) {
	f := newField(t)
	f.errs[statetest.ID(3)] = errors.New("no route to host")
	f.scripts = hooks.Report{
		{Node: "node1.lab.test", HookResult: rpc.HookResult{Script: "good", Status: rpc.HookSucceeded}},
		{Node: "node2.lab.test", HookResult: rpc.HookResult{Script: "bad", Status: rpc.HookFailed, Reason: "exit code 2", Output: "disk is full"}},
		{Node: "node2.lab.test", HookResult: rpc.HookResult{Script: "open", Status: rpc.HookRefused, Reason: "is writable by others than its owner"}},
		{Node: "node3.lab.test", Unasked: "no route to host"},
		{Node: "node4.lab.test", Unasked: "this node runs hooks of 4 other calls"},
	}
	ok, bad := f.run()
	want := []string{
		"  - ERROR:ENODERPC:node:node3.lab.test:while contacting node: no route to host",
		"  - ERROR:ENODEHOOKS:node:node2.lab.test:Hook script bad failed (exit code 2), output: disk is full",
		"  - ERROR:ENODEHOOKS:node:node2.lab.test:Hook script open was not run: is writable by others than its owner",
		"  - ERROR:ENODEHOOKS:node:node4.lab.test:Hooks could not be run: this node runs hooks of 4 other calls",
	}
	if ok || !slices.Equal(bad, want) {
		t.Errorf("verdict %t, %q", ok, bad)
	}
	if !slices.Contains(f.lines, "* Hooks Results") {
		t.Errorf("%q", f.lines)
	}
}
