package main

import (
	"strings"
	"testing"
)

func TestPeers(t *testing.T) {
	root := startDaemon(t)
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"in no cluster": {[]string{"node2.example.com=192.0.2.12,2001:db8::12"}, exitNoCluster, "in no cluster"},
		"list":          {nil, exitNoCluster, "in no cluster"},
		"no address":    {[]string{"node2.example.com"}, exitFailed, "want NODE=ADDRESS"},
		"a name":        {[]string{"node2.example.com=node2"}, exitFailed, "peers: "},
	} {
		r := runWith(t, "", append(append([]string{"peers"}, c.args...), "--root", root)...)
		if r.code != c.code || !strings.Contains(r.err, c.want) || r.out != "" {
			t.Errorf("%s: %+v, want %d and %q", name, r, c.code, c.want)
		}
	}
}
