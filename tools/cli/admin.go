package cli

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

const maxCSR = 64 << 10

func (a *app) adminCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "admin",
		Short: "Manage administrators who use the remote API by certificate",
		Long: `An administrator makes a key and a certificate request on a workstation, and root
of the master has it signed. The gnt commands then work from there, with --rapi,
--cert and --key. The cluster knows the certificate by its digest: a removed
administrator is refused at once, whatever the certificate says.`,
		Example: `  openssl ecparam -name prime256v1 -genkey -noout -out alice.key
  openssl req -new -key alice.key -subj /CN=alice -out alice.csr
  gnt-cluster admin add alice --csr alice.csr >alice.pem`,
	}
	cmd.AddCommand(a.adminAdd(), a.adminRemove(), a.adminList())
	return cmd
}

func (a *app) adminAdd() *cobra.Command {
	var file, permission string
	days := 365
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "add NAME --csr FILE",
		Short: "Sign an administrator's certificate; prints it, and the cluster's CA",
		Long: `Signs the key of a certificate request (PEM, PKCS#10) and prints the certificate,
followed by the CA certificate by which the cluster's own servers are verified. A
certificate that an administrator of that name had before is worthless from then on.`,
		Example: "  gnt-cluster admin add alice --csr alice.csr --permission write >alice.pem",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := cluster.ParsePermission(permission)
			if err != nil {
				return usage("--permission: %v", err)
			}
			csr, err := a.readCSR(file)
			if err != nil {
				return err
			}
			var got wire.AdministratorCert
			if err := a.client.call(cmd.Context(), http.MethodPut, adminPath(args[0]), wire.AdministratorSet{Permission: p, CSR: csr, Days: days}, &got); err != nil {
				return err
			}
			if a.asJSON {
				return a.printJSON(got)
			}
			for _, der := range [][]byte{got.Certificate, got.CA} {
				if err := pem.Encode(a.out, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
					return fmt.Errorf("print certificate: %w", err)
				}
			}
			a.note("%s may %s until %s. The second certificate is the cluster's CA.", got.Name, got.Permission, when(got.NotAfter))
			return nil
		},
	})
	f := cmd.Flags()
	f.StringVar(&file, "csr", "", "the certificate request (-: standard input)")
	f.StringVar(&permission, "permission", string(cluster.PermissionAdmin), "read, write or admin")
	f.IntVar(&days, "days", days, "how long the certificate is good for, at most 1825")
	return cmd
}

func adminPath(name string) string { return "/2/administrators/" + url.PathEscape(name) }

func (a *app) readCSR(file string) ([]byte, error) {
	if file == "" {
		return nil, usage("--csr FILE is missing: the request of the key that is to be signed")
	}
	in := a.input()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read certificate request: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxCSR))
	if err != nil {
		return nil, fmt.Errorf("read certificate request: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
		return nil, usage("%s holds no certificate request: want a PEM block CERTIFICATE REQUEST", file)
	}
	return block.Bytes, nil
}

func (a *app) adminRemove() *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove an administrator, who is refused from then on",
		Example: "  gnt-cluster admin remove alice",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.client.call(cmd.Context(), http.MethodDelete, adminPath(args[0]), nil, nil)
		},
	}
}

func (a *app) adminList() *cobra.Command {
	t := &table[wire.Administrator]{columns: []column[wire.Administrator]{
		{"name", "Name", func(d wire.Administrator) any { return d.Name }, nil},
		{"permission", "Permission", func(d wire.Administrator) any { return d.Permission }, nil},
		{"not_after", "Ends", func(d wire.Administrator) any { return d.NotAfter }, func(d wire.Administrator) string { return when(d.NotAfter) }},
		{"digest", "Digest", func(d wire.Administrator) any { return d.Digest }, func(d wire.Administrator) string { return d.Digest.Short() }},
		{"changed", "Changed", func(d wire.Administrator) any { return d.Changed }, func(d wire.Administrator) string { return when(d.Changed) }},
	}}
	t.defaults, t.object = []string{"name", "permission", "not_after", "digest"}, t.names()
	cmd := a.jsonFlag(&cobra.Command{
		Use:     "list",
		Short:   "List the administrators",
		Example: "  gnt-cluster admin list",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []wire.Administrator
			if err := a.client.get(cmd.Context(), "/2/administrators", &list); err != nil {
				return err
			}
			return t.print(a, list)
		},
	})
	t.flags(cmd)
	return cmd
}
