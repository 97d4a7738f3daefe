package vcluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rolekey/candmap"
	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/masterd/consensus"
	"rolekey/pki"
	"rolekey/rpc"
)

// other returns a candidate that is not master.
func (c *Cluster) other() *Node {
	c.t.Helper()
	master := c.Master()
	st, err := c.State()
	c.must(err)
	for _, n := range c.Nodes {
		if n != master && st.Node(n.ID).Flags.MasterCandidate {
			return n
		}
	}
	c.t.Fatal("there is no other candidate")
	return nil
}

// TestG1CertificateOfTheCA: whoever stole the CA's key can issue itself a
// certificate, and it opens nothing.
func TestG1CertificateOfTheCA(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		st, err := c.State()
		c.must(err)
		ca, err := pki.ParseCA(st.CA.Cert, st.CA.Key)
		c.must(err)
		key, err := pki.GenerateKey()
		c.must(err)
		n := st.Node(c.Master().ID)
		for _, id := range []cluster.NodeID{n.UUID, c.Node(4).ID, cluster.NewUUID()} {
			der, err := ca.Issue(pki.Request{Kind: pki.KindCandidate, Node: id, Name: n.Name, Addresses: n.Addresses, PublicKey: key.Public()}, time.Now())
			c.must(err)
			l := c.Node(4).thief(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
			for _, to := range c.Nodes {
				c.Refused("a call with a certificate of the CA", l.State(to), cluster.CodeNotInMap)
				c.Refused("an order with a certificate of the CA", l.order(to, c.stamp()), cluster.CodeNotInMap)
			}
			c.Refused("a pull", l.Call(c.Node(1), rpc.Noded, rpc.MethodMapGet, "0.0", nil, nil), cluster.CodeNotInRoster)
		}
	})
}

// TestG2HostileCandidate uses a candidate's key as the master's.
func TestG2HostileCandidate(t *testing.T) {
	Run(t, 5, Options{Reach: cluster.ReachMaster}, func(t *testing.T, c *Cluster) {
		hostile := c.other()
		loot := hostile.Steal()
		for _, to := range c.Nodes {
			c.must(loot.State(to))
			now := c.stamp()
			for _, s := range []rpc.Stamp{{}, now, {Version: now.Version, Term: now.Term + 9}, {Version: cluster.Version{Epoch: 9, Version: 9}, Term: 99}} {
				ctx := rpc.WithStamp(context.Background(), s)
				c.Refused("key/destroy", loot.order(to, s), cluster.CodeNotMaster)
				err := loot.CallWith(ctx, to, rpc.Noded, rpc.MethodKeyCreate, "", rpc.KeyCreateRequest{Incarnation: 1}, nil)
				c.Refused("key/create", err, cluster.CodeNotMaster)
			}
			err := loot.Call(to, rpc.Noded, rpc.MethodSSHProbe, "", rpc.SSHProbeRequest{}, nil)
			c.Refused("ssh/probe", err, cluster.CodeNotMaster)
			err = loot.Call(to, rpc.Noded, rpc.MethodSSHSettle, "", rpc.SSHSettleRequest{}, nil)
			c.Refused("ssh/settle", err, cluster.CodeNotMaster)
		}
		// Its own key opens no node by SSH: only the master's is authorized.
		key, err := os.ReadFile(hostile.at.SSHPublicKey())
		c.must(err)
		for _, n := range c.Nodes {
			text, err := os.ReadFile(n.AuthorizedKeys())
			c.must(err)
			if slices.Contains(keysIn(text), keysIn(key)[0]) {
				t.Errorf("%s authorizes the key of a candidate that is not master", n.Short())
			}
		}
	})
}

// TestG3HostileCandidate has a candidate ask for signatures and offer what it
// forged, over RPC.
func TestG3HostileCandidate(t *testing.T) {
	Run(t, 5, Options{Reach: cluster.ReachMaster}, func(t *testing.T, c *Cluster) {
		hostile := c.other()
		loot := hostile.Steal()
		st, err := c.State()
		c.must(err)
		head := st.Head()
		v, err := c.Master().View()
		c.must(err)
		forged := loot.forge(v.Map.Payload, hostile.ID)
		beacon := loot.beacon(v.Map.Payload, head.Version, head.Hash, time.Now())
		for _, to := range c.Nodes {
			if st.Node(to.ID).Flags.MasterCandidate && to != hostile {
				c.asks(loot, to, rpc.SignRequest{PayloadType: candmap.MapType, Version: head.Version, Hash: head.Hash, Term: v.Term})
				c.asks(loot, to, rpc.SignRequest{PayloadType: candmap.MapType, Version: next(head.Version), Hash: forged.Hash(), Payload: forged.Payload, Term: v.Term + 1})
				c.asks(loot, to, rpc.SignRequest{PayloadType: candmap.BeaconType, Version: head.Version, Hash: head.Hash, Payload: beacon.Payload, Term: v.Term})
			}
			put := func(m rpc.Method, body any) error { return loot.Call(to, rpc.Noded, m, "", body, nil) }
			c.Refused("a forged map", put(rpc.MethodMapPut, rpc.MapDelivery{Maps: []candmap.Envelope{forged}}), cluster.CodeBadSignature)
			c.Refused("a forged beacon", put(rpc.MethodBeaconPut, beacon), cluster.CodeBadSignature)
			// Old maps are authentic, so they are no attack; they change nothing.
			for _, old := range v.Chain {
				_ = put(rpc.MethodMapPut, rpc.MapDelivery{Maps: []candmap.Envelope{old}})
			}
			now, err := to.View()
			c.must(err)
			if now.Map.Hash() != head.Hash {
				t.Errorf("%s left its map for another one", to.Short())
			}
		}
	})
}

func next(v cluster.Version) cluster.Version {
	return cluster.Version{Epoch: v.Epoch, Version: v.Version + 1}
}

// asks wants a voter to refuse its signature.
func (c *Cluster) asks(l *Loot, to *Node, r rpc.SignRequest) {
	c.t.Helper()
	c.Refused("a signature for "+r.PayloadType, l.Call(to, rpc.Masterd, rpc.MethodSign, "", r, nil), cluster.CodeNotMaster)
}

// forge makes the next map, whose master is the thief, as far as one key can.
func (l *Loot) forge(payload []byte, thief cluster.NodeID) candmap.Envelope {
	l.c.t.Helper()
	m, err := candmap.DecodeMap(payload)
	l.c.must(err)
	m.Version, m.Previous, m.Master, m.Issued = m.Version+1, cluster.DigestOf(payload), thief, candmap.Stamp(time.Now())
	b, err := m.Encode()
	l.c.must(err)
	return l.signed(candmap.MapType, b)
}

func (l *Loot) beacon(payload []byte, at cluster.Version, hash cluster.Digest, t time.Time) candmap.Envelope {
	l.c.t.Helper()
	m, err := candmap.DecodeMap(payload)
	l.c.must(err)
	b := candmap.Beacon{Cluster: m.Cluster, Epoch: at.Epoch, Version: at.Version, Map: hash, Time: candmap.Stamp(t)}
	text, err := b.Encode()
	l.c.must(err)
	return l.signed(candmap.BeaconType, text)
}

func (l *Loot) signed(payloadType string, payload []byte) candmap.Envelope {
	sig, err := candmap.Sign(l.Signing, payloadType, payload)
	l.c.must(err)
	return candmap.Merge(candmap.Envelope{PayloadType: payloadType, Payload: payload}, sig)
}

// TestG3HostileGossip replaces a candidate's daemons by a member of the gossip
// that announces its forged map for as long as a lease.
func TestG3HostileGossip(t *testing.T) {
	Run(t, 5, Options{}, func(t *testing.T, c *Cluster) {
		hostile := c.other()
		loot := hostile.Steal()
		v, err := hostile.View()
		c.must(err)
		forged := loot.forge(v.Map.Payload, hostile.ID)
		m, err := candmap.DecodeMap(v.Map.Payload)
		c.must(err)
		later := next(next(m.At()))
		// By its own map the thief is the only voter, and so has a majority.
		alone := loot.usurp(v.Map.Payload, hostile.ID)
		mine, err := candmap.Genesis(alone, alone.Hash())
		c.must(err)
		key, err := os.ReadFile(filepath.Join(hostile.at.NodeDir(), "gossip.key"))
		c.must(err)
		hostile.Crash()
		c.Settle()
		hostile.Host.Start()
		g, err := gossip.New(gossip.Config{
			Self: hostile.ID, BindAddr: hostile.Addr, Port: cluster.DefaultPorts.Gossip, Key: cluster.NewSecret(key),
			Holder: usurper{mine, v}, Network: hostile.Host,
		})
		c.must(err)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx) }()
		for range 20 {
			g.Announce(loot.beacon(v.Map.Payload, later, forged.Hash(), time.Now()))
			g.Announce(loot.beacon(v.Map.Payload, mine.At(), mine.Hash, time.Now().Add(time.Hour)))
			c.Pass(c.opts.Lease / 20)
			c.must(c.Check())
		}
		if s := g.Stats(); s.Queued == 0 {
			t.Error("nothing was announced")
		}
		cancel()
		c.must(<-done)
		hostile.Host.Stop()
		hostile.Start()
	})
}

// usurp makes a later map that names the thief as the only voter.
func (l *Loot) usurp(payload []byte, thief cluster.NodeID) candmap.Envelope {
	l.c.t.Helper()
	m, err := candmap.DecodeMap(payload)
	l.c.must(err)
	m.Version, m.Previous, m.Master, m.Issued = m.Version+5, cluster.DigestOf(payload), thief, candmap.Stamp(time.Now())
	for i := range m.Candidates {
		m.Candidates[i].Voter = m.Candidates[i].UUID == thief
	}
	b, err := m.Encode()
	l.c.must(err)
	return l.signed(candmap.MapType, b)
}

// usurper holds the thief's map, and the roster of all.
type usurper struct {
	m *candmap.Verified
	v rpc.LocalViewReply
}

// View implements gossip.Holder.
func (u usurper) View() *candmap.View {
	docs := map[cluster.Digest][]byte{}
	for _, d := range u.v.Docs {
		docs[cluster.DigestOf(d)] = d
	}
	r, err := candmap.AssembleRoster(u.m.Roster, func(d cluster.Digest) []byte { return docs[d] })
	if err != nil {
		return &candmap.View{Map: u.m}
	}
	return &candmap.View{Map: u.m, Roster: r}
}

// Beacon implements gossip.Holder.
func (usurper) Beacon() (candmap.Envelope, bool) { return candmap.Envelope{}, false }

// DeliverBeacon implements gossip.Holder.
func (usurper) DeliverBeacon(candmap.Envelope) (bool, error) { return true, nil }

// TestG3HostileStandby: a candidate that does not vote cannot disturb raft.
func TestG3HostileStandby(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		c.Must(Candidate(c.Node(4), true))
		c.Settle()
		st, err := c.State()
		c.must(err)
		i := slices.IndexFunc(c.Nodes, func(n *Node) bool { return !st.Node(n.ID).Voter })
		hostile := c.Nodes[i]
		loot, id := hostile.Steal(), consensus.ServerID(hostile.ID, 1)
		header := map[string]any{"ProtocolVersion": 3, "ID": []byte(id), "Addr": []byte(id)}
		for _, message := range []string{consensus.MessageAppendEntries, consensus.MessageRequestVote, consensus.MessageRequestPreVote, consensus.MessageTimeoutNow, consensus.MessageInstallSnapshot} {
			body, err := json.Marshal(map[string]any{"message": map[string]any{"RPCHeader": header, "Term": 99}})
			c.must(err)
			for _, to := range c.Nodes {
				if to != hostile {
					c.Refused(message, loot.Call(to, rpc.Masterd, rpc.MethodRaft, message, json.RawMessage(body), nil), cluster.CodeNotMaster)
				}
			}
		}
		v, err := c.Master().View()
		c.must(err)
		if v.Term > 50 {
			t.Errorf("the term is %d", v.Term)
		}
	})
}

// TestW2OpenConnections: a connection that a candidate has open is of no use
// to it once it is demoted, not even for a call under way.
func TestW2OpenConnections(t *testing.T) {
	Run(t, 4, Options{}, func(t *testing.T, c *Cluster) {
		target := c.other()
		loot := target.Steal()
		var open []*rpc.AdmissionConn
		for _, to := range c.Nodes {
			conn, err := loot.caller.DialAdmission(t.Context(), netip.AddrPortFrom(to.Addr, cluster.DefaultPorts.Noded), nil)
			c.must(err)
			c.must(conn.Call(t.Context(), rpc.MethodState, "", nil, nil))
			open = append(open, conn)
		}
		c.Must(Candidate(target, false))
		for i, conn := range open {
			err := conn.Call(t.Context(), rpc.MethodState, "", nil, nil)
			c.Refused("a call on an open connection to "+c.Nodes[i].Short(), err, cluster.CodeNotInMap, cluster.CodeUnavailable)
			_ = conn.Close() // the other end has closed it
		}
		for _, to := range c.Nodes {
			c.Refused("a call on a new connection", loot.State(to), cluster.CodeNotInMap)
		}
	})
}
