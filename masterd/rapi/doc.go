// Package rapi serves Ganeti's remote API (doc/rapi.rst of Ganeti), as far as
// it concerns nodes, roles and jobs, and Rolekey's additions to it below the
// same prefix. The commands use it on masterd's root-only socket; there is no
// second protocol.
//
// Paths, objects, statuses and error bodies are Ganeti's, so that its own
// client works unchanged. Objects have more fields than Ganeti's; errors also
// carry Rolekey's stable code, a hint, and the master's name when this node is
// not it.
//
// Reads are answered from the newest applied state on any candidate. Changes
// are refused unless this node is the master in office. A caller that is not
// known to be a user of the machine is refused: the handler must be served by
// rpc.ServeLocal.
//
// The handler is safe for concurrent use, and keeps no state.
package rapi
