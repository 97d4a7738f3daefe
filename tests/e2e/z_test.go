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
	other := w.others("node1", w.master())[0].Name // the string knows node1 alone
	w.admin(0, "gnt-node", "remove", other)
	w.expect(0, "", other, "", "noded", "leave", "--yes")
	w.expect(1, "expired", other, token, "noded", "join", "-")
}
