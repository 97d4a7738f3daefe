package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"rolekey/internal/lab"
)

// TestClusterAddress: the master's noded holds the address, a restart leaves it
// there, and it goes with the role. All nodes share one machine here, so the
// address is always on the same device; whose it is, their own files tell.
func TestClusterAddress(t *testing.T) {
	w := rested(t)
	if st, err := w.State(w.ctx); err != nil || !st.Namespaces {
		t.Skipf("no network namespaces here, and the machine's own devices are left alone: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: an ordinary user's noded may not change addresses")
	}
	const address = "10.99.99.9"
	w.admin(0, "gnt-cluster", "modify", "--master-netdev", "lo", "--master-ip", address)
	holder := func(want string) func(context.Context) error {
		return func(ctx context.Context) error {
			for _, n := range w.nodes() {
				r, err := w.Sh(ctx, w.master(), "gnt-node", "info", n.Name)
				if err != nil {
					return err
				}
				holds := strings.Contains(r.Stdout, "holds "+address+"/32 on lo")
				if holds != (n.Name == want) {
					return fmt.Errorf("%s holds it: %v", n.Name, holds)
				}
			}
			r, err := w.Sh(ctx, want, "ip", "address", "show", "dev", "lo")
			if err == nil && (!strings.Contains(r.Stdout, address+"/32") || !strings.Contains(r.Stdout, "valid_lft ")) {
				err = fmt.Errorf("the device: %s", r.Stdout)
			}
			return err
		}
	}
	first := w.master()
	w.until("the master holds the address", holder(first))
	w.must(w.Kill(w.ctx, first, lab.Noded))
	w.must(w.Start(w.ctx, first))
	w.until("it holds it after a restart", holder(first))
	w.must(w.Kill(w.ctx, first, lab.Masterd))
	next, _, err := w.AwaitMaster(w.ctx, limit, first)
	w.must(err)
	w.must(w.Start(w.ctx, first))
	w.until("the next master holds it", holder(next))
	w.clean()
	w.admin(0, "gnt-cluster", "modify", "--no-master-ip")
	w.until("nobody holds it", func(ctx context.Context) error {
		r, err := w.Sh(ctx, next, "ip", "address", "show", "dev", "lo")
		if err == nil && strings.Contains(r.Stdout, address) {
			err = fmt.Errorf("the device: %s", r.Stdout)
		}
		return err
	})
	w.clean()
}
