package rpc

import "rolekey/cluster"

// FactsRequest asks a node for what only verify wants to know, and what takes
// the node some reading.
type FactsRequest struct {
	// Keys are public SSH keys whose private halves are searched for where root
	// keeps such files.
	Keys []cluster.SSHKey `json:"keys"`
}

// SymbolicLink ends what NodeFacts.Modes says of a link in the place of a file,
// which no repair follows.
const SymbolicLink = " is a symbolic link"

// NodeFacts is what a node finds on its disk and around it.
type NodeFacts struct {
	Files  map[string]cluster.Digest `json:"files"`  // SHA-256 of each derived file that is there, by name
	Modes  []string                  `json:"modes"`  // for people: files whose mode or owner is not as it should be
	Copies []KeyCopy                 `json:"copies"` // private halves of Keys that lie where Rolekey did not put them
	// Unsearched are folders with more files than the search looks at.
	Unsearched []string         `json:"unsearched,omitempty"`
	Gossip     []cluster.NodeID `json:"gossip"` // nodes that gossip believes alive, this one among them

	Unsaved []string `json:"unsaved,omitempty"` // for people: why map or roster are not on its disk
	Derived []string `json:"derived,omitempty"` // for people: files of ssh that are not as the roster says
}

// RepairReply is what a node put right of its own files, for people.
type RepairReply struct {
	Done     []string `json:"done"`
	Problems []string `json:"problems,omitempty"` // what it could not put right
}

// KeyCopy is a private key that was found.
type KeyCopy struct {
	Path string         `json:"path"`
	Key  cluster.SSHKey `json:"key"`
}
