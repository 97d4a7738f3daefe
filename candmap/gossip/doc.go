// Package gossip spreads announcements between all nodes of a cluster: the
// safety net under the master's pushes. An announcement is a beacon, signed by
// a bare majority of the voters, so it proves itself; the library beneath,
// hashicorp/memberlist (SWIM with push/pull, https://arxiv.org/abs/1707.00788),
// is trusted with nothing. A node that learns of a newer map from one pulls it
// over RPC.
//
// What it guarantees: what a majority of the held map's voters did not sign
// changes nothing, is not passed on, and is counted. Nothing larger than a
// packet is queued, because the library would keep it for ever and never send
// it. A flood costs at most a bounded number of signature checks a second. A
// peer that stopped, a blocked port, or a wrong key delays nobody: gossip
// degrades and never breaks.
//
// What it does not guarantee: delivery. Whoever has the gossip key can be
// heard, can drown others, and can lie about who is alive. The key is a fence,
// never a trust anchor, so Members is for display only. Nodes that are not in
// the held roster, or not at their place in it, are not let in even so.
//
// docs/gossip.rst specifies what is on the wire. All methods of Gossip are safe
// for concurrent use. No name is ever resolved.
package gossip
