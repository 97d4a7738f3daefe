// Package ssconf writes the facts about the cluster that other programs read,
// one file for each, with Ganeti's names and formats: docs/ssconf.rst.
//
// They are rendered from the verified map and roster alone, replaced one by
// one without fsync, and rebuilt at start. Nothing in Rolekey trusts them but
// `gnt-cluster getmaster`, when noded is silent. Render is pure; a Dir has one
// owner, who calls its methods one at a time.
package ssconf
