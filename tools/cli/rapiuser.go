package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"rolekey/cluster"
	"rolekey/masterd/rapi"
	"rolekey/masterd/rapi/wire"
)

func (a *app) rapiUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rapi-user",
		Short: "Manage the users of the remote API",
		Long: `Users log in to the remote API (HTTPS, port 5080 of every master candidate) by
name and password. Permission read lets them look, write lets them change roles and
tags, admin lets them add, rename, move and remove nodes. What raises privileges of the API
itself, users included, is changed on the master only.

A password is read from the terminal, or from a file, and never an argument. The
cluster keeps its bcrypt hash.`,
		Example: `  gnt-cluster rapi-user add dashboard --permission read
  gnt-cluster rapi-user import /var/lib/ganeti/rapi/users`,
	}
	cmd.AddCommand(a.rapiUserAdd(), a.rapiUserPasswd(), a.rapiUserRemove(), a.rapiUserList(), a.rapiUserImport())
	return cmd
}

func userPath(name string) string { return "/2/users/" + url.PathEscape(name) }

func (a *app) rapiUserAdd() *cobra.Command {
	var file, permission string
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a user",
		Example: "  gnt-cluster rapi-user add ansible --permission write --password-file ansible.pw",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := cluster.ParsePermission(permission)
			if err != nil {
				return usage("--permission: %v", err)
			}
			var users []wire.User
			if err := a.client.get(cmd.Context(), "/2/users", &users); err != nil {
				return err
			}
			for _, u := range users {
				if u.Name == args[0] {
					return cluster.Errorf(cluster.CodeAlreadyExists, "there is a user %s of the remote API", u.Name).
						WithHint("gnt-cluster rapi-user passwd changes the password")
				}
			}
			return a.setUser(cmd, args[0], p, file)
		},
	}
	cmd.Flags().StringVar(&permission, "permission", string(cluster.PermissionRead), "read, write or admin")
	passwordFlag(cmd, &file)
	return cmd
}

func passwordFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "password-file", "", "read the password from the first line of this file (-: standard input) instead of the terminal")
}

func (a *app) rapiUserPasswd() *cobra.Command {
	var file, permission string
	cmd := &cobra.Command{
		Use:     "passwd NAME",
		Short:   "Change a user's password or permission",
		Example: "  gnt-cluster rapi-user passwd ansible\n  gnt-cluster rapi-user passwd ansible --permission read",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var users []wire.User
			if err := a.client.get(cmd.Context(), "/2/users", &users); err != nil {
				return err
			}
			for _, u := range users {
				if u.Name != args[0] {
					continue
				}
				if permission == "" {
					return a.setUser(cmd, u.Name, u.Permission, file)
				}
				p, err := cluster.ParsePermission(permission)
				if err != nil {
					return usage("--permission: %v", err)
				}
				return a.client.call(cmd.Context(), http.MethodPut, userPath(u.Name), wire.UserSet{Permission: p}, nil)
			}
			return cluster.Errorf(cluster.CodeNotFound, "there is no user %s of the remote API", args[0])
		},
	}
	cmd.Flags().StringVar(&permission, "permission", "", "change this, and not the password: read, write or admin")
	passwordFlag(cmd, &file)
	return cmd
}

func (a *app) setUser(cmd *cobra.Command, name string, p cluster.Permission, file string) error {
	password, err := a.readPassword(name, file)
	if err != nil {
		return err
	}
	defer clear(password)
	hash, err := rapi.HashPassword(password)
	if err != nil {
		return &exitError{ExitFailed, err.Error()}
	}
	return a.client.call(cmd.Context(), http.MethodPut, userPath(name), wire.UserSet{Permission: p, Hash: hash.Reveal()}, nil)
}

// readPassword reads a password twice from the terminal, or once from a file.
func (a *app) readPassword(name, file string) ([]byte, error) {
	switch {
	case file == "-":
		return firstLine(a.input())
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read password: %w", err)
		}
		defer f.Close()
		return firstLine(f)
	}
	in, ok := a.input().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return nil, usage("standard input is no terminal to ask for a password at; give --password-file FILE, or - for standard input")
	}
	once, err := a.prompt(in, fmt.Sprintf("Password of %s: ", name))
	if err != nil {
		return nil, err
	}
	again, err := a.prompt(in, "Once more: ")
	if err != nil {
		return nil, err
	}
	defer clear(again)
	if !bytes.Equal(once, again) {
		return nil, &exitError{ExitFailed, "The passwords differ; nothing was changed."}
	}
	return once, nil
}

func (a *app) input() io.Reader {
	if a.in == nil {
		return os.Stdin
	}
	return a.in
}

func (a *app) prompt(in *os.File, text string) ([]byte, error) {
	fmt.Fprint(a.err, text)
	password, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(a.err)
	if err != nil {
		return nil, fmt.Errorf("read password: %w", err)
	}
	return password, nil
}

func firstLine(r io.Reader) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4<<10)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read password: %w", err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func (a *app) rapiUserRemove() *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a user, who is refused from then on",
		Example: "  gnt-cluster rapi-user remove dashboard",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.client.call(cmd.Context(), http.MethodDelete, userPath(args[0]), nil, nil)
		},
	}
}

func (a *app) rapiUserList() *cobra.Command {
	t := &table[wire.User]{columns: []column[wire.User]{
		{"name", "Name", func(u wire.User) any { return u.Name }, nil},
		{"permission", "Permission", func(u wire.User) any { return u.Permission }, nil},
		{"changed", "Changed", func(u wire.User) any { return u.Changed }, func(u wire.User) string { return when(u.Changed) }},
	}}
	t.defaults, t.object = t.names(), t.names()
	cmd := a.jsonFlag(&cobra.Command{
		Use:     "list",
		Short:   "List the users",
		Example: "  gnt-cluster rapi-user list",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var users []wire.User
			if err := a.client.get(cmd.Context(), "/2/users", &users); err != nil {
				return err
			}
			return t.print(a, users)
		},
	})
	t.flags(cmd)
	return cmd
}

func (a *app) rapiUserImport() *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE",
		Short: "Take over the users of Ganeti's users file",
		Long: `Reads Ganeti's file of users of the remote API: lines of name, password and
options. Cleartext passwords and {HA1} hashes become bcrypt hashes; the options read and
write become permissions. All lines are checked first: if one cannot be taken over,
nothing is changed, and each reason is told. A user who is there already is replaced.

The file itself is left as it is. Cleartext passwords in it are still good here.`,
		Example: "  gnt-cluster rapi-user import /var/lib/ganeti/rapi/users",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("read users: %w", err)
			}
			defer clear(text)
			users, problems := rapi.ParseUsers(text)
			if len(problems) > 0 {
				return &exitError{ExitFailed, "Nothing was changed:\n  " + strings.Join(problems, "\n  ")}
			}
			for _, u := range users {
				if err := a.client.call(cmd.Context(), http.MethodPut, userPath(u.Name), wire.UserSet{Permission: u.Permission, Hash: u.Hash.Reveal()}, nil); err != nil {
					return fmt.Errorf("user %s: %w", u.Name, err)
				}
			}
			a.note("%d users were taken over.", len(users))
			return nil
		},
	}
}
