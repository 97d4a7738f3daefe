package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/rpc"
)

func (a *app) sshCommand() *cobra.Command {
	var tty bool
	cmd := &cobra.Command{
		Use:   "ssh [-t] NODE [-- COMMAND...]",
		Short: "Log in to a node as root, by ssh, with the right keys",
		Long: `Becomes ssh(1), with this node's key for the cluster, and with NODE's address,
port and host keys as the signed roster of this node has them. It does not need
what Rolekey writes for plain ssh, nor the master daemon, and no name is resolved.
NODE is a name, the first label of it, a UUID, or an address, which is then used.

It works where the map authorizes this node's key: on the master, and on every
candidate with ssh_reach=candidates. The exit code is ssh's, which is COMMAND's, or
255.`,
		Example: `  gnt-cluster ssh node2
  gnt-cluster ssh node2 -- systemctl status rolekey-noded
  gnt-cluster ssh -t 192.0.2.12 -- top`,
		Args: atLeastOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := a.sshWay(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			argv := wayArgs(w, args[1:], tty)
			path, err := exec.LookPath(argv[0])
			if err == nil {
				err = a.become(path, argv)
			}
			if err != nil {
				return fmt.Errorf("run ssh: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&tty, "tty", "t", false, "give COMMAND a terminal")
	cmd.Flags().SetInterspersed(false) // what follows NODE is the command's own
	return cmd
}

// become replaces this process by another program. It returns if that failed.
func (a *app) become(path string, argv []string) error {
	if a.exec != nil {
		return a.exec(path, argv)
	}
	return syscall.Exec(path, argv, os.Environ())
}

func (a *app) sshWay(ctx context.Context, node string) (rpc.SSHWay, error) {
	noded := a.client.noded()
	defer noded.Close()
	var w rpc.SSHWay
	err := noded.Do(ctx, http.MethodPost, rpc.LocalSSH, rpc.SSHWayRequest{Node: node}, &w)
	var coded *cluster.Error
	switch {
	case errors.Is(err, os.ErrPermission):
		return w, mustBeRoot()
	case errors.As(err, &coded) && coded.Code == cluster.CodeUnavailable:
		return w, &exitError{ExitFailed, "Cannot communicate with the node daemon.\nIs the process running and listening for connections?"}
	case coded != nil && coded.Code == cluster.CodeNotMaster:
		return w, notMaster(coded.Node)
	case coded != nil && coded.Code == cluster.CodeNoMap:
		return w, noCluster()
	}
	return w, err
}

// wayArgs are the arguments of ssh. What they say goes before all that is
// configured for ssh; what they do not is the administrator's.
func wayArgs(w rpc.SSHWay, command []string, tty bool) []string {
	option := func(name, value string) string { return name + "=" + value }
	agent := "none"
	if w.Agent != "" {
		agent = sshWord(w.Agent)
	}
	options := []string{
		option("HostName", w.Address.String()), option("Port", fmt.Sprint(w.Port)), option("User", w.User),
		option("HostKeyAlias", string(w.Name)), option("UserKnownHostsFile", sshWord(w.KnownHosts)), "GlobalKnownHostsFile=/dev/null",
		"StrictHostKeyChecking=yes", "UpdateHostKeys=no", "IdentitiesOnly=yes", option("IdentityAgent", agent),
		"ProxyCommand=none", "ProxyJump=none", "ControlPath=none", "PreferredAuthentications=publickey",
	}
	if w.Bind != "" {
		options = append(options, option("BindAddress", w.Bind))
	}
	for _, f := range w.Identities {
		options = append(options, option("IdentityFile", sshWord(f)))
	}
	argv := []string{"ssh"}
	for _, o := range options {
		argv = append(argv, "-o", o)
	}
	if tty {
		argv = append(argv, "-t")
	}
	argv = append(argv, "--", string(w.Name))
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	return append(argv, command...)
}

// sshWord is a path as one word of ssh's configuration, in which percent signs
// are doubled.
func sshWord(path string) string { return `"` + strings.ReplaceAll(path, "%", "%%") + `"` }
