package verify

import (
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

func TestHostKeys(t *testing.T) {
	keys := func(i int, use string) []cluster.SSHKey { return []cluster.SSHKey{statetest.SSHKey(i, use)} }
	claim := func(f *field, i int) {
		f.lab.Do(state.KindHostKeysClaim, state.HostKeysClaim{Node: statetest.ID(i), Incarnation: 1, Issued: f.lab.Now, Keys: keys(i, "new"), Port: 22})
		f.at(i).HostKeys = keys(i, "new")
	}
	const n2, n4 = "  - ERROR:ENODESSH:node:node2.lab.test:", "  - ERROR:ENODESSH:node:node4.lab.test:"
	for name, c := range map[string]struct {
		edit func(f *field)
		want []string // each line's beginning, and a part of it
	}{
		"as it should be": {func(f *field) { f.at(4).HostKeys = keys(4, "host") }, nil},
		"others":          {func(f *field) { f.at(4).HostKeys = keys(4, "new") }, []string{n4 + "its sshd has the host keys SHA256:", "--readd node4.lab.test"}},
		"another node's":  {func(f *field) { f.at(4).HostKeys = keys(2, "host") }, []string{n4 + "its sshd has the host key SHA256:", "of node node2.lab.test: either could pass"}},
		"pending":         {func(f *field) { claim(f, 2) }, []string{n2 + "waits for a decision", "gnt-node accept-host-keys node2.lab.test"}},
		"others than pending": {func(f *field) {
			claim(f, 2)
			f.at(2).HostKeys = keys(2, "newer")
		}, []string{n2 + "waits for a decision", "port 22", n2 + "its sshd has", "roster has"}},
		"rejected": {func(f *field) {
			claim(f, 2)
			digest, err := f.node(2).PendingHostKeys.Digest()
			if err != nil {
				f.t.Fatal(err)
			}
			f.lab.Do(state.KindHostKeysDecide, state.HostKeysDecision{Node: statetest.ID(2), Digest: digest})
		}, []string{n2 + "insists on host keys", "rejected"}},
		"clones": {func(f *field) {
			shared := keys(2, "host")
			f.lab.Do(state.KindNodeAddress, state.NodeAddress{Node: statetest.ID(4), HostKeys: &shared})
			f.publish()
		}, []string{"  - WARNING:ENODESSH:node:node4.lab.test:has the host key SHA256:", "of node node2.lab.test"}},
	} {
		f := newField(t)
		f.lab.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
		f.publish()
		c.edit(f)
		_, got := f.run()
		if len(got) != len(c.want)/2 {
			t.Errorf("%s: %q", name, got)
			continue
		}
		for i, line := range got {
			if !strings.HasPrefix(line, c.want[2*i]) || !strings.Contains(line, c.want[2*i+1]) {
				t.Errorf("%s: %q, want %q", name, line, c.want[2*i:2*i+2])
			}
		}
	}
}
