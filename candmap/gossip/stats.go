package gossip

import "sync/atomic"

// Stats counts what happened since New.
type Stats struct {
	Received   uint64 // messages, by packet or by push/pull
	News       uint64 // verified, newer than before, passed on
	Duplicates uint64 // what is held already; no signature was checked
	Old        uint64 // verified or of an older version, but not news: replays, laggards
	Malformed  uint64 // no beacon in the canonical form, or of an unknown format
	Unproven   uint64 // without the signatures of a majority of the voters
	Forked     uint64 // signed by a majority, but it contradicts the map held: an attack
	NoMap      uint64 // received before there was a map to verify by
	Dropped    uint64 // fell out of the mailbox unread
	TooLarge   uint64 // received, over MaxMessage

	Queued  uint64 // announcements given to memberlist to spread
	Refused uint64 // announcements not queued: too large, or proving nothing

	Strangers uint64 // members not let in: not in the roster, or not at their place in it
	Streams   uint64 // streams not accepted: too many at once
	Packets   uint64 // packets not accepted: over the size that peers send
	Lines     uint64 // lines of memberlist's log left out
}

type counters struct {
	received, news, duplicates, old, malformed, unproven, forked, noMap, dropped, tooLarge atomic.Uint64

	queued, refused, strangers, streams, packets, lines atomic.Uint64
}

func (c *counters) stats() Stats {
	return Stats{
		Received: c.received.Load(), News: c.news.Load(), Duplicates: c.duplicates.Load(), Old: c.old.Load(),
		Malformed: c.malformed.Load(), Unproven: c.unproven.Load(), Forked: c.forked.Load(), NoMap: c.noMap.Load(),
		Dropped: c.dropped.Load(), TooLarge: c.tooLarge.Load(), Queued: c.queued.Load(), Refused: c.refused.Load(),
		Strangers: c.strangers.Load(), Streams: c.streams.Load(), Packets: c.packets.Load(), Lines: c.lines.Load(),
	}
}

// suspicious sums what an attacker, or a defect, makes grow.
func (s Stats) suspicious() uint64 {
	return s.Malformed + s.Unproven + s.Forked + s.TooLarge + s.Strangers + s.Streams + s.Packets
}
