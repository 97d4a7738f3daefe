package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/backup"
	"rolekey/rpc"
)

// restoreFlags are the flags of gnt-cluster restore.
type restoreFlags struct {
	keyFlags
	node        string
	addresses   []string
	maps        string
	ignoreNewer bool
	noRecovery  bool
	yes         bool
}

func (a *app) restoreCommand() *cobra.Command {
	var f restoreFlags
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "restore FILE --identity FILE --recovery-key FILE",
		Short: "Make this machine the first node of the cluster in a backup",
		Long: `Makes a machine that is in no cluster the first node, and the master, of the
cluster in a backup: the same cluster, CA, name, parameters, tags and nodes, in the
next epoch of the candidate map. Use it when no candidate is left; while one lives,
gnt-cluster recover on it loses less.

The machine takes the place of the node with the name --node-name, whose keys are
then worthless, or is a new node if the backup has none of that name. All other
nodes are regular at first. Those that still have their keys follow by themselves
when they hear of the new map; the others are added again.

What was done after the backup is undone, and a node that was removed since would
be back. So all nodes are asked which map they hold. If one holds a newer map than
the backup, copy /var/lib/rolekey/map from it and give that folder with --maps: who
was removed or demoted by then stays so.

If the cluster has no recovery key, --no-recovery-key restores it all the same, but
no node follows by itself: add each again, or run noded trust HASH on it.

Exit codes: 0 this node is master; 1 failed, and running it again helps; 13 not
confirmed, then noded leave --yes clears what was prepared.`,
		Example: `  gnt-cluster restore /mnt/cluster.backup --identity /mnt/age.key --recovery-key /mnt/recovery.age --node-name node1.example.com
  gnt-cluster restore /mnt/cluster.backup --identity /mnt/age.key --recovery-key /mnt/recovery.age --maps /mnt/map-of-node7`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.restore(cmd.Context(), args[0], f, cmd.InOrStdin())
		},
	})
	f.add(cmd)
	s := cmd.Flags()
	s.StringVar(&f.node, "node-name", "", "which node this machine will be (default: the host's name)")
	s.StringArrayVar(&f.addresses, "address", nil, "this node's address (repeatable; default: from noded.toml)")
	s.StringVar(&f.maps, "maps", "", "copy of /var/lib/rolekey/map of a node that knows more than the backup")
	s.BoolVar(&f.ignoreNewer, "ignore-newer", false, "restore although a node says that it holds a newer map")
	s.BoolVar(&f.noRecovery, "no-recovery-key", false, "the cluster has none; all nodes will be added again")
	s.BoolVar(&f.yes, "yes-do-it", false, "do not ask")
	return cmd
}

func (a *app) restore(ctx context.Context, path string, f restoreFlags, in io.Reader) error {
	switch {
	case f.noRecovery == (len(f.keys) > 0):
		return usage("Give either --recovery-key, or --no-recovery-key if the cluster has none")
	case path == "-" || f.usesStdin() && !f.yes:
		return usage("Standard input can hold one key only, and then nothing can be asked: give --yes-do-it")
	case f.usesStdin() && slices.Contains(f.keys, "-") && slices.Contains(f.identities, "-"):
		return usage("Standard input can hold one file only")
	}
	ids, err := f.readIdentities(in)
	if err != nil {
		return err
	}
	b, err := openBackup(path, ids)
	if err != nil {
		return err
	}
	keys, err := f.openWith(ids, in)
	if err != nil {
		return err
	}
	defer wipe(keys)
	req, err := f.request(b)
	if err != nil {
		return err
	}
	defer clear(req.Backup)
	var plan rpc.RecoverReply
	a.note("Asking the nodes of the backup which map they hold...")
	if err := a.askNoded(ctx, rpc.LocalRestore, req, &plan); err != nil {
		return err
	}
	if plan.Durable {
		a.note("An interrupted restore is completed.")
		return a.recovered(ctx, plan)
	}
	a.printRestore(b, req, plan)
	if req.Signatures, err = signRecovery(plan.Payload, plan.Recovery, keys); err != nil {
		return err
	}
	if !f.yes && !a.confirmed(in, "Is no candidate of the cluster left, and shall what is newer than the backup be lost?") {
		return &exitError{ExitDeclined, "Aborted: the cluster is not restored. noded leave --yes clears what was prepared."}
	}
	req.Payload = plan.Payload
	var done rpc.RecoverReply
	if err := a.askNoded(ctx, rpc.LocalRestore, req, &done); err != nil {
		return err
	}
	return a.recovered(ctx, done)
}

// request says what this machine is to be.
func (f *restoreFlags) request(b *backup.Backup) (req rpc.RestoreRequest, err error) {
	if f.node == "" {
		if f.node, err = os.Hostname(); err != nil {
			return req, fmt.Errorf("find host name: %w", err)
		}
	}
	if req.Name, err = parseName(f.node); err != nil {
		return req, err
	}
	if req.Addresses, err = parseAddresses(f.addresses); err != nil {
		return req, err
	}
	req.Cluster, req.SSHSetup = b.Header.Cluster, b.State.Params.SSHSetup
	req.IgnoreNewer, req.NoRecovery = f.ignoreNewer, f.noRecovery
	var roster *candmap.Roster
	if f.maps != "" {
		if req.Maps, roster, err = readMaps(f.maps); err != nil {
			return req, fmt.Errorf("read maps in %s: %w", f.maps, err)
		}
		for _, d := range roster.Docs() {
			req.Docs = append(req.Docs, d)
		}
	}
	req.Node, req.Incarnation = identityOf(b, roster, req.Name)
	var text bytes.Buffer
	if err := backup.Write(&text, b); err != nil {
		return req, err
	}
	req.Backup = text.Bytes()
	return req, nil
}

// identityOf returns what the named node will be: itself in its next life, or a
// new one.
func identityOf(b *backup.Backup, roster *candmap.Roster, name cluster.Name) (cluster.NodeID, uint64) {
	if roster != nil {
		if n := roster.ByName(name); n != nil {
			return n.UUID, max(n.Incarnation+1, b.State.NextIncarnation(n.UUID))
		}
	}
	if n := b.State.NodeByName(name); n != nil {
		return n.UUID, b.State.NextIncarnation(n.UUID)
	}
	return cluster.NewUUID(), 1
}

// readMaps reads the map folder of a node, or a copy of it.
func readMaps(dir string) ([]candmap.Envelope, *candmap.Roster, error) {
	if _, err := os.Stat(dir); err != nil { // the store would make it
		return nil, nil, err
	}
	store, err := candmap.NewFileStore(dir)
	if err != nil {
		return nil, nil, err
	}
	saved, err := store.Load()
	if err != nil {
		return nil, nil, err
	}
	current, err := candmap.ParseEnvelope(saved.Current)
	if err != nil {
		return nil, nil, err
	}
	newest, err := candmap.Genesis(current, current.Hash())
	if err != nil {
		return nil, nil, err
	}
	roster, err := candmap.AssembleRoster(newest.Roster, func(d cluster.Digest) []byte {
		doc, err := store.Doc(d)
		if err != nil {
			return nil
		}
		return doc
	})
	if err != nil {
		return nil, nil, unsettled(err)
	}
	links := slices.DeleteFunc(saved.Links, func(l candmap.Link) bool { return !l.Authority || !newest.At().Newer(l.At) })
	slices.SortFunc(links, func(x, y candmap.Link) int { return x.At.Compare(y.At) })
	var maps []candmap.Envelope
	for _, l := range links[max(0, len(links)-candmap.MaxChain+1):] {
		env, err := store.Link(l)
		if err != nil {
			return nil, nil, err
		}
		maps = append(maps, env)
	}
	return append(maps, current), roster, nil
}

// unsettled says what to do where documents are missing: a node writes those that
// it could fetch again a moment after the map.
func unsettled(err error) error {
	if cluster.CodeOf(err) != cluster.CodeNotFound {
		return err
	}
	return cluster.Errorf(cluster.CodeNotFound, "%v", err).
		WithHint("the node had not written its newest roster yet when the folder was copied: copy it again. If it stays so, take the folder of another node")
}

// printRestore tells what is about to happen.
func (a *app) printRestore(b *backup.Backup, req rpc.RestoreRequest, plan rpc.RecoverReply) {
	h := b.Header
	a.note("Backup of cluster %s, made %s ago: %s on %s, map %s",
		h.Name, a.now().Sub(h.Created).Round(time.Minute), when(h.Created), h.Node, h.Version)
	as := "a new node"
	if req.Incarnation > 1 {
		as = fmt.Sprintf("itself anew: what machine was %s before is refused from now on", req.Name)
	}
	a.note("This machine will be %s, %s", plan.Node, as)
	a.printRecovery(plan)
	a.note("Nodes that were removed, and roles that were taken, after map %s are back. Compare:", plan.From)
	for _, n := range b.State.SortedNodes() {
		if !slices.Contains(plan.Removed, n.Name) {
			a.note("  %s (%s)", n.Name, n.Flags.Role(b.State.Master == n.UUID))
		}
	}
	if plan.Recovery.Threshold == 0 {
		a.note("The cluster has no recovery key: no node follows by itself. Add each again, or run noded trust HASH on it.")
	}
}
