package masterd

import (
	"bytes"
	"os"
	"testing"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/rpc"
)

// signingKit is a vault that is opened anew for every order, as after kill -9.
type signingKit struct {
	t  *testing.T
	at paths.Layout
}

// order gives an order and returns the key of the answer; listed is what the map
// lists.
func (k *signingKit) order(o rpc.SigningOrder, listed candmap.SigningKey) (candmap.SigningKey, error) {
	r := keysOf(1, 1)
	r.Signing = &o
	keys, err := newVault(k.at).ensureListed(r, listed)
	return keys.Signing, err
}

func (k *signingKit) must(o rpc.SigningOrder, listed candmap.SigningKey) candmap.SigningKey {
	k.t.Helper()
	key, err := k.order(o, listed)
	if err != nil {
		k.t.Fatal(err)
	}
	return key
}

// held are the keys of a vault that is opened and told what the map lists.
func (k *signingKit) held(listed candmap.SigningKey) (keys []candmap.SigningKey) {
	k.t.Helper()
	v := newVault(k.at)
	if err := v.open(contextOf(keysOf(1, 1))); err != nil {
		k.t.Fatal(err)
	}
	v.settle(listed)
	for _, key := range v.signers() {
		keys = append(keys, publicKey(key))
	}
	return keys
}

// TestG7SigningKeyIsReplaced goes through a renewal with a crash after each step,
// and each step twice.
func TestG7SigningKeyIsReplaced(t *testing.T) {
	k := &signingKit{t, layout(t)}
	first := k.must(rpc.SigningOrder{}, nil)
	next := k.must(rpc.SigningOrder{Avoid: []candmap.SigningKey{first}}, first)
	if bytes.Equal(first, next) {
		t.Fatal("it answers with the key that is to be replaced")
	}
	if again := k.must(rpc.SigningOrder{Avoid: []candmap.SigningKey{first}}, first); !bytes.Equal(again, next) {
		t.Error("asked again it makes another key")
	}
	// The order that comes with every question, before the map lists the next key,
	// and late, when it does.
	k.must(rpc.SigningOrder{Keep: first}, first)
	k.must(rpc.SigningOrder{Keep: first}, next)
	for _, c := range []struct{ listed, other candmap.SigningKey }{{first, next}, {next, first}} {
		if held := k.held(c.listed); len(held) != 2 || !bytes.Equal(held[0], c.listed) || !bytes.Equal(held[1], c.other) {
			t.Fatalf("it holds %d keys, or signs with the wrong one first", len(held))
		}
	}
	sealed, err := os.ReadFile(k.at.NextSigningKey())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		k.must(rpc.SigningOrder{Keep: next}, next)
		if held := k.held(next); len(held) != 1 || !bytes.Equal(held[0], next) {
			t.Fatalf("%d keys are left", len(held))
		}
	}
	// As if it had died before the key lost its second name.
	if err := os.WriteFile(k.at.NextSigningKey(), sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	if held := k.held(next); len(held) != 1 || !bytes.Equal(held[0], next) || !missing(k.at.NextSigningKey()) {
		t.Errorf("%d keys after a crash", len(held))
	}
	if third := k.must(rpc.SigningOrder{Avoid: []candmap.SigningKey{next}}, next); bytes.Equal(third, first) || bytes.Equal(third, next) {
		t.Error("the next renewal gives an old key")
	}
}

// A node that lacks the key which the map lists says so, and gets a new start.
func TestSigningKeyIsLost(t *testing.T) {
	k := &signingKit{t, layout(t)}
	first := k.must(rpc.SigningOrder{}, nil)
	other := bytes.Repeat([]byte{9}, len(first))
	if _, err := k.order(rpc.SigningOrder{Keep: other}, other); cluster.CodeOf(err) != cluster.CodeKeysLost {
		t.Errorf("the key of the map is missing: %v", err)
	}
	if _, err := k.order(rpc.SigningOrder{Keep: other}, first); err != nil {
		t.Errorf("a late order: %v", err)
	}
}
