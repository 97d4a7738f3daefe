package cli

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
)

// recoverFlags are the flags of gnt-cluster recover.
type recoverFlags struct {
	keyFlags
	dryRun, yes bool
}

// keyFlags say where recovery keys are, and what opens them.
type keyFlags struct {
	keys, identities []string
}

func (f *keyFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringArrayVar(&f.keys, "recovery-key", nil, "file with a recovery key, as init wrote it or decrypted with age -d; - for standard input (repeatable)")
	s.StringArrayVar(&f.identities, "identity", nil, "file with the age identity or ssh private key that opens encrypted files; - for standard input (repeatable)")
}

func (a *app) recoverCommand() *cobra.Command {
	var f recoverFlags
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "recover --recovery-key FILE --identity FILE",
		Short: "Go on with this candidate alone, when the voters are lost",
		Long: `Makes the cluster go on when a majority of its voters is lost for good: with
this master candidate alone as master, in the next epoch of the candidate map.
Whatever the lost voters do if they come back, nobody who heard of the new epoch
obeys them. Run it on one node only, as root: two nodes that do not reach one
another would make two clusters of one.

The command asks all nodes that answer for the newest candidate map; what the
state on this node lacks, it takes from there. It says what will happen, and asks.
Candidates that return become regular nodes, and are then promoted again by
ordinary jobs, with new keys. Jobs that had not ended end with an error.

The recovery keys stay in this process: the daemons get their signatures only.
If the identity needs a passphrase or a plugin, decrypt the key with age:
  age -d -i IDENTITY FILE | gnt-cluster recover --recovery-key - --yes-do-it

A node that hears of the recovery only after 30 days needs noded trust HASH.

Exit codes: 0 this node is master; 1 failed, and running it again helps; 5 this
machine is in no cluster; 13 not confirmed.`,
		Example: `  gnt-cluster recover --dry-run
  gnt-cluster recover --recovery-key /mnt/recovery.age --identity /mnt/age.key
  gnt-cluster recover --recovery-key /mnt/recovery.age --identity ~/.ssh/id_ed25519 --yes-do-it`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.recover(cmd.Context(), f, cmd.InOrStdin())
		},
	})
	f.add(cmd)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only say what would happen; needs no key")
	cmd.Flags().BoolVar(&f.yes, "yes-do-it", false, "do not ask")
	return cmd
}

func (a *app) recover(ctx context.Context, f recoverFlags, in io.Reader) error {
	if !f.dryRun && len(f.keys) == 0 {
		return usage("Give --recovery-key, the file that gnt-cluster init wrote, or --dry-run")
	}
	if f.usesStdin() && !f.yes {
		return usage("Standard input holds a key, so nothing can be asked: give --yes-do-it")
	}
	keys, err := f.open(in)
	if err != nil {
		return err
	}
	defer wipe(keys)
	a.note("Asking all nodes for the newest candidate map...")
	var plan rpc.RecoverReply
	if err := a.askNoded(ctx, rpc.LocalRecover, rpc.RecoverRequest{DryRun: f.dryRun}, &plan); err != nil {
		return err
	}
	if plan.Durable {
		a.note("An interrupted recovery is completed: map %s is in force.", plan.Version)
		return a.recovered(ctx, plan)
	}
	a.printRecovery(plan)
	if f.dryRun {
		if a.asJSON {
			return a.printJSON(plan)
		}
		return nil
	}
	sigs, err := signRecovery(plan.Payload, plan.Recovery, keys)
	if err != nil {
		return err
	}
	if !f.yes && !a.confirmed(in, "Is the majority lost for good, and is nobody recovering the cluster on another node?") {
		return &exitError{ExitDeclined, "Aborted: nothing was changed."}
	}
	var done rpc.RecoverReply
	if err := a.askNoded(ctx, rpc.LocalRecover, rpc.RecoverRequest{Payload: plan.Payload, Signatures: sigs}, &done); err != nil {
		return err
	}
	return a.recovered(ctx, done)
}

// recovered waits until this node is master.
func (a *app) recovered(ctx context.Context, r rpc.RecoverReply) error {
	for _, p := range r.Problems {
		a.note("problem: %s", p)
	}
	if err := a.awaitReady(ctx); err != nil {
		return err
	}
	if a.asJSON {
		return a.printJSON(r)
	}
	a.note("The cluster goes on: %s is its master, by map %s with hash\n%s", r.Node, r.Version, r.Hash)
	return nil
}

// printRecovery tells what is about to happen.
func (a *app) printRecovery(r rpc.RecoverReply) {
	a.note("Newest map found:  version %s, hash %s", r.From, r.FromHash)
	a.note("Map that follows:  version %s, with %s as its only candidate, voter and master", r.Version, r.Node)
	reached := 0
	for _, n := range r.Nodes {
		vote := ""
		if n.Voter {
			vote = ", votes"
		}
		switch {
		case n.Version.IsZero():
			a.note("  %s (%s%s): not reached: %s", n.Name, n.Role, vote, n.Problem)
		case n.Problem != "":
			a.note("  %s (%s%s): holds map %s; %s", n.Name, n.Role, vote, n.Version, n.Problem)
		default:
			reached++
			a.note("  %s (%s%s): holds map %s", n.Name, n.Role, vote, n.Version)
		}
	}
	a.note("%d of %d other nodes were reached. The others follow when they hear of the new map;", reached, len(r.Nodes))
	a.note("until their leases end, they obey the master that they know.")
	if r.Behind {
		a.note("This node's state is older than that map: what the map and its roster do not say, such as tags, is of then.")
	}
	a.listNames("Removed, because the newest roster does not have them:", r.Removed)
	a.listNames("Regular for now, and promoted again when they are in touch:", r.Again)
	if r.Jobs > 0 {
		a.note("%d jobs end with the error \"interrupted by recovery\".", r.Jobs)
	}
	if r.Strings > 0 {
		a.note("%d admission strings that were not used yet, as far as is known, are revoked.", r.Strings)
	}
}

func (a *app) listNames(what string, names []cluster.Name) {
	if len(names) > 0 {
		a.note("%s %s", what, strings.Join(toStrings(names), ", "))
	}
}

// confirmed asks. No answer is no.
func (a *app) confirmed(in io.Reader, question string) bool {
	fmt.Fprintf(a.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(io.LimitReader(in, 16)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return slices.Contains([]string{"y", "yes"}, strings.ToLower(strings.TrimSpace(answer)))
}

// askNoded makes a call to the node daemon of this machine.
func (a *app) askNoded(ctx context.Context, path string, req, reply any) error {
	node := a.client.noded()
	defer node.Close()
	err := node.Do(ctx, http.MethodPost, path, req, reply)
	switch {
	case errors.Is(err, os.ErrPermission):
		return mustBeRoot()
	case errors.Is(err, os.ErrNotExist):
		return &exitError{ExitFailed, "Cannot communicate with the node daemon.\nIs the process running and listening for connections?"}
	}
	return err
}

func (f *keyFlags) usesStdin() bool {
	return slices.Contains(f.keys, "-") || slices.Contains(f.identities, "-")
}

// maxKeyFile bounds a file with a key.
const maxKeyFile = 64 << 10

// open reads the recovery keys. The caller wipes them.
func (f *keyFlags) open(in io.Reader) ([]ed25519.PrivateKey, error) {
	if n := len(slices.DeleteFunc(slices.Concat(f.keys, f.identities), func(s string) bool { return s != "-" })); n > 1 {
		return nil, usage("Standard input can hold one file only")
	}
	ids, err := f.readIdentities(in)
	if err != nil {
		return nil, err
	}
	return f.openWith(ids, in)
}

func (f *keyFlags) openWith(ids []age.Identity, in io.Reader) ([]ed25519.PrivateKey, error) {
	var keys []ed25519.PrivateKey
	for _, path := range f.keys {
		text, err := readKeyFile(path, in)
		if err != nil {
			return keys, err
		}
		key, err := pki.OpenRecovery(text, ids)
		clear(text)
		if err != nil {
			wipe(keys)
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func (f *keyFlags) readIdentities(in io.Reader) ([]age.Identity, error) {
	var ids []age.Identity
	for _, path := range f.identities {
		text, err := readKeyFile(path, in)
		if err != nil {
			return nil, err
		}
		more, err := pki.ParseIdentities(text)
		clear(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		ids = append(ids, more...)
	}
	return ids, nil
}

func readKeyFile(path string, in io.Reader) ([]byte, error) {
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, maxKeyFile+1))
	if err == nil && len(text) > maxKeyFile {
		err = fmt.Errorf("it is larger than %d bytes", maxKeyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return text, nil
}

func wipe(keys []ed25519.PrivateKey) {
	for _, k := range keys {
		clear(k)
	}
}

// signRecovery signs with every key of the cluster's, and says if they are too
// few.
func signRecovery(payload []byte, want candmap.Recovery, keys []ed25519.PrivateKey) ([]candmap.Signature, error) {
	var sigs []candmap.Signature
	for _, k := range keys {
		public, _ := k.Public().(ed25519.PublicKey)
		if !slices.ContainsFunc(want.Keys, func(w candmap.SigningKey) bool { return public.Equal(w.Public()) }) {
			return nil, cluster.Errorf(cluster.CodeBadFormat, "a recovery key that was given is not one of this cluster's")
		}
		sig, err := candmap.Sign(k, candmap.MapType, payload)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(sigs, func(s candmap.Signature) bool { return s.KeyID == sig.KeyID }) {
			sigs = append(sigs, sig)
		}
	}
	if len(sigs) < int(want.Threshold) {
		return nil, cluster.Errorf(cluster.CodeBadFormat, "%d recovery keys are given, and %d must sign", len(sigs), want.Threshold)
	}
	return sigs, nil
}
