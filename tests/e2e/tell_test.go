package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// tellOnFailure shows the end of what the daemons logged when a test has failed:
// their files are gone when somebody looks.
func (w *world) tellOnFailure(t *testing.T) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, n := range w.nodes() {
			for _, daemon := range []string{"noded", "masterd"} {
				text, err := os.ReadFile(n.File("/var/log/rolekey/" + daemon + ".log"))
				if err != nil {
					continue
				}
				lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(l string) bool {
					return strings.Contains(l, `"level":"debug"`)
				})
				t.Logf("%s, %s:\n%s", n.Short(), daemon, strings.Join(lines[max(0, len(lines)-25):], "\n"))
			}
		}
	})
}
