package noded

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/pki"
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// Pauses of the look at this machine's sshd.
const (
	hostsLook  = 5 * time.Second  // at its host keys
	hostsAsk   = 30 * time.Second // at its configuration, and after a refusal
	hostsAgain = 10 * time.Minute // until the master hears the same again
)

// hostWatch tells the master when the host keys of this machine's sshd, or its
// port, are not those of the roster. One loop owns it; seen is for others.
type hostWatch struct {
	m    *member
	note string // file: the ports that sshd had when the roster agreed

	conf   sshkeys.Config
	asked  time.Time // for conf
	agreed []uint16  // content of note
	said   string    // what the master has answered
	saidAt time.Time
	tried  string    // what was to be said last
	hold   time.Time // nothing is sent before, unless it is something else
	pause  time.Duration
	issued time.Time // of the newest statement
	open   bool      // the master may hold something of ours that is not in the roster
	logged string

	mu   sync.Mutex
	seen []cluster.SSHKey
}

// ownHosts are what sshd is configured with.
type ownHosts struct {
	keys  []cluster.SSHKey // sorted
	ports []uint16         // empty: not known
}

// hostsNote is the content of sshd.json.
type hostsNote struct {
	Ports []uint16 `json:"ports"`
}

func (m *member) openHosts(dir string) {
	// A candidate may have been restarted while something was pending.
	m.hosts = &hostWatch{m: m, note: filepath.Join(dir, hostsFile), open: true}
	var n hostsNote
	if _, err := readStrict(m.hosts.note, &n); err != nil {
		m.log.Warn("a change of sshd's port may go unnoticed once", zap.Error(err))
	}
	m.hosts.agreed = n.Ports
}

// followHostKeys looks at this machine's sshd now and then, and when root asks
// for it with SIGHUP.
func (m *member) followHostKeys(ctx context.Context) error {
	for {
		m.hosts.look(ctx)
		timer := time.NewTimer(hostsLook)
		select {
		case <-timer.C:
		case <-m.hostsNow:
			m.hosts.asked, m.hosts.tried = time.Time{}, ""
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// look compares sshd with the roster, and tells the master of a difference.
func (w *hostWatch) look(ctx context.Context) {
	own, err := w.own(ctx)
	if err != nil {
		w.tell("the host keys of this machine's sshd are not known", err)
		return
	}
	w.mu.Lock()
	w.seen = own.keys
	w.mu.Unlock()
	v, n := w.m.keeper.View(), w.m.self()
	if n == nil || !wantsSSH(v) || !changesHosts(v.Roster) {
		return
	}
	port := w.port(n.Ports.SSH, own.ports)
	same := port == n.Ports.SSH && sameKeys(own.keys, n.HostKeys)
	if same && (!w.open || !n.Flags.MasterCandidate && !n.Flags.Offline && w.said == "") {
		w.logged, w.open = "", false
		return
	}
	what := fmt.Sprint(port, fingerprints(own.keys), n.Incarnation, n.Flags, v.Map.Master)
	now := w.m.cfg.now()
	switch {
	case what == w.said && now.Sub(w.saidAt) < hostsAgain:
		return
	case what != w.tried:
		w.tried, w.pause = what, hostsLook
	case now.Before(w.hold):
		return
	}
	if err := w.say(ctx, n, own, port, same); err != nil {
		if refused(err) {
			w.pause = hostsAsk
		}
		w.hold, w.pause = now.Add(w.pause), min(2*w.pause, hostsAsk)
		if !same {
			w.tell("the master does not know the host keys of this machine's sshd yet", err)
		}
		return
	}
	w.said, w.saidAt = what, now
}

// changesHosts reports whether the cluster is at a level at which the master
// takes statements. Settings about SSH came with it.
func changesHosts(r *candmap.Roster) bool {
	return r != nil && r.Settings() != nil && r.Settings().SSH != nil
}

// refused reports whether the master has understood, and does not want to.
func refused(err error) bool {
	switch cluster.CodeOf(err) {
	case cluster.CodeNotMaster, cluster.CodeNoQuorum, cluster.CodeUnavailable, cluster.CodeInternal:
		return false
	}
	return true
}

// own reads the public host keys anew, and at times the configuration.
func (w *hostWatch) own(ctx context.Context) (ownHosts, error) {
	f := w.m.ssh.finder
	if now := w.m.cfg.now(); w.asked.IsZero() || now.Sub(w.asked).Abs() >= hostsAsk {
		account, err := f.account()
		if err != nil {
			return ownHosts{}, err
		}
		if w.conf, err = f.probe(ctx, account.Name); err != nil {
			return ownHosts{}, err
		}
		w.asked = now
	}
	keys, err := f.hostKeys(w.conf)
	if len(keys) == 0 {
		return ownHosts{}, errors.Join(errors.New("sshd has no host key of a kind that Rolekey uses"), err)
	}
	slices.SortFunc(keys, pki.CompareHostKeys)
	keys = slices.CompactFunc(keys, sameKey)
	out := ownHosts{keys[:min(len(keys), pki.MaxHostKeys)], w.conf.Port}
	if !w.m.cfg.askSSHPort {
		out.ports = []uint16{w.m.cfg.Ports.SSH}
	}
	return out, nil
}

// port is the one that the roster should have. Where sshd listens on several,
// or where the administrator has set another one, which may be that of a
// gateway, the roster's stays until sshd's own change.
func (w *hostWatch) port(listed uint16, ports []uint16) uint16 {
	switch {
	case len(ports) == 0:
		return listed
	case slices.Contains(ports, listed) || len(w.agreed) == 0:
		w.agree(ports)
		return listed
	case slices.Equal(ports, w.agreed):
		return listed
	}
	return ports[0]
}

func (w *hostWatch) agree(ports []uint16) {
	if slices.Equal(ports, w.agreed) {
		return
	}
	w.agreed = slices.Clone(ports)
	if err := writeJSON(w.note, hostsNote{w.agreed}); err != nil {
		w.m.log.Warn("a change of sshd's port may go unnoticed after a restart of noded", zap.Error(err))
	}
}

// say makes a statement, and sends it. What sshd is configured with counts once
// it runs with that.
func (w *hostWatch) say(ctx context.Context, n *candmap.RosterNode, own ownHosts, port uint16, same bool) error {
	if !same {
		if err := w.m.shows(ctx, n, own.keys, port); err != nil {
			return fmt.Errorf("sshd does not run with its configuration yet: %w", err)
		}
	}
	now := w.m.cfg.now().UTC().Truncate(time.Millisecond)
	if !now.After(w.issued) {
		now = w.issued.Add(time.Millisecond)
	}
	w.issued = now
	statement, err := pki.SignHosts(w.m.certs[identityPair].pair.Load().Key(), pki.Hosts{
		Cluster: w.m.id.Cluster, Node: n.UUID, Incarnation: w.m.id.Incarnation, Issued: now, Port: port, Keys: own.keys,
	})
	if err != nil {
		return err
	}
	v := w.m.keeper.View()
	if v.Map.Master.IsZero() {
		return cluster.Errorf(cluster.CodeNotMaster, "no master is known")
	}
	var reply rpc.HostKeysReply
	if err := w.m.client.Call(ctx, masterdOf(v.Map.Master), rpc.MethodHostKeys, "", statement, &reply); err != nil {
		return err
	}
	w.heard(n, reply.Verdict, own.keys)
	if !w.open && len(own.ports) > 0 {
		w.agree(own.ports) // the roster will
	}
	return nil
}

// heard notes what the master made of a statement, for people and for later.
func (w *hostWatch) heard(n *candmap.RosterNode, verdict string, keys []cluster.SSHKey) {
	w.open = verdict == "pending" || verdict == "waits" || verdict == "rejected"
	fields := []zap.Field{zap.String("verdict", verdict), zap.String("host_keys", fingerprints(keys))}
	switch {
	case w.logged == verdict || !w.open && verdict == "current":
	case verdict == "rejected":
		w.m.log.Warn("the administrator has rejected the host keys of this machine's sshd: ssh from other nodes refuses it", fields...)
	case w.open:
		w.m.log.Warn("the host keys of this master candidate's sshd have changed: ssh from other nodes refuses it until an administrator confirms them, on the master: gnt-node accept-host-keys "+string(n.Name), fields...)
	default:
		w.m.log.Info("the master has taken the host keys of this machine's sshd", fields...)
	}
	w.logged = verdict
}

// tell logs a problem once.
func (w *hostWatch) tell(what string, err error) {
	if err.Error() != w.logged {
		w.logged = err.Error()
		w.m.log.Warn(what, zap.Error(err), zap.String("hint", cluster.HintOf(err)))
	}
}

// keys are the host keys that sshd is configured with, as seen last.
func (w *hostWatch) keys() []cluster.SSHKey {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

func sameKeys(a, b []cluster.SSHKey) bool { return len(a) == len(b) && len(newKeys(a, b)) == 0 }

// newKeys are those of a that b lacks.
func newKeys(a, b []cluster.SSHKey) []cluster.SSHKey {
	return slices.DeleteFunc(slices.Clone(a), func(k cluster.SSHKey) bool {
		return slices.ContainsFunc(b, func(o cluster.SSHKey) bool { return sameKey(k, o) })
	})
}
