package noded

import (
	"errors"
	"slices"

	"rolekey/cluster"
)

// drop destroys the keys that gone says of.
func (k keyDir) drop(gone func(heldKey) bool, node cluster.NodeID) (removed []string, remains []error) {
	list, err := k.look()
	if err != nil {
		return nil, []error{err}
	}
	var keep []cluster.SSHKey
	files := 0
	for _, h := range list {
		switch {
		case h.path == "":
		case gone(h):
			files++
		default:
			keep = append(keep, h.key)
		}
	}
	k.memory = slices.DeleteFunc(k.memory, func(h heldKey) bool {
		if gone(h) {
			removed = append(removed, "ssh key in memory")
			return true
		}
		return false
	})
	if files > 0 {
		out, left := k.dir.Keep(keep, node)
		removed, remains = append(removed, out...), append(remains, left...)
	}
	_, _ = k.look()
	return removed, remains
}

// follow destroys what the map does not list any more: what it has listed in
// this run, what a listed key replaced, and, by a fresh map, what was made long
// ago and never listed.
func (k keyDir) follow(entry []cluster.SSHKey, node cluster.NodeID, old func(heldKey) bool) (removed []string, remains []error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range entry {
		k.listed[string(e.Blob)] = true
	}
	list, err := k.look()
	if err != nil {
		return nil, []error{err}
	}
	replaced := len(list) == 2 && list[0].storage() == list[1].storage() && hasKey(entry, list[1].key)
	gone := func(h heldKey) bool {
		first := string(h.key.Blob) == string(list[0].key.Blob)
		return !hasKey(entry, h.key) && (k.listed[string(h.key.Blob)] || replaced && first || old(h))
	}
	if !slices.ContainsFunc(list, gone) {
		return nil, nil
	}
	return k.drop(gone, node)
}

func (k keyDir) destroy() ([]string, []error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	removed, remains := k.dir.Destroy()
	if len(k.memory) > 0 {
		removed = append(removed, "ssh key in memory")
	}
	k.memory, k.listed, k.known = nil, map[string]bool{}, nil
	k.made.forget()
	return removed, remains
}

// serveAt says where the agent is.
func (k keyDir) serveAt(socket string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.socket = socket
}

// identities are the files by which ssh chooses the keys that the map lists, the
// newest first, and the agent that holds private halves; "": the files do.
func (k keyDir) identities(node cluster.NodeID, entry []cluster.SSHKey) (files []string, agent string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	list, err := k.look()
	var public []cluster.SSHKey
	for _, h := range k.memory {
		public = append(public, h.key)
	}
	named, publishErr := k.dir.Publish(public, node)
	if publishErr != nil {
		return nil, "", errors.Join(err, publishErr)
	}
	for _, e := range slices.Backward(entry) {
		for _, h := range list {
			switch i := slices.IndexFunc(public, func(p cluster.SSHKey) bool { return sameKey(p, h.key) }); {
			case !sameKey(e, h.key):
			case h.path != "":
				files = append(files, h.path)
			case i >= 0:
				files, agent = append(files, named[i]), k.socket
			}
		}
	}
	return files, agent, err
}
