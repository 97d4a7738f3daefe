// Package runbooks carries out the runbooks of docs/operations.rst on clusters
// that are in the trouble that each is for: real daemons, the very commands that
// the page prints, in their order. So what the page says is what works.
//
// A runbook is a section named "Runbook: …". Its commands stand in blocks of
// console text, with a prompt that says where: node2# is that node, master# is
// whichever is master by then, and admin$ is the administrator's own machine,
// which reaches every node by ssh with a key of its own. A comment after a
// command may say what to wait for: repeat until it works, or repeat until it
// says a word.
package runbooks
