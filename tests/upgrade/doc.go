// Package upgrade runs a cluster of two builds: the previous release, whose
// commit the file previous names, and the one being tested. Real daemons are
// upgraded node by node while roles change; one is downgraded, and must refuse.
//
// The previous release is built from this repository's own history, once, below
// .cache. Where the history is not there the test is skipped, and says so.
package upgrade
