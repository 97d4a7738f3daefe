package cluster

// FeatureLevel is the highest feature level that this build knows. The
// replicated level of a cluster is the lowest that any of its nodes reports;
// nothing newer is emitted before all can read it.
//
//	1  the first release
//	2  settings in the index of the roster, the cluster address, changes of
//	   the cluster's name, tags and queue, remembered candidates
//	3  SSH settings in the index of the roster, shared SSH keys in the map,
//	   the kind of key in orders to make keys; users and administrators of
//	   the remote API; host keys that nodes change themselves; authorities
//	   and gossip keys in the index of the roster; the calls to repair files
//	   and to wait for logins; marks of candidates whose signing key is to be
//	   replaced
const FeatureLevel = 3
