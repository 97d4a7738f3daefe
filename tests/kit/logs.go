package kit

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"rolekey/internal/lab"
)

// tail is how many lines of each log are worth reading.
const tail = 25

// TellOnFailure shows the daemons' logs at the end of a test that has failed, a
// *testing.T.
func (c *Cluster) TellOnFailure(t interface {
	Cleanup(func())
	Failed() bool
	Log(...any)
},
) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs(context.Background()))
		}
	})
}

// Logs returns the end of what every node's daemons logged, without what is for
// their developers: when somebody looks at a failed test, the files are gone.
func (c *Cluster) Logs(ctx context.Context) string {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return "no logs: " + err.Error()
	}
	var out strings.Builder
	for _, n := range nodes {
		for _, daemon := range []string{lab.Noded, lab.Masterd} {
			text, err := os.ReadFile(n.Log(daemon))
			if err != nil {
				continue // a node that runs no masterd
			}
			lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(l string) bool {
				return strings.Contains(l, `"level":"debug"`)
			})
			fmt.Fprintf(&out, "%s, %s:\n%s\n", n.Short(), daemon, strings.Join(lines[max(0, len(lines)-tail):], "\n"))
		}
	}
	return out.String()
}
