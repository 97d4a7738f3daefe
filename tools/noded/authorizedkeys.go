package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"rolekey/internal/paths"
	"rolekey/rpc"
)

// maxKeyText bounds a key: the largest RSA key that Rolekey makes is shorter.
const maxKeyText = 8 << 10

// askPause is between two attempts to find noded.
const askPause = 20 * time.Millisecond

func authorizedKeysCommand(root *string, std streams) *cobra.Command {
	return &cobra.Command{
		Use:   "authorized-keys USER TYPE KEY",
		Short: "Answer sshd, which asks whether a key opens an account",
		Long: `authorized-keys is for sshd, not for people: with --ssh-authorize=command it is
sshd's AuthorizedKeysCommand. It asks the daemon, and prints the line of
authorized_keys for the key if the cluster's candidate map authorizes it now.
If the daemon does not answer it fails, and sshd goes on with the files.`,
		Example: "  noded authorized-keys root ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA...",
		Args:    cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			lines, err := askKeys(cmd.Context(), *root, args[0], args[2])
			if err == nil {
				_, err = fmt.Fprint(std.out, lines)
			}
			return err
		},
	}
}

func askKeys(ctx context.Context, root, user, key string) (string, error) {
	if len(key) > maxKeyText {
		return "", fmt.Errorf("the key is longer than %d bytes", maxKeyText)
	}
	blob, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return "", fmt.Errorf("read key: %w", err)
	}
	at, err := layout(root)
	if err != nil {
		return "", err
	}
	dial := func(ctx context.Context) (net.Conn, error) { return paths.DialUnix(ctx, at.NodedSock()) }
	c := rpc.NewLocalClient(dial, uint32(os.Geteuid())) // nobody else is believed
	defer c.Close()
	return askAgain(ctx, c, rpc.AuthorizedKeysRequest{User: user, Blob: blob, SSHD: os.Getppid()})
}

// askAgain asks until there is an answer: a noded that is being restarted is
// back in a moment. One that hangs is not waited for twice.
func askAgain(ctx context.Context, c *rpc.LocalClient, req rpc.AuthorizedKeysRequest) (string, error) {
	for began := time.Now(); ; {
		var reply rpc.AuthorizedKeysReply
		err := askOnce(ctx, c, req, &reply)
		if err == nil || !isAbsent(err) || time.Since(began) > rpc.AskRetry {
			return reply.Lines, err
		}
		select {
		case <-time.After(askPause):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// isAbsent reports whether noded was not there, or ended before it answered, for
// which net/http has many errors, some without a name.
func isAbsent(err error) bool {
	var unanswered *url.Error
	return errors.As(err, &unanswered) && !unanswered.Timeout()
}

func askOnce(ctx context.Context, c *rpc.LocalClient, req rpc.AuthorizedKeysRequest, reply *rpc.AuthorizedKeysReply) error {
	ctx, cancel := context.WithTimeout(ctx, rpc.AskTime)
	defer cancel()
	return c.Do(ctx, http.MethodPost, rpc.LocalAuthorizedKeys, req, reply)
}
