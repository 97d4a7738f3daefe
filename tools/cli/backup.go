package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"rolekey/internal/atomicfile"
	"rolekey/masterd/backup"
	"rolekey/pki"
	"rolekey/rpc"
)

func (a *app) backupCommand() *cobra.Command {
	var recipients []string
	var f keyFlags
	var verify bool
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "backup {FILE|-} --recipient KEY",
		Short: "Write the state of the cluster into one encrypted file",
		Long: `Writes everything that the candidates replicate into one file, encrypted to the
recipients: age or ssh public keys, or @FILE with one on each line. The file has
mode 0600, and appears when it is complete. It holds the CA's private key: keep it,
and what opens it, away from the cluster and from the recovery key.

It works on every candidate that is up to date, also when the voters have no
majority. With --verify the file is read to its end, and what it is is printed.`,
		Example: `  gnt-cluster backup /mnt/cluster.backup --recipient age1qqlongkeyofyours
  gnt-cluster backup - --recipient @/root/recovery.pub | ssh vault 'cat > cluster.backup'
  gnt-cluster backup --verify /mnt/cluster.backup --identity /mnt/age.key`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if verify {
				return a.verifyBackup(args[0], f, cmd.InOrStdin())
			}
			return a.backup(cmd.Context(), args[0], recipients)
		},
	})
	s := cmd.Flags()
	s.StringArrayVar(&recipients, "recipient", nil, "age or ssh public key, or @FILE, to encrypt to (repeatable)")
	s.BoolVar(&verify, "verify", false, "read a backup instead of making one")
	s.StringArrayVar(&f.identities, "identity", nil, "with --verify: file with the age identity or ssh private key that opens it; - for standard input (repeatable)")
	return cmd
}

func (a *app) backup(ctx context.Context, path string, recipients []string) error {
	if len(recipients) == 0 {
		return usage("Give --recipient: who can open the backup is not known otherwise")
	}
	to, err := readRecipients(recipients)
	if err != nil {
		return err
	}
	var about rpc.BackupReply
	receive := func(w io.Writer) error {
		c := rpc.NewLocalClient(func(ctx context.Context) (net.Conn, error) {
			return a.client.dialLocal(ctx, a.client.at.MasterdSock())
		})
		defer c.Close()
		return c.Stream(ctx, http.MethodPost, rpc.LocalBackup, rpc.BackupRequest{Recipients: to}, &about, w)
	}
	if path == "-" {
		err = receive(a.out)
	} else {
		err = writeWhole(path, receive)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		var local *os.PathError
		if !errors.As(err, &local) {
			return a.client.unanswered(ctx, err)
		}
	}
	if err != nil {
		return err
	}
	a.note("Backup of map %s (hash %s), raft index %d.", about.Version, about.Hash, about.Index)
	if !about.Fresh {
		a.note("This candidate has not heard of a master within the lease: the cluster may have gone on without it.")
	}
	return nil
}

// writeWhole makes a file that is complete when its name appears.
func writeWhole(path string, write func(io.Writer) error) (err error) {
	temp := atomicfile.TempName(path)
	if err := atomicfile.Remove(temp); err != nil {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// stdin is where the kernel shows standard input.
const stdin = "/dev/stdin"

func (a *app) verifyBackup(path string, f keyFlags, in io.Reader) error {
	if path == "-" && f.usesStdin() {
		return usage("Standard input can hold one file only")
	}
	ids, err := f.readIdentities(in)
	if err != nil {
		return err
	}
	if path == "-" {
		path = stdin
	}
	b, err := openBackup(path, ids)
	if err != nil {
		return err
	}
	if a.asJSON {
		return a.printJSON(b.Header)
	}
	printItems(a.out, backupItems(b.Header), "")
	return nil
}

func backupItems(h backup.Header) []item {
	return []item{
		{"Cluster", fmt.Sprintf("%s (%s)", h.Name, h.Cluster)},
		{"Made", fmt.Sprintf("%s on %s, by release %s", when(h.Created), h.Node, h.Software)},
		{"Map", fmt.Sprintf("version %s", h.Version)},
		{"Hash", h.Hash.String()},
		{"Raft", fmt.Sprintf("index %d, term %d", h.Index, h.Term)},
		{"Nodes", h.Nodes},
		{"Feature level", h.FeatureLevel},
	}
}

// openBackup reads a backup to its end.
func openBackup(path string, ids []age.Identity) (*backup.Backup, error) {
	if len(ids) == 0 {
		return nil, usage("Give --identity: the file with the key that opens the backup")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	plain, err := pki.DecryptWith(file, ids)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b, err := backup.Read(plain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}
