// Package audit writes down who did what to this node's trust: one JSON line
// for each act, in a file of its own, as docs/audit.rst specifies.
//
// Guarantees: Write never blocks and never touches the disk, so that a full or
// hung one delays no revocation; the queue and each line are bounded; a line is
// written whole or not at all, as far as readers are concerned; what could not
// be written is counted, and said in the log itself once it can be written
// again. An event has no place for secrets, nor for texts of errors.
//
// All methods may be called concurrently; a nil Log writes nothing.
package audit
