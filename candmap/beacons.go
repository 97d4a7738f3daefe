package candmap

import (
	"errors"

	"rolekey/cluster"
)

// DeliverBeacon takes a beacon. It is news if it is newer than any before, for
// this map or a later one; only then is it worth passing on. A beacon for a
// later map does not make the held one fresh: it says that it was replaced.
func (k *Keeper) DeliverBeacon(env Envelope) (news bool, err error) {
	for {
		view := k.View()
		if view.Map == nil {
			return false, k.noMap()
		}
		b, err := VerifyBeacon(view.Map, env)
		if err != nil {
			var fork *ForkError
			if errors.As(err, &fork) {
				k.keepEvidence(fork)
			}
			return false, err
		}
		if news, ok := k.takeBeacon(view, &heard{b, env}); ok {
			return news, nil
		}
	}
}

// takeBeacon records a beacon that was verified against view. It is not ok if
// another map came into force meanwhile.
func (k *Keeper) takeBeacon(view *View, b *heard) (news, ok bool) {
	k.news.Lock()
	defer k.news.Unlock()
	if k.View().Map != view.Map {
		return false, false
	}
	if !b.newerThan(k.newest) {
		return false, true
	}
	k.newest = b
	if b.At() == view.At() {
		k.hear(b.Time)
	}
	return true, true
}

func (b *heard) newerThan(o *heard) bool {
	if o == nil || b.At() != o.At() {
		return o == nil || b.At().Newer(o.At())
	}
	return b.Time.After(o.Time)
}

// Beacon returns the newest beacon, to be passed on.
func (k *Keeper) Beacon() (Envelope, bool) {
	k.news.Lock()
	defer k.news.Unlock()
	if k.newest == nil {
		return Envelope{}, false
	}
	return k.newest.env, true
}

// Behind returns the version that a beacon proves to exist if this node does
// not hold it yet: a reason to pull.
func (k *Keeper) Behind() (cluster.Version, bool) {
	k.news.Lock()
	defer k.news.Unlock()
	if k.newest == nil || !k.newest.At().Newer(k.View().At()) {
		return cluster.Version{}, false
	}
	return k.newest.At(), true
}
