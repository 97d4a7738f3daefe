package candmap

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"rolekey/cluster"
)

// chain is the maps that were, as links; envelopes are in the store, or in
// memory until the store takes them.
type chain struct {
	store Store

	mu      sync.Mutex // never held during I/O
	links   []Link     // sorted by version
	unsaved map[cluster.Version]Envelope
}

func byVersion(l Link, at cluster.Version) int { return l.At.Compare(at) }

func (c *chain) load(links []Link) {
	c.links = slices.Clone(links)
	slices.SortFunc(c.links, func(a, b Link) int { return a.At.Compare(b.At) })
	c.links = slices.CompactFunc(c.links, func(a, b Link) bool { return a.At == b.At })
	c.unsaved = map[cluster.Version]Envelope{}
}

// add notes a link; save stores it. A link that is there already stays.
func (c *chain) add(l Link, env Envelope) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := slices.BinarySearchFunc(c.links, l.At, byVersion)
	if ok && c.links[i].Hash == l.Hash {
		return
	}
	if ok {
		c.links[i] = l
	} else {
		c.links = slices.Insert(c.links, i, l)
	}
	c.unsaved[l.At] = env
}

// unknown drops, of all but the last, the maps that this node once held: a
// sender may push its whole chain, and a hash is cheaper than signatures.
func (c *chain) unknown(maps []Envelope, held cluster.Version) []Envelope {
	if len(maps) < 2 || len(maps) > MaxChain {
		return maps
	}
	past := map[cluster.Digest]struct{}{}
	for _, l := range c.snapshot() {
		if held.Newer(l.At) {
			past[l.Hash] = struct{}{}
		}
	}
	last := len(maps) - 1
	rest := slices.DeleteFunc(slices.Clone(maps[:last]), func(e Envelope) bool { _, ok := past[e.Hash()]; return ok })
	return append(rest, maps[last])
}

// save stores what is not stored yet and drops what need not be kept.
func (c *chain) save() error {
	var errs []error
	for _, l := range c.pending() {
		c.mu.Lock()
		env := c.unsaved[l.At]
		c.mu.Unlock()
		if err := c.store.SaveLink(l, env); err != nil {
			errs = append(errs, fmt.Errorf("save map %s: %w", l.At, err))
			continue
		}
		c.mu.Lock()
		delete(c.unsaved, l.At)
		c.mu.Unlock()
	}
	for _, l := range c.surplus() {
		if err := c.store.DropLink(l); err != nil {
			errs = append(errs, fmt.Errorf("drop map %s: %w", l.At, err))
			continue
		}
		c.mu.Lock()
		c.links = slices.DeleteFunc(c.links, func(o Link) bool { return o == l })
		c.mu.Unlock()
	}
	return errors.Join(errs...)
}

// owesAuthority reports whether a map that changed the authority is not stored
// yet: without it later ones cannot be verified.
func (c *chain) owesAuthority() bool {
	return slices.ContainsFunc(c.pending(), func(l Link) bool { return l.Authority })
}

func (c *chain) pending() (links []Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.links {
		if _, ok := c.unsaved[l.At]; ok {
			links = append(links, l)
		}
	}
	return links
}

// surplus are the oldest stored links beyond MaxRecent that changed no
// authority.
func (c *chain) surplus() (links []Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.links {
		if !l.Authority {
			links = append(links, l)
		}
	}
	links = links[:max(0, len(links)-MaxRecent)]
	return slices.DeleteFunc(links, func(l Link) bool { _, ok := c.unsaved[l.At]; return ok })
}

// snapshot returns the links as they are.
func (c *chain) snapshot() []Link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.links)
}

// read returns the envelope of a link, if it is there and whole.
func (c *chain) read(l Link) (Envelope, bool) {
	c.mu.Lock()
	env, ok := c.unsaved[l.At]
	c.mu.Unlock()
	if ok {
		return env, true
	}
	env, err := c.store.Link(l)
	return env, err == nil && env.Hash() == l.Hash
}

// find returns the link of a version.
func (c *chain) find(at cluster.Version) (Link, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := slices.BinarySearchFunc(c.links, at, byVersion)
	if !ok {
		return Link{}, false
	}
	return c.links[i], true
}

// newest returns the newest version that was ever held.
func (c *chain) newest() cluster.Version {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.links) == 0 {
		return cluster.Version{}
	}
	return c.links[len(c.links)-1].At
}

// basisOf returns the authority that permitted the map of a version, as far as
// the chain tells. It only serves to recognise forks.
func (c *chain) basisOf(at cluster.Version) *basis {
	links := c.snapshot()
	for _, l := range slices.Backward(links) {
		if !l.Authority || !at.Newer(l.At) {
			continue
		}
		if env, ok := c.read(l); ok {
			if v, err := Genesis(env, l.Hash); err == nil {
				return &v.own
			}
		}
		return nil
	}
	return nil
}
