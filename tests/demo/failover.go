package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

func (t *teller) failover(ctx context.Context) {
	old := t.master
	start := time.Now()
	alive := t.claim("kill -9 of masterd on "+short(old)+": another candidate is master", func() (string, error) {
		start = time.Now()
		if err := t.c.Kill(ctx, old, lab.Masterd); err != nil {
			return "", err
		}
		name, _, err := t.c.AwaitMaster(ctx, patience, old)
		if err != nil {
			return "", err
		}
		t.master = name
		return fmt.Sprintf("%s, %s after the kill", short(name), ms(time.Since(start))), nil
	})
	if alive {
		t.claim("and it promotes: gnt-node modify -C yes node4", func() (string, error) {
			r, err := t.c.Must(ctx, 0, t.master, "gnt-node", "modify", "-C", "yes", "node4")
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("on %s in %s; done %s after the kill", short(t.master), ms(r.Took), ms(time.Since(start))), nil
		})
	}
	t.claim("the old master comes back as a candidate", func() (string, error) {
		start := time.Now()
		if err := t.c.Start(ctx, old); err != nil {
			return "", err
		}
		if err := t.settle(ctx); err != nil {
			return "", err
		}
		if t.master == old {
			return "", fmt.Errorf("%s is master again", short(old))
		}
		if _, err := kit.Until(ctx, patience, func(ctx context.Context) error { return t.knows(ctx, old, t.master) }); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s follows %s %s after its start", short(old), short(t.master), ms(time.Since(start))), nil
	})
}

// knows asks a candidate's own copy of the state who is master.
func (t *teller) knows(ctx context.Context, on, master string) error {
	r, err := t.c.Must(ctx, 0, on, "gnt-node", "list", "--no-headers", "--separator", "=", "-o", "name,role")
	if err == nil && !strings.Contains(r.Stdout, master+"=master\n") && !strings.Contains(r.Stdout, master+"=M\n") {
		err = fmt.Errorf("%s does not know that %s is master: %q", short(on), short(master), r.Stdout)
	}
	return err
}

// settle waits until every node confirms the same fresh map to the master, and
// notes who that is.
func (t *teller) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	name, _, err := t.c.AwaitMaster(ctx, patience, "")
	if err != nil {
		return err
	}
	t.master = name
	m, err := t.c.ReadMap(ctx, name)
	if err != nil {
		return err
	}
	return t.c.AwaitMap(ctx, name, nodes, len(m.Candidates))
}

func short(name string) string {
	for i := range name {
		if name[i] == '.' {
			return name[:i]
		}
	}
	return name
}
