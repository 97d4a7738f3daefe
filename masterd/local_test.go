package masterd

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/cluster"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
)

// starting is a daemon whose member hangs in its start, after it opened its
// files, until release is called.
func starting(t *testing.T) (d *Daemon, release func()) {
	t.Helper()
	time.Sleep(time.Until(statetest.Epoch)) // a bubble begins in the year 2000, in which no cluster is founded
	reached, released := make(chan struct{}), make(chan struct{})
	d = New(Config{Paths: layout(t), Listen: func(context.Context, []netip.AddrPort) ([]net.Listener, error) {
		close(reached)
		<-released
		return nil, errors.New("no address")
	}})
	if err := d.intake(t.Context(), viewOf(t, d)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.follow(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	<-reached
	return d, func() { close(released) }
}

// TestDestroyWaitsForAStart: keys that go while a member opens its files would
// leave a new log behind that no keyring opens.
func TestDestroyWaitsForAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, release := starting(t)
		if _, err := d.destroyKeys(t.Context(), nil); cluster.CodeOf(err) != cluster.CodeBusy {
			t.Errorf("while the map names this node: %v", err)
		}
		if err := d.intake(t.Context(), &rpc.LocalViewReply{}); err != nil {
			t.Fatal(err)
		}
		destroyed := make(chan error, 1)
		go func() {
			_, err := d.destroyKeys(t.Context(), nil)
			destroyed <- err
		}()
		synctest.Wait()
		if len(destroyed) > 0 || d.vault.signer() == nil || !d.vault.present() {
			t.Error("keys were destroyed under a member that starts")
		}
		release()
		if err := <-destroyed; err != nil || d.vault.present() {
			t.Errorf("in the end: %v; something is left: %t", err, d.vault.present())
		}
	})
}

// TestDestroyGivesUpWaiting with its caller, and then has destroyed nothing.
func TestDestroyGivesUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, release := starting(t)
		defer release()
		if err := d.intake(t.Context(), &rpc.LocalViewReply{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.destroyKeys(ctx, nil); !errors.Is(err, context.Canceled) || !d.vault.present() {
			t.Errorf("%v; keys are there: %t", err, d.vault.present())
		}
	})
}
