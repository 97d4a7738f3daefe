package kit

import (
	"context"
	"errors"
	"fmt"
	"os"

	"rolekey/internal/lab"
)

// Inside runs a helper of this program inside the namespaces of a cluster, with
// this process's own input and output, and returns its exit code. The helper
// gets the cluster's folder before args.
func Inside(ctx context.Context, c *lab.Cluster, helper string, args ...string) (int, error) {
	cmd, err := lab.HelperCmd("", helper, append([]string{c.Dir()}, args...)...)
	if err != nil {
		return -1, err
	}
	p, err := c.SpawnFiles(ctx, cmd, os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		return -1, fmt.Errorf("run %s inside the cluster: %w", helper, err)
	}
	return p.Wait()
}

// WithCluster brings a cluster up, runs the helper inside, and takes the
// cluster down, whatever happened.
func WithCluster(ctx context.Context, cfg lab.Config, helper string, args ...string) (code int, err error) {
	c, err := lab.Up(ctx, cfg)
	if err != nil {
		return -1, err
	}
	defer func() {
		// The files of a failure are for reading, if somebody asked for a place.
		end := c.Down
		if cfg.Dir != "" && (code != 0 || err != nil) {
			end = c.Shutdown
		}
		err = errors.Join(err, end(context.WithoutCancel(ctx)))
	}()
	return Inside(ctx, c, helper, args...)
}
