package e2e

import (
	"testing"
	"time"
)

// TestZExpiredString is the last of the package, because the shortest life of a
// string is a minute.
func TestZExpiredString(t *testing.T) {
	w := small(t)
	if expiring.token == "" {
		t.Skip("TestFoundAndJoin did not make the string")
	}
	// why-sleep: the string must be past its end.
	time.Sleep(time.Until(expiring.made.Add(62 * time.Second)))
	token := expiring.token
	w.admin(0, "gnt-node", "remove", "node2")
	w.expect(0, "", "node2", "", "noded", "leave", "--yes")
	w.expect(1, "expired", "node2", token, "noded", "join", "-")
}
