package masterd

import (
	"bytes"
	"context"
	"net/http"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/rapi"
	"rolekey/rpc"
)

// localRoutes are the routes of masterd's socket: what noded asks, and RAPI
// for the commands.
func (d *Daemon) localRoutes() http.Handler {
	top := http.NewServeMux()
	rpc.HandleLocal(top, http.MethodPost, rpc.LocalView, func(ctx context.Context, v *rpc.LocalViewReply) (any, error) {
		err := d.intake(ctx, v)
		return rpc.LocalViewAnswer{Recovered: d.unheard(v.Map)}, err
	})
	rpc.HandleLocal(top, http.MethodPost, rpc.LocalRevive, d.revive)
	rpc.HandleLocal(top, http.MethodPost, rpc.LocalRefound, d.refound)
	rpc.HandleLocalStream(top, http.MethodPost, rpc.LocalBackup, d.backUp)
	rpc.HandleLocal(top, http.MethodPost, rpc.LocalBootstrap, d.bootstrap)
	rpc.HandleLocal(top, http.MethodPost, rpc.LocalKeysCreate, d.createKeys)
	rpc.HandleLocal(top, http.MethodPost, rpc.LocalKeysDestroy, d.destroyKeys)
	rpc.HandleLocal(top, http.MethodGet, rpc.LocalKeysState, d.keysState)
	rpc.HandleLocal(top, http.MethodPost, rpc.LocalFailover, d.failover)
	rpc.HandleLocal(top, http.MethodGet, rpc.LocalEvictions, d.evictions)
	top.Handle("/", rapi.New(d, d.cfg.Now))
	return top
}

func (d *Daemon) createKeys(_ context.Context, r *rpc.LocalKeysRequest) (any, error) {
	if err := d.mayReplace(r.Certificate); err != nil {
		return nil, err
	}
	keys, err := d.vault.ensureListed(*r, d.listed())
	if err != nil {
		return nil, err
	}
	d.poke()
	return keys, nil
}

// mayReplace refuses a certificate that the map does not list yet while another
// one is in use: this node would be a candidate no more.
func (d *Daemon) mayReplace(der []byte) error {
	used := d.vault.certificate()
	if len(der) == 0 || used == nil || bytes.Equal(used.Certificate[0], der) {
		return nil
	}
	self := d.standing()
	if self == nil || self.keeper.View().Map == nil {
		return nil
	}
	m := self.keeper.View().Map
	if m.ByClient(cluster.DigestOf(used.Certificate[0])) == nil || m.ByClient(cluster.DigestOf(der)) != nil {
		return nil
	}
	return cluster.Errorf(cluster.CodeConflict, "the map that masterd holds does not list this certificate yet, and lists the one in use")
}

// listed returns the signing key that the map lists of this node, or nil.
func (d *Daemon) listed() candmap.SigningKey {
	self := d.standing()
	if self == nil {
		return nil
	}
	if m := self.keeper.View().Map; m != nil {
		if c := m.Candidate(self.node); c != nil && c.Incarnation == self.incarnation {
			return c.Signing
		}
	}
	return nil
}

// destroyKeys ends this node's life as a candidate first: the files must not
// be in use when they go.
func (d *Daemon) destroyKeys(ctx context.Context, _ *struct{}) (any, error) {
	if err := d.endMember(ctx); err != nil {
		return nil, err
	}
	defer d.unuse()
	defer d.pending.Store(nil)
	return d.vault.destroy(), nil
}

// endMember waits until no member runs or is being started, and keeps it so; the
// map must have dropped this node. One that was just started may not have it yet.
func (d *Daemon) endMember(ctx context.Context) error {
	select {
	case d.using <- struct{}{}:
		return nil
	default:
	}
	if d.mayStart() {
		return cluster.Errorf(cluster.CodeBusy, "the map that masterd holds still names this node as a candidate; its keys are in use").
			WithHint("it goes by the newest map in a moment")
	}
	d.poke()
	return d.use(ctx)
}

func (d *Daemon) keysState(context.Context, *struct{}) (any, error) {
	reply := rpc.LocalKeysReply{Present: d.vault.present()}
	if c := d.vault.certificate(); c != nil {
		reply.Client = append(reply.Client, cluster.DigestOf(c.Certificate[0]))
	}
	return reply, nil
}
