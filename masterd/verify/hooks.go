package verify

import (
	"context"
	"slices"

	"rolekey/cluster"
	"rolekey/masterd/hooks"
	"rolekey/rpc"
)

// hooks has all nodes run the scripts of cluster-verify, and makes what they
// find part of the report.
func (c *check) hooks(ctx context.Context) {
	report := c.ask.Hooks(ctx, func(id cluster.NodeID) bool {
		_, ok := c.answers[id]
		return !ok
	})
	report = slices.DeleteFunc(report, func(r hooks.Result) bool {
		return r.Unasked != "" && !c.heard(r.Node) // that it does not answer is told already
	})
	if len(report) == 0 {
		return
	}
	c.section("Hooks Results")
	for _, r := range report {
		c.hook(r)
	}
}

func (c *check) heard(name cluster.Name) bool {
	for _, n := range c.online() {
		if n.Name == name {
			_, ok := c.answers[n.UUID]
			return ok
		}
	}
	return false
}

func (c *check) hook(r hooks.Result) {
	name := string(r.Node)
	switch {
	case r.Unasked != "":
		c.report(CodeNodeHooks, "node", name, "Hooks could not be run: %s", r.Unasked)
	case r.Status == rpc.HookRefused:
		c.report(CodeNodeHooks, "node", name, "Hook script %s was not run: %s", r.Script, r.Reason)
	case r.Status != rpc.HookSucceeded:
		c.report(CodeNodeHooks, "node", name, "Hook script %s failed (%s), output: %s", r.Script, r.Reason, r.Output)
	}
}
