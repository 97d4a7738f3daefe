package verify

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/roles"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

func TestCleanClusterPasses(t *testing.T) {
	f := newField(t)
	ok, bad := f.run()
	if !ok || len(bad) > 0 {
		t.Errorf("verdict %t, %q", ok, bad)
	}
	want := []string{
		"* Verifying cluster config", "* Verifying cluster certificate files", "* Gathering data (5 nodes)",
		"* Verifying configuration file consistency", "* Verifying voters",
		"  - NOTICE: one node alone votes: if it is lost, only the recovery key makes another one master.", "* Verifying node status",
		"* Verifying ssh logins", "* Verifying refusals", "NOTICE: probes", "* Other Notes",
		"  - NOTICE: 1 offline node(s) found.", "  - NOTICE: 1 drained node(s) found.",
		"  - NOTICE: the SSH key of every master candidate opens every node (ssh_reach=candidates).",
		"* Summary", "  No errors. 5 nodes answered; 12 logins worked that must; 23 calls and 4 logins were refused that must be.",
	}
	for i, line := range f.lines {
		if strings.HasPrefix(line, "  - NOTICE: 23 calls and 4 logins were refused, as they must be; nodes' audit logs show the calls with request id ") {
			f.lines[i] = "NOTICE: probes"
		}
	}
	if !slices.Equal(f.lines, want) {
		t.Errorf("report %q", f.lines)
	}
}

// TestG5FaultsAreFound injects one fault each and expects its lines, and no others.
func TestG5FaultsAreFound(t *testing.T) {
	const (
		n2 = "node2.lab.test"
		n4 = "node4.lab.test"
	)
	stranger := statetest.SSHKey(66, "stranger")
	for _, c := range []struct {
		name  string
		spoil func(f *field)
		want  []string
	}{
		{
			"no answer", func(f *field) { f.errs[statetest.ID(4)] = errors.New("no route to host") },
			[]string{"ERROR:ENODERPC:node:" + n4 + ":while contacting node: no route to host"},
		},
		{
			"never an answer", func(f *field) { delete(f.answers, statetest.ID(4)) },
			[]string{"ERROR:ENODERPC:node:" + n4 + ":while contacting node: context deadline exceeded"},
		},
		{
			"refuses since it is stale", func(f *field) {
				f.errs[statetest.ID(4)] = cluster.Errorf(cluster.CodeMapStale, "the candidate map is stale here")
			},
			[]string{"ERROR:ENODEMAP:node:" + n4 + ":its candidate map is stale: it has heard no beacon in time"},
		},
		{
			"no map", func(f *field) {
				f.errs[statetest.ID(4)] = cluster.Errorf(cluster.CodeNoMap, "the saved map is damaged")
			},
			[]string{"ERROR:ENODEMAP:node:" + n4 + ":holds no candidate map, and so serves nobody: the saved map is damaged"},
		},
		{
			"older map", func(f *field) { f.at(4).Version = cluster.Version{Epoch: 1, Version: 2} },
			[]string{"ERROR:ENODEMAP:node:" + n4 + ":enforces candidate map 1.2 instead of HEAD"},
		},
		{
			"another map of this version", func(f *field) { f.at(4).Hash = cluster.Digest{1} },
			[]string{"ERROR:ENODEMAP:node:" + n4 + ":enforces another candidate map HEAD: hash 010000000000 instead of HASH"},
		},
		{
			"older roster", func(f *field) { f.at(4).Roster = cluster.Digest{1} },
			[]string{"ERROR:ENODEMAP:node:" + n4 + ":uses an older roster than map HEAD names"},
		},
		{
			"other lease", func(f *field) { f.at(4).LeaseSeconds = 7 },
			[]string{"ERROR:ENODEMAP:node:" + n4 + ":has lease 7 s and policy strict instead of 120 s and strict"},
		},
		{
			"other policy", func(f *field) { f.at(4).Policy = cluster.PolicyBestEffort },
			[]string{"ERROR:ENODEMAP:node:" + n4 + ":has lease 120 s and policy best_effort instead of 120 s and strict"},
		},
		{
			"stale", func(f *field) { f.at(4).Fresh = false },
			[]string{"ERROR:ENODEMAP:node:" + n4 + ":its candidate map is stale: it has heard no beacon in time"},
		},
		{
			"forks", func(f *field) { f.at(4).Forks = 2 },
			[]string{"ERROR:ENODEMAP:node:" + n4 + ":holds evidence of 2 signed map(s) that contradict another of the same version: signing keys were misused or a voter's disk was copied"},
		},
		{
			"clock ahead", func(f *field) { f.at(4).Time = f.lab.Now.Add(maxSkew + time.Second) },
			[]string{"ERROR:ENODETIME:node:" + n4 + ":Node time diverges by at least 3.0s from master node time"},
		},
		{
			"clock behind", func(f *field) { f.at(4).Time = f.lab.Now.Add(-maxSkew - time.Second) },
			[]string{"ERROR:ENODETIME:node:" + n4 + ":Node time diverges by at least 3.0s from master node time"},
		},
		{"clock within bounds", func(f *field) { f.at(4).Time = f.lab.Now.Add(maxSkew) }, nil},
		{
			"foreign server certificate", func(f *field) { f.at(4).Server = cluster.Digest{1} },
			[]string{"ERROR:ECLUSTERCERT:node:" + n4 + ":uses a server or identity certificate that the roster does not pin"},
		},
		{
			"foreign identity certificate", func(f *field) { f.at(4).Identity = cluster.Digest{1} },
			[]string{"ERROR:ECLUSTERCERT:node:" + n4 + ":uses a server or identity certificate that the roster does not pin"},
		},
		{
			"certificate ends soon", func(f *field) { f.at(4).ServerEnds = f.lab.Now.Add(certError + time.Hour) },
			[]string{"WARNING:ECLUSTERCERT:node:" + n4 + ":its server certificate ends ENDS8"},
		},
		{
			"certificate ends very soon", func(f *field) { f.at(4).IdentityEnds = f.lab.Now.Add(certError - time.Hour) },
			[]string{"ERROR:ECLUSTERCERT:node:" + n4 + ":its identity certificate ends ENDS6"},
		},
		{
			"client certificate not in the map", func(f *field) { f.at(2).Client = []cluster.Digest{{1}} },
			[]string{"ERROR:ECLUSTERCLIENTCERT:node:" + n2 + ":Client certificate digest of master candidate '" + n2 + "' does not match its entry in the candidate map. Expected: CLIENT2"},
		},
		{
			"masterd of a candidate does not tell", func(f *field) {
				f.at(2).Client = nil
				f.voting = func(v *roles.View) { v.Reachable = func(id cluster.NodeID) bool { return id != statetest.ID(2) } }
			},
			[]string{"ERROR:ECLUSTERCFG:node:" + n2 + ":Its master daemon does not answer noded there"},
		},
		{
			"a candidate is not heard", func(f *field) {
				f.voting = func(v *roles.View) { v.Reachable = func(id cluster.NodeID) bool { return id != statetest.ID(2) } }
			},
			[]string{"WARNING:ECLUSTERCFG:node:" + n2 + ":its master daemon has not answered lately"},
		},
		{
			"client certificate of another candidate on a normal node", func(f *field) { f.at(4).Client = f.node(2).Keys.Client },
			[]string{"ERROR:ECLUSTERCLIENTCERT:node:" + n4 + ":Node '" + n4 + "' is not a master candidate and is incorrectly using a certificate of another node which is master candidate " + n2 + "."},
		},
		{
			"client certificate of another candidate on a candidate", func(f *field) { f.at(3).Client = append(slices.Clone(f.node(3).Keys.Client), f.node(2).Keys.Client...) },
			[]string{"ERROR:ECLUSTERCLIENTCERT:node:node3.lab.test:Master candidate 'node3.lab.test' is using a certificate of another node which is master candidate " + n2 + "."},
		},
		{
			"client certificate of another candidate instead of its own", func(f *field) { f.at(2).Client = f.node(3).Keys.Client },
			[]string{"ERROR:ECLUSTERCLIENTCERT:node:" + n2 + ":Master candidate '" + n2 + "' is using a certificate of another node which is master candidate node3.lab.test."},
		},
		{
			"one strange client certificate on two nodes", func(f *field) { f.at(4).Client, f.at(6).Client = []cluster.Digest{{9}}, []cluster.Digest{{9}} },
			[]string{"ERROR:ECLUSTERCLIENTCERT:node:node6.lab.test:uses the same candidate certificate as node " + n4},
		},
		{
			"a candidate has lost all its keys", func(f *field) { f.at(2).MasterKeys, f.at(2).Client = false, nil },
			[]string{"ERROR:ENODEKEY:node:" + n2 + ":Master candidate '" + n2 + "' holds no candidate keys"},
		},
		{
			"candidate keys on a normal node, file by file", func(f *field) { f.at(4).MasterKeys, f.at(4).KeyFiles = true, []string{"/x/signing.key"} },
			[]string{"ERROR:ENODEKEY:node:" + n4 + ":Node '" + n4 + "' is not a master candidate, but these key files lie on it: /x/signing.key"},
		},
		{
			"another node answers", func(f *field) {
				f.errs[statetest.ID(4)] = cluster.Errorf(cluster.CodeIdentityMismatch, "the server's key is not the one in the roster")
			},
			[]string{"ERROR:ENODERPC:node:" + n4 + ":while contacting node: the server's key is not the one in the roster"},
		},
		{
			"a node that claims the certificates of all candidates", func(f *field) {
				f.at(6).Client = slices.Concat(f.node(3).Keys.Client, f.node(1).Keys.Client, f.node(2).Keys.Client)
				f.at(3).Client = slices.Concat(f.node(3).Keys.Client, []cluster.Digest{{7}}) // of its next one
				f.at(4).Client = []cluster.Digest{{7}}
			},
			[]string{
				"ERROR:ECLUSTERCLIENTCERT:node:" + n4 + ":uses the same candidate certificate as node node3.lab.test",
				"ERROR:ECLUSTERCLIENTCERT:node:node6.lab.test:Node 'node6.lab.test' is not a master candidate and is incorrectly using a certificate of another node which is master candidate node3.lab.test.",
				"ERROR:ECLUSTERCLIENTCERT:node:node6.lab.test:Node 'node6.lab.test' is not a master candidate and is incorrectly using a certificate of another node which is master candidate node1.lab.test.",
				"ERROR:ECLUSTERCLIENTCERT:node:node6.lab.test:Node 'node6.lab.test' is not a master candidate and is incorrectly using a certificate of another node which is master candidate " + n2 + ".",
			},
		},
		{
			"candidate keys on a normal node", func(f *field) { f.at(4).MasterKeys = true },
			[]string{"ERROR:ENODEKEY:node:" + n4 + ":Node '" + n4 + "' is not a master candidate, but holds candidate keys"},
		},
		{
			"no candidate keys on a candidate", func(f *field) { f.at(2).MasterKeys = false },
			[]string{"ERROR:ENODEKEY:node:" + n2 + ":Master candidate '" + n2 + "' holds no candidate keys"},
		},
		{
			"files of the role on a normal node", func(f *field) { f.at(4).KeyFiles = []string{"/x/id", "/x/signing.key"} },
			[]string{"ERROR:ENODEKEY:node:" + n4 + ":Node '" + n4 + "' is not a master candidate, but these key files lie on it: /x/id, /x/signing.key"},
		},
		{
			"SSH key files on a normal node", func(f *field) { f.at(4).PrivateKey, f.at(4).KeyFiles = true, []string{"/x/id"} },
			[]string{"ERROR:ENODEKEY:node:" + n4 + ":Node '" + n4 + "' is not a master candidate, but these key files lie on it: /x/id"},
		},
		{
			"private key on a normal node", func(f *field) { f.at(4).PrivateKey = true },
			[]string{"ERROR:ENODEKEY:node:" + n4 + ":Node '" + n4 + "' is not a master candidate, but root's private cluster key lies on it"},
		},
		{
			"private key on a drained node", func(f *field) { f.at(6).PrivateKey = true },
			[]string{"ERROR:ENODEKEY:node:node6.lab.test:Node 'node6.lab.test' is not a master candidate, but root's private cluster key lies on it"},
		},
		{
			"no private key on a candidate", func(f *field) { f.at(2).PrivateKey, f.at(2).PublicKey = false, nil },
			[]string{"ERROR:ENODEKEY:node:" + n2 + ":Master candidate '" + n2 + "' has no private cluster SSH key"},
		},
		{
			"another private key on a candidate", func(f *field) { f.at(2).PublicKey = &stranger },
			[]string{"ERROR:ENODESSH:node:" + n2 + ":The SSH key of master candidate '" + n2 + "' is not the one in the candidate map"},
		},
		{
			"an unreadable private key on a candidate", func(f *field) { f.at(2).PublicKey = nil },
			[]string{"ERROR:ENODEKEY:node:" + n2 + ":Master candidate '" + n2 + "' has no private cluster SSH key that can be read"},
		},
		{
			"a key is not authorized", func(f *field) { f.at(4).Authorized = f.at(4).Authorized[1:] },
			[]string{"ERROR:ENODESSH:node:" + n4 + ":A SSH key of master candidate 'node1.lab.test' (UUID: 'UUID1') is not in the 'authorized_keys' file of node '" + n4 + "'."},
		},
		{
			"a stranger's key is authorized", func(f *field) { f.at(4).Authorized = append(f.at(4).Authorized, stranger) },
			[]string{"ERROR:ENODESSH:node:" + n4 + ":The SSH key " + sshkeys.Fingerprint(stranger) + " of a normal node is in the 'authorized_keys' file of node '" + n4 + "'."},
		},
		{
			"a foreign line", func(f *field) { f.at(4).Foreign = []string{"SHA256:abc"} },
			[]string{"ERROR:ENODESSH:node:" + n4 + ":A line that Rolekey did not write holds the cluster key SHA256:abc in the 'authorized_keys' file of node '" + n4 + "'."},
		},
		{
			"sshd ignores the file", func(f *field) { f.at(4).BlockProblems = []string{"root's home is writable by all"} },
			[]string{"ERROR:ENODESSH:node:" + n4 + ":root's home is writable by all"},
		},
		{
			"sshd reads no file", func(f *field) { f.at(4).Authorized, f.at(4).BlockProblems = nil, []string{"sshd reads no file"} },
			[]string{"ERROR:ENODESSH:node:" + n4 + ":sshd reads no file"},
		},
		{"a login fails", func(f *field) {
			f.logins = func(from, to cluster.NodeID) string {
				if from == statetest.ID(2) && to == statetest.ID(4) {
					return "permission denied\n"
				}
				return ""
			}
		}, []string{"ERROR:ENODESSH:node:" + n2 + ":ssh communication with node '" + n4 + "': permission denied"}},
		{
			"master is no candidate", func(f *field) { f.change(func(s *state.State) { s.Master = statetest.ID(4) }) },
			[]string{"ERROR:ECLUSTERCFG:cluster:None:Master node is not a master candidate"},
		},
		{
			"pool too small", func(f *field) { f.change(func(s *state.State) { s.Params.CandidatePoolSize = 4 }) },
			[]string{"ERROR:ECLUSTERCFG:cluster:None:Not enough master candidates: actual 3, target 4"},
		},
		{"not published", func(f *field) {
			f.lab.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{LeaseSeconds: new(uint32(60))}})
		}, []string{"ERROR:ECLUSTERCFG:cluster:None:The newest committed candidate map is NEXT, the newest published one is HEAD"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newField(t)
			c.spoil(f)
			ok, got := f.run()
			next := f.held.At()
			next.Version++
			replace := strings.NewReplacer(
				"HEAD", f.held.At().String(), "NEXT", next.String(), "HASH", f.held.Hash.Short(), "UUID1", statetest.ID(1).String(),
				"CLIENT2", f.node(2).Keys.Client[0].String(),
				"ENDS8", f.lab.Now.Add(certError+time.Hour).Format(time.RFC3339), "ENDS6", f.lab.Now.Add(certError-time.Hour).Format(time.RFC3339),
			)
			var want []string
			faultless := true
			for _, line := range c.want {
				want = append(want, "  - "+replace.Replace(line))
				faultless = faultless && !strings.HasPrefix(line, "ERROR")
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s:\n got %q\nwant %q", c.name, got, want)
			}
			if ok != faultless {
				t.Errorf("%s: verdict %t", c.name, ok)
			}
		})
	}
}

// change makes the state say what no command would.
func (f *field) change(edit func(s *state.State)) {
	s := *f.lab.S
	edit(&s)
	f.lab.S = &s
}

// TestConsequencesAreNotTold: a candidate without SSH keys is told once, and not
// again by what follows from that.
func TestConsequencesAreNotTold(t *testing.T) {
	f := newField(t)
	f.at(2).PrivateKey, f.at(2).PublicKey = false, nil
	f.facts = map[cluster.NodeID]rpc.NodeFacts{statetest.ID(2): f.told(rpc.NodeFacts{Derived: []string{"ssh's configuration is not as the roster says"}})}
	f.noProbes = map[cluster.NodeID]bool{statetest.ID(2): true}
	if _, got := f.run(); len(got) != 1 || !strings.HasSuffix(got[0], "has no private cluster SSH key") {
		t.Errorf("%q", got)
	}
}

// TestKeyThatIsDestroyed: of a copy that lies where noded destroys keys --repair
// takes care, and the administrator of the key.
func TestKeyThatIsDestroyed(t *testing.T) {
	f := newField(t)
	f.at(4).PrivateKey, f.at(4).KeyFiles = true, []string{"/x/id"}
	f.facts = map[cluster.NodeID]rpc.NodeFacts{statetest.ID(4): f.told(rpc.NodeFacts{Copies: []rpc.KeyCopy{{Path: "/x/id", Key: f.node(2).Keys.SSH[0]}}})}
	if _, got := f.run(); len(got) != 2 {
		t.Errorf("%q", got)
	}
	if c := f.report.Findings[1]; c.Repair != RepairKeys || !strings.Contains(c.Remedy, "renew-crypto --new-ssh-keys") {
		t.Errorf("%+v", c)
	}
}

// TestFlagsAndMapDisagree: a candidate without an entry, and the reverse.
func TestFlagsAndMapDisagree(t *testing.T) {
	for want, flag := range map[string]bool{
		"The master candidate 'node4.lab.test' does not have an entry in the map of candidate certificates.":             true,
		"Node 'node2.lab.test' is not a master candidate, but still listed in the map of master candidate certificates.": false,
	} {
		f := newField(t)
		i := map[bool]int{true: 4, false: 2}[flag]
		f.change(func(s *state.State) {
			n := *f.node(i)
			n.Flags.MasterCandidate = flag
			nodes := map[cluster.NodeID]*state.Node{n.UUID: &n}
			for id, other := range s.Nodes {
				if id != n.UUID {
					nodes[id] = other
				}
			}
			s.Nodes = nodes
		})
		if ok, got := f.run(); ok || !slices.ContainsFunc(got, func(l string) bool { return strings.Contains(l, "ECLUSTERCLIENTCERT") && strings.HasSuffix(l, want) }) {
			t.Errorf("report %q", got)
		}
	}
}

// TestSettlingNodesAreAskedAgain: a change on its way is no fault.
func TestSettlingNodesAreAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newField(t)
		settled := time.Now().Add(2 * settlePause)
		f.late = func(id cluster.NodeID, a *rpc.NodeState) {
			if id == statetest.ID(4) && time.Now().Before(settled) {
				a.Version = cluster.Version{Epoch: 1, Version: 1}
			}
		}
		if ok, got := f.run(); !ok {
			t.Errorf("report %q", got)
		}
	})
}

func TestReachMaster(t *testing.T) {
	f := newField(t)
	f.lab.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{SSHReach: new(cluster.ReachMaster)}})
	f.publish()
	f.logins = func(from, _ cluster.NodeID) string {
		if from != statetest.ID(1) {
			t.Errorf("%s is asked to log in, which it may not", from)
		}
		return ""
	}
	if ok, got := f.run(); !ok {
		t.Errorf("report %q", got)
	}
	f.at(4).Authorized = append(f.at(4).Authorized, f.node(2).Keys.SSH...)
	if ok, got := f.run(); ok || len(got) != 1 {
		t.Errorf("a candidate's key is authorized under reach master: %q", got)
	}
}

func TestWithoutSSH(t *testing.T) {
	f := newField(t)
	f.lab.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{SSHSetup: new(false)}})
	f.publish()
	f.logins = nil
	for _, a := range f.answers {
		a.Authorized, a.PrivateKey, a.PublicKey, a.SSHSetup = nil, false, nil, false
	}
	if ok, got := f.run(); !ok {
		t.Errorf("report %q", got)
	}
	if slices.Contains(f.lines, "* Verifying ssh logins") {
		t.Error("ssh is tested in a cluster without it")
	}
}

func TestProbeWithoutAnswer(t *testing.T) {
	f := newField(t)
	f.logins = nil
	ok, got := f.run()
	if ok || len(got) != 3 { // the three candidates
		t.Errorf("report %q", got)
	}
	for _, line := range got {
		if !strings.HasPrefix(line, "  - ERROR:ENODESSH:node:") || !strings.HasSuffix(line, "could not test its SSH logins: no answer") {
			t.Errorf("line %q", line)
		}
	}
}

// TestShortProbeAnswer: a candidate that answers for too few targets, or for
// others, did not prove those.
func TestShortProbeAnswer(t *testing.T) {
	f := newField(t)
	short := shortProbe{f}
	report, err := Run(t.Context(), short, func() (*state.State, *candmap.Verified) { return f.lab.S, f.held }, json.RawMessage(f.opts),
		func() time.Time { return f.lab.Now }, func(string) {})
	if err != nil || report.OK() {
		t.Errorf("verdict %t, %v", report.OK(), err)
	}
}

type shortProbe struct{ *field }

func (shortProbe) SSHProbe(context.Context, cluster.NodeID, rpc.SSHProbeRequest) (rpc.SSHProbeReply, error) {
	return rpc.SSHProbeReply{}, nil
}

func TestOptions(t *testing.T) {
	f := newField(t)
	f.at(4).Fresh, f.at(4).Time = false, f.lab.Now.Add(time.Hour)

	f.opts = `{}`
	if _, got := f.run(); !slices.Contains(got, "  - ERROR: node node4.lab.test: its candidate map is stale: it has heard no beacon in time") {
		t.Errorf("without codes: %q", got)
	}
	f.opts = `{"ignore_errors":["ENODEMAP"]}`
	if ok, got := f.run(); ok || !strings.HasPrefix(got[0], "  - WARNING: node node4.lab.test: its candidate map") {
		t.Errorf("one of two ignored: %t, %q", ok, got)
	}
	f.opts = `{"ignore_errors":["ENODEMAP","ENODETIME"]}`
	if ok, got := f.run(); !ok || len(got) != 2 {
		t.Errorf("both ignored: %t, %q", ok, got)
	}
	_, err := Run(t.Context(), f, func() (*state.State, *candmap.Verified) { return f.lab.S, f.held }, json.RawMessage(`[]`), time.Now, func(string) {})
	var p *roles.PrereqError
	if !errors.As(err, &p) || p.Class != roles.WrongInput {
		t.Errorf("unreadable options: %v", err)
	}
}

func TestEveryCodeIsListed(t *testing.T) {
	for _, code := range []string{CodeClusterConfig, CodeClientCert, CodeClusterCert, CodeNodeRPC, CodeNodeSSH, CodeNodeTime, CodeNodeMap, CodeNodeKey, CodeNodeGate} {
		if !slices.Contains(Codes(), code) {
			t.Errorf("%s is missing", code)
		}
	}
}

func TestCanceledRunIsNoVerdict(t *testing.T) {
	f := newField(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Run(ctx, f, func() (*state.State, *candmap.Verified) { return f.lab.S, f.held }, json.RawMessage(f.opts), time.Now, func(string) {})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestKeysToBeReplaced: what is left to be done is no fault.
func TestKeysToBeReplaced(t *testing.T) {
	f := newField(t)
	f.lab.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
	f.lab.Do(state.KindParamsChange, state.ParamsChange{Params: state.ParamsPatch{SSHKeyMode: new(cluster.KeyShared)}})
	f.publish()
	if ok, _ := f.run(); !ok || strings.Count(strings.Join(f.lines, "\n"), "its SSH key is not the one that the cluster's settings want") != 3 {
		t.Errorf("report:\n%s", strings.Join(f.lines, "\n"))
	}
}
