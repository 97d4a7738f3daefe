// Package hooks has the administrator's scripts run on the nodes before and
// after operations, as docs/hooks.rst tells.
//
// Guarantees: nodes are asked in parallel and within Limit; a node that is
// offline or that lately did not answer is not waited for, and no node that
// does not answer vetoes. What nodes say of their scripts is bounded and holds
// no control characters, whatever they send.
//
// All functions may be used concurrently.
package hooks
