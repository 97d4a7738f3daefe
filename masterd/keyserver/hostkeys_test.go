package keyserver

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
	"rolekey/pki"
)

// teller is a member with the key of its identity certificate.
type teller struct {
	*newcomer
	signer crypto.Signer
	hosts  pki.Hosts
	call   Call
}

func tellerOf(t *testing.T, o *office, i int) *teller {
	t.Helper()
	n := newcomerOf(t, o, i, pki.RecordSpec{})
	n.mustAdmit()
	return &teller{
		newcomer: n, signer: n.identity, call: Call{Request: "r3", Node: n.rec.Node, Pin: pinOf(t, n.identity)},
		hosts: pki.Hosts{
			Cluster: o.lab.S.Cluster.UUID, Node: n.rec.Node, Incarnation: n.node().Incarnation, Port: 22,
			Keys: []cluster.SSHKey{statetest.SSHKey(i, "new")},
		},
	}
}

// tell makes the statement now, and sends it.
func (c *teller) tell() (string, error) {
	c.t.Helper()
	c.hosts.Issued = c.o.lab.Now.Add(time.Millisecond)
	return c.send()
}

func (c *teller) send() (string, error) {
	c.t.Helper()
	slices.SortFunc(c.hosts.Keys, pki.CompareHostKeys)
	s, err := pki.SignHosts(c.signer, c.hosts)
	if err != nil {
		c.t.Fatal(err)
	}
	reply, err := c.s.HostKeys(c.t.Context(), c.call, s)
	return reply.Verdict, err
}

func (c *teller) want(verdict state.HostKeysVerdict) {
	c.t.Helper()
	if got, err := c.tell(); err != nil || got != string(verdict) {
		c.t.Fatalf("%s, %v, want %s", got, err, verdict)
	}
}

func hostOffice(t *testing.T) *office {
	o := newOffice(t)
	o.lab.Do(state.KindFeatureLevel, state.FeatureLevel{Level: state.LevelSSH})
	return o
}

func TestHostKeys(t *testing.T) {
	o := hostOffice(t)
	c := tellerOf(t, o, 2)
	head := o.lab.S.Head().Version
	c.want(state.HostKeysAccepted)
	if got := c.node(); !bytes.Equal(got.HostKeys[0].Blob, c.hosts.Keys[0].Blob) || o.lab.S.Head().Version == head {
		t.Errorf("%+v", got)
	}
	o.calls = nil
	c.want(state.HostKeysCurrent)
	keys := statetest.Keys(2, 1)
	o.lab.Do(state.KindNodeChange, state.NodeChange{
		Node: c.rec.Node, Flags: &state.FlagPatch{MasterCandidate: new(true)}, Keys: &keys, Candidate: statetest.Cert(2, 1),
	})
	c.hosts.Keys = []cluster.SSHKey{statetest.SSHKey(2, "newer")}
	c.want(state.HostKeysPending)
	o.calls = nil
	c.want(state.HostKeysWaits)
	if len(o.calls) > 0 {
		t.Errorf("saying it again commits %q", o.calls)
	}
	c.hosts.Keys = []cluster.SSHKey{statetest.SSHKey(2, "new")}
	c.want(state.HostKeysWithdraw)
}

// TestHostKeysOfAnOldStatement: what was said before brings nothing back, not
// even by its author.
func TestHostKeysOfAnOldStatement(t *testing.T) {
	c := tellerOf(t, hostOffice(t), 2)
	first := c.hosts.Keys
	c.want(state.HostKeysAccepted)
	old := c.hosts.Issued
	c.hosts.Keys = []cluster.SSHKey{statetest.SSHKey(2, "newer")}
	c.want(state.HostKeysAccepted)
	c.hosts.Keys, c.hosts.Issued = first, old
	if v, err := c.send(); cluster.CodeOf(err) != cluster.CodeConflict {
		t.Errorf("%s, %v", v, err)
	}
	if got := c.node().HostKeys; !bytes.Equal(got[0].Blob, statetest.SSHKey(2, "newer").Blob) {
		t.Error("the old key is back")
	}
}

// TestHostKeysRefusals: each has its code, and changes nothing.
func TestHostKeysRefusals(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(weak.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		code  cluster.Code
		spoil func(c *teller)
	}{
		{"not the master", cluster.CodeNotMaster, func(c *teller) { c.o.ready = cluster.Errorf(cluster.CodeNotMaster, "no") }},
		{"the commit fails", cluster.CodeNoQuorum, func(c *teller) { c.o.fail = cluster.Errorf(cluster.CodeNoQuorum, "no") }},
		{"a key that is nobody's", cluster.CodeIdentityMismatch, func(c *teller) { c.signer = key(c.t) }},
		{"another node's identity", cluster.CodeIdentityMismatch, func(c *teller) { c.signer = tellerOf(c.t, c.o, 3).signer }},
		{"about another node", cluster.CodeIdentityMismatch, func(c *teller) { c.hosts.Node = tellerOf(c.t, c.o, 3).hosts.Node }},
		{"sent by another node", cluster.CodeIdentityMismatch, func(c *teller) { c.call.Node = tellerOf(c.t, c.o, 3).hosts.Node }},
		{"another cluster", cluster.CodeIdentityMismatch, func(c *teller) { c.hosts.Cluster = statetest.ID(5) }},
		{"another incarnation", cluster.CodeIdentityMismatch, func(c *teller) { c.hosts.Incarnation = 2 }},
		{"the identity before the readmission", cluster.CodeIdentityMismatch, func(c *teller) {
			newcomerOf(c.t, c.o, 2, pki.RecordSpec{Node: c.hosts.Node}).mustAdmit()
		}},
		{"a removed node", cluster.CodeNotInRoster, func(c *teller) {
			c.o.lab.Do(state.KindNodeRemove, state.NodeRemove{Node: c.hosts.Node})
		}},
		{"a weak key", cluster.CodeBadFormat, func(c *teller) {
			c.hosts.Keys = []cluster.SSHKey{{Type: public.Type(), Blob: public.Marshal()}}
		}},
		{"a key of no known type", cluster.CodeBadFormat, func(c *teller) { c.hosts.Keys[0].Type = "ssh-dss" }},
		{"no key", cluster.CodeBadFormat, func(c *teller) { c.hosts.Keys[0].Blob = nil }},
		{"another node's host key", cluster.CodeAlreadyExists, func(c *teller) {
			c.hosts.Keys = append(c.hosts.Keys, statetest.SSHKey(1, "host"))
		}},
		{"another daemon's port", cluster.CodeBadFormat, func(c *teller) { c.hosts.Port = cluster.DefaultPorts.RAPI }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := tellerOf(t, hostOffice(t), 2)
			c.spoil(n)
			before := n.o.lab.S
			if v, err := n.tell(); err == nil || cluster.CodeOf(err) != c.code {
				t.Errorf("%s, %v (%s), want %s", v, err, cluster.CodeOf(err), c.code)
			}
			if n.o.lab.S != before {
				t.Error("the state has changed")
			}
		})
	}
}

// TestForgedTime: a statement from the future shuts the node's next ones out for
// minutes, and not for ever; one from the past is not taken at all.
func TestForgedTime(t *testing.T) {
	c := tellerOf(t, hostOffice(t), 2)
	now := c.o.lab.Now
	for _, skew := range []time.Duration{-24 * time.Hour, -maxClaimSkew - time.Second, maxClaimSkew + time.Second, 100 * 365 * 24 * time.Hour} {
		c.hosts.Issued = now.Add(skew)
		if v, err := c.send(); cluster.CodeOf(err) != cluster.CodeConflict || cluster.HintOf(err) == "" {
			t.Errorf("%s from now: %s, %v", skew, v, err)
		}
	}
	c.hosts.Issued = now.Add(maxClaimSkew - time.Second)
	if v, err := c.send(); err != nil || v != string(state.HostKeysAccepted) {
		t.Fatalf("%s, %v", v, err)
	}
	c.hosts.Keys = []cluster.SSHKey{statetest.SSHKey(2, "newer")}
	if v, err := c.tell(); cluster.CodeOf(err) != cluster.CodeConflict {
		t.Errorf("%s, %v", v, err)
	}
	c.o.lab.Now = now.Add(maxClaimSkew)
	c.want(state.HostKeysAccepted)
}

// TestHostKeysAreNotChangedWithoutEnd: each change is a map that all nodes fetch.
func TestHostKeysAreNotChangedWithoutEnd(t *testing.T) {
	o := hostOffice(t)
	c, other := tellerOf(t, o, 2), tellerOf(t, o, 3)
	change := func() error {
		c.hosts.Port++
		_, err := c.tell()
		return err
	}
	start := o.lab.Now
	for range claimsAtOnce {
		if err := change(); err != nil {
			t.Fatal(err)
		}
	}
	head := o.lab.S.Head().Hash
	for range 20 {
		if err := change(); cluster.CodeOf(err) != cluster.CodeBusy {
			t.Fatal(err)
		}
	}
	if o.lab.S.Head().Hash != head {
		t.Error("the map has changed")
	}
	other.want(state.HostKeysAccepted)
	o.lab.Now = start.Add(claimsPeriod + time.Second)
	if err := change(); err != nil {
		t.Error(err)
	}
}

func TestHostKeysBelowTheirLevel(t *testing.T) {
	c := tellerOf(t, newOffice(t), 2)
	if v, err := c.tell(); cluster.CodeOf(err) != cluster.CodeConflict || cluster.HintOf(err) == "" {
		t.Errorf("%s, %v", v, err)
	}
}
