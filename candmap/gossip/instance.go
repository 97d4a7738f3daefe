package gossip

import (
	"fmt"
	"log"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"rolekey/cluster"
)

// instance is one life of memberlist, from the opening of the sockets to their
// closing. Its fields are changed by the session's goroutine alone.
type instance struct {
	g         *Gossip
	list      *memberlist.Memberlist
	ring      *memberlist.Keyring
	transport *transport
	at        netip.AddrPort // where others are told to find us
	members   members
	work      sync.WaitGroup // joins and updates that run

	joins   joins
	shown   cluster.Version // in our metadata
	showing atomic.Bool     // an update runs
	nextRun schedule
	alone   aloneness
}

// schedule is when the less urgent parts of upkeep are due.
type schedule struct{ meta, report time.Time }

// open starts memberlist with these keys.
func open(g *Gossip, keys [][]byte) (*instance, error) {
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	at := g.advertised()
	t, err := listen(g, at)
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	inst := &instance{g: g, ring: ring, transport: t, at: at, joins: joins{}, shown: g.cfg.Holder.View().At()}
	inst.nextRun = schedule{meta: time.Now().Add(metaEvery), report: time.Now().Add(reportEvery)}
	inst.alone.since = time.Now()
	inst.members.init()
	list, err := memberlist.Create(inst.config())
	if err != nil {
		_ = t.Shutdown() // it never fails
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	inst.list = list
	return inst, nil
}

func (i *instance) config() *memberlist.Config {
	d := delegate{i}
	c := memberlist.DefaultLANConfig()
	c.Name = i.g.cfg.Self.String()
	c.Transport = i.transport
	c.Label = label
	c.UDPBufferSize = packetSize
	c.BindAddr, c.BindPort = i.g.cfg.BindAddr.String(), int(i.g.cfg.Port)
	c.AdvertiseAddr, c.AdvertisePort = i.at.Addr().String(), int(i.at.Port())
	c.TCPTimeout = streamTimeout
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	// Nothing here is worth compressing, and the decompressor is attack surface.
	c.EnableCompression = false
	c.Keyring = i.ring
	c.Delegate, c.Events, c.Alive = d, d, d
	c.DNSConfigPath = "" // never read: only addresses are joined
	c.Logger = log.New(newLogWriter(i.g), "", 0)
	return c
}

// adopt takes other keys into use. It is not able to drop one that it accepts.
func (i *instance) adopt(keys [][]byte) bool {
	for _, have := range i.ring.GetKeys() {
		if !containsBytes(keys, have) {
			return false
		}
	}
	for _, k := range keys {
		if err := i.ring.AddKey(k); err != nil {
			return false
		}
	}
	return i.ring.UseKey(keys[0]) == nil
}

// leave tells the others that this node goes.
func (i *instance) leave() {
	if err := i.list.Leave(leaveTimeout); err != nil {
		i.g.log.Info("nobody heard that this node leaves the gossip", zap.Error(err))
	}
}

// close closes the sockets, which ends the work that runs, and waits for it.
func (i *instance) close() {
	if err := i.list.Shutdown(); err != nil {
		i.g.log.Warn("cannot shut gossip down", zap.Error(err))
	}
	i.work.Wait()
}

// tick is the upkeep of the membership. It does not wait for the network.
func (i *instance) tick() {
	now := time.Now()
	others := i.joinMissing(now)
	i.noteAlone(now, others)
	if now.After(i.nextRun.meta) {
		i.nextRun.meta = now.Add(metaEvery + jitter(metaEvery))
		i.showVersion()
	}
	if now.After(i.nextRun.report) {
		i.nextRun.report = now.Add(reportEvery)
		i.g.reportSuspicious()
	}
}

// showVersion tells the others which map this node holds. All nodes take a new
// map at about the same time, and metadata displaces announcements in packets,
// so this is slow on purpose.
func (i *instance) showVersion() {
	at := i.g.cfg.Holder.View().At()
	if at == i.shown || !i.showing.CompareAndSwap(false, true) {
		return
	}
	i.shown = at
	i.work.Go(func() {
		defer i.showing.Store(false)
		if err := i.list.UpdateNode(leaveTimeout); err != nil {
			i.g.log.Debug("version not shown yet", zap.Error(err))
		}
	})
}

// advertised is where this node says it is: where it was configured to, unless
// the roster has it somewhere else by now, and the others would not let it in.
func (g *Gossip) advertised() netip.AddrPort {
	at := netip.AddrPortFrom(g.cfg.AdvertiseAddr, g.cfg.Port)
	v := g.cfg.Holder.View()
	if v == nil || v.Roster == nil {
		return at
	}
	n := v.Roster.Node(g.cfg.Self)
	if n == nil || slices.Contains(n.Addresses, at.Addr()) {
		return at
	}
	return netip.AddrPortFrom(n.Addresses[0].Unmap().WithZone(""), g.cfg.Port)
}
