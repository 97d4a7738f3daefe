package cli

import (
	"cmp"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/rpc"
)

// sshFlags say which SSH keys the candidates have, and where.
type sshFlags struct {
	mode, kind, storage string
	bits                int
}

func (f *sshFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.mode, "ssh-key-mode", "", "SSH keys of the candidates: per-candidate, each has its own, or shared, one for all")
	s.StringVar(&f.kind, "ssh-key-type", "", "type of the candidates' SSH keys: ed25519, ecdsa or rsa")
	s.IntVar(&f.bits, "ssh-key-bits", 0, "bits of the candidates' SSH keys: 256, 384 or 521 of ecdsa, 3072 to 8192 of rsa")
	s.StringVar(&f.storage, "ssh-key-storage", "", "where a candidate keeps the private half: file, or agent, noded's memory alone")
}

// into puts the flags that were given into a request.
func (f *sshFlags) into(given func(string) bool, m *wire.ClusterModify) error {
	if given("ssh-key-type") || given("ssh-key-bits") {
		if given("ssh-key-type") {
			if _, err := cluster.ParseSSHKeySpec(f.kind, f.bits); err != nil {
				return usage("%v", err)
			}
			m.SSHKeyType = &f.kind
		}
		if given("ssh-key-bits") {
			m.SSHKeyBits = &f.bits
		}
	}
	if given("ssh-key-mode") {
		mode, err := cluster.ParseSSHKeyMode(f.mode)
		if err != nil {
			return usage("%v", err)
		}
		m.SSHKeyMode = &mode
	}
	if given("ssh-key-storage") {
		storage, err := cluster.ParseSSHKeyStorage(f.storage)
		if err != nil {
			return usage("%v", err)
		}
		m.SSHKeyStorage = &storage
	}
	return nil
}

// found puts the flags that were given into the request for a new cluster.
func (f *sshFlags) found(req *rpc.InitRequest) error {
	if f.kind != "" || f.bits != 0 {
		spec, err := cluster.ParseSSHKeySpec(cmp.Or(f.kind, cluster.DefaultSSHKey.Type), f.bits)
		if err != nil {
			return usage("%v", err)
		}
		req.SSHKeyType, req.SSHKeyBits = spec.Type, spec.Bits
	}
	req.SSHKeyMode, req.SSHKeyStorage = cluster.SSHKeyMode(f.mode), cluster.SSHKeyStorage(f.storage)
	if err := req.SSHSettings().Check(); err != nil {
		return usage("%v", err)
	}
	return nil
}
