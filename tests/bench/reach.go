package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// reach measures how long it takes, where only the master's key opens the nodes,
// until a new master's does so everywhere and the old one's nowhere: after the
// master was killed, and by the command.
func (b *bench) reach(ctx context.Context) error {
	if _, err := b.command(ctx, "gnt-cluster", "modify", "--ssh-reach=master"); err != nil {
		return err
	}
	ways := []struct {
		what string
		do   func(ctx context.Context, old lab.Node) error
		took []float64
	}{
		{what: "kill -9", do: func(ctx context.Context, old lab.Node) error { return b.c.Kill(ctx, old.Name, lab.Masterd) }},
		{what: "the command", do: b.handOver},
	}
	for range max(3, b.rounds/2) {
		for i := range ways {
			took, err := b.newKey(ctx, ways[i].do)
			if err != nil {
				return err
			}
			ways[i].took = append(ways[i].took, ms(took))
		}
	}
	for _, w := range ways {
		show(fmt.Sprintf("only the new master's key opens %d nodes, after %s", b.nodes, w.what), "ms", w.took, target{})
	}
	return nil
}

// handOver runs the command on a voter that is not the master.
func (b *bench) handOver(ctx context.Context, old lab.Node) error {
	others, err := b.candidates(ctx, old.Name)
	if err != nil {
		return err
	}
	b.master = others[0] // where the command runs
	_, err = b.command(ctx, "gnt-cluster", "master-failover")
	return err
}

func (b *bench) candidates(ctx context.Context, not string) (list []lab.Node, err error) {
	m, err := b.c.ReadMap(ctx, b.master.Name)
	if err != nil {
		return nil, err
	}
	all, err := b.c.Others(ctx, not)
	for _, n := range all {
		if m.Has(n.Name) {
			list = append(list, n)
		}
	}
	return list, err
}

// newKey changes the master, and returns when the authorized_keys of the last
// node has followed. Logins then prove that sshd goes by it.
func (b *bench) newKey(ctx context.Context, change func(ctx context.Context, old lab.Node) error) (time.Duration, error) {
	old := b.master
	all, err := b.c.Nodes(ctx)
	if err != nil {
		return 0, err
	}
	was, err := os.ReadFile(filepath.Join(old.Root, authorizedKeys))
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	changed := make(chan error, 1)
	go func() { changed <- change(ctx, old) }() // waited for below
	_, err = kit.Until(ctx, patience, func(context.Context) error { return onlyOther(all, keyLine(was)) })
	took := time.Since(begin)
	if err = errors.Join(<-changed, err); err != nil {
		return 0, err
	}
	if err := b.c.Start(ctx, old.Name); err != nil {
		return 0, err
	}
	if err := b.settle(ctx); err != nil {
		return 0, err
	}
	return took, b.proveReach(ctx, old)
}

const authorizedKeys = "root/.ssh/authorized_keys"

// keyLine is the line of the one key that Rolekey has authorized; nil: there is
// none, or more than one.
func keyLine(text []byte) (key []byte) {
	for line := range bytes.Lines(text) {
		if _, rest, ok := bytes.Cut(line, []byte(" ssh-ed25519 ")); ok && line[0] != '#' && bytes.Contains(rest, []byte("rolekey:")) {
			if key != nil {
				return nil
			}
			key, _, _ = bytes.Cut(rest, []byte(" "))
		}
	}
	return key
}

// onlyOther returns nil when one key is authorized, the same on all nodes, and
// it is not the one that was.
func onlyOther(nodes []lab.Node, was []byte) error {
	var first []byte
	for _, n := range nodes {
		text, err := os.ReadFile(filepath.Join(n.Root, authorizedKeys))
		if err != nil {
			return err
		}
		key := keyLine(text)
		if first == nil {
			first = key
		}
		if key == nil || bytes.Equal(key, was) || !bytes.Equal(key, first) {
			return fmt.Errorf("%s does not authorize another key yet", n.Name)
		}
	}
	return nil
}

// proveReach logs in to all nodes with the new master's key and with the old
// one's.
func (b *bench) proveReach(ctx context.Context, old lab.Node) error {
	all, err := b.c.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, n := range all {
		if n.Name != b.master.Name {
			if e := b.c.Login(ctx, b.master, n); e != nil {
				err = errors.Join(err, fmt.Errorf("the new master's key: %w", e))
			}
		}
		if n.Name != old.Name {
			if e := kit.ShutOut(b.c.Login(ctx, old, n)); e != nil {
				err = errors.Join(err, fmt.Errorf("the old master's key: %w", e))
			}
		}
	}
	return err
}
