// Package sshkeys keeps everything about SSH keys on one node's disk: the
// node's own key pair, the marked block in root's authorized_keys, the marked
// block in root's known_hosts, and the drop-in for ssh(1).
//
// # Guarantees
//
//   - Only what the caller passes as [Authorized] entries, which noded takes
//     from the verified candidate map, is ever authorized (G10). An entry that
//     does not check out is left out and reported; the others still count.
//   - A line that Rolekey did not write is never changed, reordered or lost
//     (G8). The rule is below; [Splice] holds it as a pure function.
//   - A full disk does not keep a revoked key valid: when the file cannot be
//     replaced, [File.Apply] turns its revoked lines into comments in place.
//   - Nobody is locked out by us: no operation on files, and no crash before or
//     after it, takes away a line of others, or a key that is still authorized.
//     On a full disk a new key takes the room of a revoked one, if it fits.
//   - The private key is created on the node, mode 0600, in Rolekey's own
//     folder, and destroyed with the role (G5). Symbolic links are refused,
//     never followed.
//
// # The block
//
// authorized_keys and known_hosts hold one block each:
//
//	# BEGIN ROLEKEY <cluster-uuid>
//	from="192.0.2.1",expiry-time="20300101000000Z" ssh-ed25519 AAAA… rolekey:<node-uuid>
//	# END ROLEKEY <cluster-uuid>
//
// A new block goes to the front of the file. Nothing then has to be added to a
// last line without a newline, so taking the block away restores every byte.
// An existing block is rewritten where it stands. Without lines there is no
// block, not even markers.
//
// Lines carry no "restrict" and no forced command: root needs whole sessions,
// with a terminal, forwarding and file transfer, to administer its nodes;
// docs/security.rst says why that is no loss. What limits a line is whose it is,
// from where, and until when.
//
// # Which lines are Rolekey's
//
// A marker is Rolekey's when it names this cluster. A key line is Rolekey's
// when it stands in a claimed place and has a form that Rolekey writes: it
// parses, its only comment is "rolekey:" and a UUID, and it has no option
// other than from, expiry-time, restrict and the plain permissions (later
// releases may write those). Blanks around such a line and between its words do
// not matter, and neither does a carriage return at its end. Claimed places are
//
//   - from a BEGIN to its END;
//   - from a BEGIN without END to the end of the file, where a key line may also
//     be cut off within its comment;
//   - the unbroken run of such lines directly before an END without BEGIN;
//
// less what lies between the markers of another cluster, and, where the two
// overlap without nesting, less what both could claim. Everything else is
// foreign and kept byte for byte, also between our markers: those lines follow
// the block. Duplicate blocks become one, at the first marker. Each of these is
// told in the [Report].
//
// # Concurrency
//
// Functions are pure and safe for concurrent use, apart from the probes, which
// run sshd. All operations on files go through [atomicfile.FS], so that tests
// can let any of them fail. One file, and one key folder, has one writer: noded. Other programs
// and people may edit the files at any time: a change that lands before the
// rename is seen and merged.
//
// Sources: sshd(8) "AUTHORIZED_KEYS FILE FORMAT" and "SSH_KNOWN_HOSTS FILE
// FORMAT", ssh_config(5), RFC 4253 §6.6 (public keys), RFC 8709 (Ed25519),
// RFC 5656 (ECDSA); behaviour measured on OpenSSH 9.2p1.
package sshkeys
