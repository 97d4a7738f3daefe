package main

import (
	"context"
	"fmt"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"rolekey/internal/lab"
	"rolekey/tests/kit"
)

// inside measures parts, one after the other, inside a cluster that it brings up
// for them.
func inside(ctx context.Context, cfg lab.Config, rounds int, parts ...string) error {
	code, err := kit.WithCluster(ctx, cfg, "measure", strconv.Itoa(rounds), strings.Join(parts, ","))
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: not measured", strings.Join(parts, ", ")) // measure has said why
	}
	if err != nil {
		return fmt.Errorf("cluster of %d: %w", cfg.Nodes, err)
	}
	return nil
}

// insideEach measures a part in clusters of several sizes, one after the other.
func insideEach(part string, sizes ...int) func(ctx context.Context, rounds int) error {
	return func(ctx context.Context, rounds int) error {
		for _, n := range sizes {
			if err := inside(ctx, lab.Config{Nodes: n, CandidatePoolSize: 3}, rounds, part); err != nil {
				return err
			}
		}
		return nil
	}
}

// measure is the helper that runs inside: it gets the cluster's folder, the
// rounds and the parts.
func measure(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	rounds, err := strconv.Atoi(args[1])
	if err != nil {
		return failed(err)
	}
	b, err := newBench(ctx, args[0], rounds)
	if err != nil {
		return failed(err)
	}
	for _, name := range strings.Split(args[2], ",") {
		if err := insideParts()[name](b, ctx); err != nil {
			return failed(fmt.Errorf("%s: %w", name, err))
		}
	}
	return 0
}

// insideParts are all parts that are measured inside a cluster.
func insideParts() map[string]func(b *bench, ctx context.Context) error {
	all := map[string]func(b *bench, ctx context.Context) error{
		"sessions": (*bench).sessions, "reach": (*bench).reach, "rapi": (*bench).remoteRoles, "verify": (*bench).verify,
	}
	for _, l := range layouts {
		for _, p := range l.parts {
			all[p.name] = p.run
		}
	}
	return all
}
