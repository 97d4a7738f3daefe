// Package rpc carries the calls between the daemons: mutual TLS 1.3 (RFC 8446)
// with HTTP/2 (RFC 9113) and JSON, behind a gate that the candidate map rules.
// The protocol is specified in docs/rpc.rst.
//
// It guarantees:
//   - a certificate opens nothing by itself: every request is judged against
//     the map and roster of that moment, by exact digest or pinned key (G1);
//   - what changes a node is for the map's master alone, and the judgement is
//     repeated at the effect itself (G2, see Effect);
//   - after Revoke returned without an error, no open connection, no request
//     in flight and no effect rests on a judgement by an older map (G4);
//   - no map, an old map and a stale map refuse; they never open;
//   - the client too knows whom it talks to: CA, kind, node and pin of the
//     server are checked at the handshake and again when the map changes;
//   - whatever a stranger can make the server hold is bounded: connections,
//     handshakes, headers, bodies, streams and log lines.
//
// Server and Client are safe for concurrent use; routes are registered before
// Run. The calls on the daemons' unix sockets (ServeLocal, LocalClient) share
// the bodies but have neither TLS nor gate: the kernel tells who the peer is.
package rpc
