package paths

import "testing"

func TestLayout(t *testing.T) {
	cases := []struct {
		root string
		get  func(Layout) string
		want string
	}{
		{"", Layout.NodedConfig, "/etc/rolekey/noded.toml"},
		{"", Layout.MasterdConfig, "/etc/rolekey/masterd.toml"},
		{"", Layout.CACert, "/var/lib/rolekey/node/ca.pem"},
		{"", Layout.ServerCert, "/var/lib/rolekey/node/server.pem"},
		{"", Layout.ServerKey, "/var/lib/rolekey/node/server.key"},
		{"", Layout.IdentityCert, "/var/lib/rolekey/node/node.pem"},
		{"", Layout.IdentityKey, "/var/lib/rolekey/node/node.key"},
		{"", Layout.CurrentMap, "/var/lib/rolekey/map/current.json"},
		{"", Layout.RosterDir, "/var/lib/rolekey/map/roster"},
		{"", Layout.EvidenceDir, "/var/lib/rolekey/map/evidence"},
		{"", Layout.SSHKey, "/var/lib/rolekey/ssh/id"},
		{"", Layout.SSHPublicKey, "/var/lib/rolekey/ssh/id.pub"},
		{"", Layout.CandidateCert, "/var/lib/rolekey/masterd/candidate.pem"},
		{"", Layout.CandidateKey, "/var/lib/rolekey/masterd/candidate.key"},
		{"", Layout.SigningKey, "/var/lib/rolekey/masterd/signing.key"},
		{"", Layout.Keyring, "/var/lib/rolekey/masterd/keyring"},
		{"", Layout.RaftDB, "/var/lib/rolekey/masterd/raft.db"},
		{"", Layout.SnapshotDir, "/var/lib/rolekey/masterd/snapshots"},
		{"", Layout.NodedAudit, "/var/log/rolekey/noded-audit.log"},
		{"", Layout.MasterdAudit, "/var/log/rolekey/masterd-audit.log"},
		{"", Layout.NodedSock, "/run/rolekey/noded.sock"},
		{"", Layout.MasterdSock, "/run/rolekey/masterd.sock"},
		{"", Layout.SSHDropIn, "/etc/ssh/ssh_config.d/50-rolekey.conf"},
		{"", Layout.SSHDDropIn, "/etc/ssh/sshd_config.d/50-rolekey.conf"},
		{"", Layout.RootHome, "/root"},
		{"/", Layout.NodedSock, "/run/rolekey/noded.sock"},
		{"/srv/a b", Layout.NodedSock, "/srv/a b/run/rolekey/noded.sock"},
		{"/srv/x/", Layout.RootHome, "/srv/x/root"},
		{"/srv/x/", func(l Layout) string { return l.SSConf("master_node") }, "/srv/x/var/lib/rolekey/ssconf_master_node"},
	}
	for _, c := range cases {
		if got := c.get(Layout{c.root}); got != c.want {
			t.Errorf("root %q: %s, want %s", c.root, got, c.want)
		}
	}
}
