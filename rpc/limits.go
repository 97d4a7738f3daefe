package rpc

import "time"

// Limits bound what peers, and above all strangers, can make a server hold. A
// zero field means its default.
type Limits struct {
	Conns          int           // open connections
	ConnsPerPeer   int           // of them with one certificate
	Strangers      int           // of them without a proven certificate, handshakes included
	StrangersPerIP int           // of those from one network: an IPv4 address, or a /64 of IPv6
	Streams        int           // calls in flight on one connection
	HeaderBytes    int           // of one call
	Handshake      time.Duration // TLS handshake, and the headers of an HTTP/1.1 request
	Body           time.Duration // reading a body; a candidate has its method's time if that is longer
	Idle           time.Duration // a connection without calls
	Drain          time.Duration // how long Revoke waits for calls in flight
	LargeBody      int64         // largest body of a caller below the candidate tier
	LargeCalls     int           // calls that hold memory: of all strangers, and as many of all members
	LargeCallsEach int           // same, of one stranger's network or of one member; of a candidate, eight times as many
}

// DefaultLimits are what zero fields mean. A master has one connection to each
// daemon, and raft one more.
var DefaultLimits = Limits{
	Conns: 2048, ConnsPerPeer: 64, Strangers: 1024, StrangersPerIP: 64, Streams: 128,
	HeaderBytes: 16 << 10, Handshake: 5 * time.Second, Body: 30 * time.Second, Idle: 3 * time.Minute, Drain: 5 * time.Second,
	LargeBody: 4 << 20, LargeCalls: 32, LargeCallsEach: 8,
}

func (l Limits) withDefaults() Limits {
	d := &DefaultLimits
	orInt(&l.Conns, d.Conns)
	orInt(&l.ConnsPerPeer, d.ConnsPerPeer)
	orInt(&l.Strangers, d.Strangers)
	orInt(&l.StrangersPerIP, d.StrangersPerIP)
	orInt(&l.Streams, d.Streams)
	orInt(&l.HeaderBytes, d.HeaderBytes)
	orInt(&l.Handshake, d.Handshake)
	orInt(&l.Body, d.Body)
	orInt(&l.Idle, d.Idle)
	orInt(&l.Drain, d.Drain)
	orInt(&l.LargeBody, d.LargeBody)
	orInt(&l.LargeCalls, d.LargeCalls)
	orInt(&l.LargeCallsEach, d.LargeCallsEach)
	return l
}

func orInt[T int | int64 | time.Duration](field *T, def T) {
	if *field == 0 {
		*field = def
	}
}
