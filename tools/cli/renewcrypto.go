package cli

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"rolekey/masterd/rapi/wire"
)

// renewFlags are the flags of gnt-cluster renew-crypto.
type renewFlags struct {
	wire.Renew
	submission
	all, force, verbose   bool
	kind                  string
	bits                  int
	certFile, keyFile     string
	status, abort, resume bool
	foreign               map[string]*bool // Ganeti's, of what is not here
}

// notHere are options of Ganeti that mean something else here, and what does
// their work.
var notHere = map[string]string{
	"new-confd-hmac-key":        "there is no confd; the key that all nodes share is the gossip key: --new-gossip-key",
	"new-cluster-domain-secret": "no secret is shared with other clusters; what proves who decides are the signing keys: --new-signing-keys",
	"new-spice-certificate":     "Rolekey runs no virtual machines",
	"no-ssh-key-check":          "host keys are those of the roster, and always checked",
}

func (a *app) renewCommand() *cobra.Command {
	f := renewFlags{foreign: map[string]*bool{}}
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "renew-crypto",
		Short: "Replace keys and certificates while everything goes on",
		Long: `Replaces keys and certificates. Nothing stops: what is new is made, then known to
all nodes beside the old, then used, and then alone. Nodes that do not answer are
not waited for: they catch up when they return.

The job goes on under the next master if this one dies. --status shows the newest
renewal, --resume waits for it, and --abort has it go back to what was; what is
used already is not taken back.`,
		Example: `  gnt-cluster renew-crypto --new-ssh-keys --ssh-key-type=ed25519
  gnt-cluster renew-crypto --new-node-certificates --node node3.example.org
  gnt-cluster renew-crypto --rapi-certificate /root/rapi.pem
  gnt-cluster renew-crypto --all --dry-run
  gnt-cluster renew-crypto --status`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.renewCrypto(cmd, &f) },
	})
	f.add(cmd)
	return cmd
}

func (f *renewFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.BoolVar(&f.ClusterCertificate, "new-cluster-certificate", false, "a new certificate authority, and by it all certificates")
	s.BoolVar(&f.NodeCertificates, "new-node-certificates", false, "new certificates of the nodes, with new keys")
	s.BoolVar(&f.SSHKeys, "new-ssh-keys", false, "new SSH keys of the master candidates")
	s.StringVar(&f.kind, "ssh-key-type", "", "with these: their type: ed25519, ecdsa or rsa")
	s.IntVar(&f.bits, "ssh-key-bits", 0, "with these: their bits")
	s.BoolVar(&f.RAPICertificate, "new-rapi-certificate", false, "new certificates of the remote API, issued by the cluster")
	s.StringVar(&f.certFile, "rapi-certificate", "", "install your own certificate for the remote API: a PEM file with its chain and key")
	s.StringVar(&f.keyFile, "rapi-key", "", "the key of that certificate, if it is in a file of its own")
	s.BoolVar(&f.GossipKey, "new-gossip-key", false, "a new key that encrypts gossip")
	s.BoolVar(&f.SigningKeys, "new-signing-keys", false, "new keys by which voters sign candidate maps")
	s.BoolVar(&f.all, "all", false, "all of these")
	s.StringVar(&f.Node, "node", "", "for this node only")
	s.BoolVarP(&f.force, "force", "f", false, "do not ask")
	s.BoolVarP(&f.verbose, "verbose", "v", false, "say what is to be replaced")
	s.BoolVar(&f.status, "status", false, "show the newest renewal")
	s.BoolVar(&f.abort, "abort", false, "have the renewal that runs go back to what was")
	s.BoolVar(&f.resume, "resume", false, "wait for the renewal that runs, which goes on by itself")
	for name := range notHere {
		f.foreign[name] = new(bool)
		s.BoolVar(f.foreign[name], name, false, "")
		_ = s.MarkHidden(name) // it exists
	}
	f.flags(cmd)
}

func (a *app) renewCrypto(cmd *cobra.Command, f *renewFlags) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	switch {
	case f.status:
		return a.renewStatus(cmd.Context())
	case f.abort:
		return a.renewAbort(cmd.Context())
	case f.resume:
		return a.renewResume(cmd.Context())
	}
	own, err := a.ownRAPICertificate(f)
	if err != nil {
		return err
	}
	if err := a.confirmRenewal(f); err != nil {
		return err
	}
	return a.renewNow(cmd.Context(), f, own)
}

// check refuses what does not go together, and fills in what flags imply.
func (f *renewFlags) check(cmd *cobra.Command) error {
	for name, given := range f.foreign {
		if *given {
			return usage("--%s: %s", name, notHere[name])
		}
	}
	modes := 0
	for _, mode := range []bool{f.status, f.abort, f.resume} {
		if mode {
			modes++
		}
	}
	given := cmd.Flags().Changed
	switch asked := f.Any() || f.all || f.certFile != ""; {
	case modes > 1 || modes == 1 && asked:
		return usage("--status, --abort and --resume are about the renewal that there is; give one of them, alone")
	case modes == 1:
		return nil
	case f.RAPICertificate && f.certFile != "":
		return usage("Only one of the --new-rapi-certificate and --rapi-certificate options can be specified at the same time.")
	case f.keyFile != "" && f.certFile == "":
		return usage("--rapi-key goes with --rapi-certificate")
	case f.all && f.Node != "":
		return usage("--all is about the whole cluster; with --node say what is to be renewed")
	case f.certFile != "" && f.Node != "":
		return usage("--rapi-certificate is for all nodes")
	case !asked:
		return usage("Please say what is to be renewed, or --all; see '%s --help'", cmd.CommandPath())
	}
	if f.all {
		f.Renew = wire.Renew{ClusterCertificate: true, SigningKeys: true, GossipKey: true, SSHKeys: true, RAPICertificate: f.certFile == ""}
	}
	if !f.SSHKeys && (given("ssh-key-type") || given("ssh-key-bits")) {
		return usage("--ssh-key-type and --ssh-key-bits go with --new-ssh-keys")
	}
	var m wire.ClusterModify
	ssh := sshFlags{kind: f.kind, bits: f.bits}
	if err := ssh.into(func(name string) bool { return (name == "ssh-key-type" || name == "ssh-key-bits") && given(name) }, &m); err != nil {
		return err
	}
	f.SSHKeyType, f.SSHKeyBits = m.SSHKeyType, m.SSHKeyBits
	return nil
}

// confirmRenewal asks about what others have to follow: nothing stops, but
// clients of the remote API know the cluster by what is replaced.
func (a *app) confirmRenewal(f *renewFlags) error {
	if f.force || f.dryRun {
		return nil
	}
	switch {
	case f.ClusterCertificate:
		return a.confirm("Clients of the remote API that verify it by the cluster's CA certificate will need the new one.\nNothing stops meanwhile. Continue?")
	case f.RAPICertificate:
		return a.confirm("Clients of the remote API that know its certificate will need the new one, and a certificate\nof your own is forgotten. Nothing stops meanwhile. Continue?")
	}
	return nil
}

// renewed is the JSON of gnt-cluster renew-crypto.
type renewed struct {
	Job         *int64             `json:"job"` // null: none was needed
	Own         bool               `json:"rapi_certificate_installed"`
	Unreachable []wire.Unreachable `json:"unreachable"`
}

func (a *app) renewNow(ctx context.Context, f *renewFlags, own *wire.RAPICertificate) error {
	a.note(`Updating certificates now. Running "gnt-cluster verify"  is recommended after this operation.`)
	if f.verbose {
		for _, part := range f.parts() {
			a.note("To be replaced: %s", part)
		}
	}
	out := renewed{Own: own != nil && !f.dryRun, Unreachable: []wire.Unreachable{}}
	switch {
	case own != nil && f.dryRun:
		a.note("Dry run: would install the certificate of %s for the remote API", f.certFile)
	case own != nil:
		if err := a.client.call(ctx, http.MethodPut, "/2/rapi-certificate", own, nil); err != nil {
			return err
		}
		a.note("The certificate of %s is installed for the remote API, on all master candidates.", f.certFile)
	}
	if f.Any() {
		id, state, ok, err := a.change(ctx, f.submission, http.MethodPut, "/2/renew-crypto", f.Renew)
		if !ok {
			return err
		}
		out.Job, out.Unreachable = &id, state.unreachable
	}
	if a.asJSON {
		if err := a.printJSON(out); err != nil {
			return err
		}
	}
	if !f.dryRun {
		a.note("All requested certificates and keys have been replaced.")
	}
	return a.pending(out.Unreachable)
}

// parts names what is to be replaced.
func (f *renewFlags) parts() []string {
	var out []string
	for _, p := range []struct {
		asked bool
		what  string
	}{
		{f.ClusterCertificate, "the cluster's CA, and all certificates by it"},
		{f.NodeCertificates && !f.ClusterCertificate, "certificates of nodes"},
		{f.SigningKeys, "signing keys"},
		{f.GossipKey, "the gossip key"},
		{f.SSHKeys, "SSH keys"},
		{f.RAPICertificate, "certificates of the remote API"},
	} {
		if p.asked {
			out = append(out, p.what)
		}
	}
	return out
}
