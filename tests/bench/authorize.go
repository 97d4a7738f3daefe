package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"rolekey/internal/lab"
	"rolekey/internal/paths"
)

const (
	askClients = 8   // sshd processes that ask at the same time
	askCrowd   = 400 // questions of one round
)

// authorize measures what it costs that sshd asks noded at each login, against
// authorized_keys, in turns.
func (b *bench) authorize(ctx context.Context) (err error) {
	others, err := b.c.Others(ctx, b.master.Name)
	if err != nil {
		return err
	}
	logins, switches := map[string][]float64{}, map[string][]float64{}
	for range b.rounds {
		for _, way := range []string{"command", "file"} {
			took, err := b.command(ctx, "gnt-cluster", "modify", "--ssh-authorize="+way)
			if err != nil {
				return err
			}
			switches[way] = append(switches[way], ms(took))
			for _, n := range others {
				start := time.Now()
				if err := b.c.Login(ctx, b.master, n); err != nil {
					return err
				}
				logins[way] = append(logins[way], ms(time.Since(start)))
			}
		}
	}
	show("ssh login, authorized_keys", "ms", logins["file"], target{})
	show("ssh login, sshd asks noded", "ms", logins["command"], target{})
	show("modify --ssh-authorize=command, until 5 sshd ask", "ms", switches["command"], target{})
	show("modify --ssh-authorize=file, until 5 sshd do not", "ms", switches["file"], target{})
	return b.asks(ctx)
}

// asks measures the command itself, which a login runs twice.
func (b *bench) asks(ctx context.Context) error {
	key, err := publicKey(b.master)
	if err != nil {
		return err
	}
	one := func(ctx context.Context) (time.Duration, error) {
		return b.command(ctx, append([]string{"noded", "authorized-keys", "--", b.master.User}, key...)...)
	}
	var alone, crowd []float64
	for range b.rounds {
		took, err := one(ctx)
		if err != nil {
			return err
		}
		alone = append(alone, ms(took))
	}
	for range max(3, b.rounds/5) {
		g, ctx := errgroup.WithContext(ctx)
		var left atomic.Int64
		left.Store(askCrowd)
		start := time.Now()
		for range askClients {
			g.Go(func() error {
				for left.Add(-1) >= 0 {
					if _, err := one(ctx); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		crowd = append(crowd, askCrowd/time.Since(start).Seconds())
	}
	show("noded authorized-keys, one question", "ms", alone, target{})
	show("noded authorized-keys, 8 at a time", "1/s", crowd, target{})
	return nil
}

// publicKey returns type and base64 of a node's own key.
func publicKey(n lab.Node) ([]string, error) {
	text, err := os.ReadFile(paths.Layout{Root: n.Root}.SSHPublicKey())
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return nil, errors.New("read public key: it has no two fields")
	}
	return f[:2], nil
}
