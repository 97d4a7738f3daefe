package noded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/internal/paths"
	"rolekey/pki"
	"rolekey/rpc"
)

const (
	masterdTell = time.Second      // a map's acknowledgement waits no longer
	masterdWork = 30 * time.Second // founding a cluster, making keys

	masterdRevival = 5 * time.Minute // it reads and writes all of the state
)

// localMasterd is masterd on this machine, which may not be running.
type localMasterd struct {
	at     paths.Layout
	client *rpc.LocalClient

	offered atomic.Pointer[rpc.MapDelivery] // of a recovery that this node does not know of yet

	turn chan struct{} // held by whoever tells it of the cluster
	mu   sync.Mutex    // guards told and acts
	told told
	acts bool // it may take this node for a candidate
}

// told is what masterd was told last, and which run of it.
type told struct {
	socket fileID
	view   *candmap.View
}

type fileID struct {
	dev, ino uint64
	sec, ns  int64
}

func newLocalMasterd(at paths.Layout, dial func(ctx context.Context, path string) (net.Conn, error)) *localMasterd {
	there := func(ctx context.Context) (net.Conn, error) { return dial(ctx, at.MasterdSock()) }
	return &localMasterd{at: at, client: rpc.NewLocalClient(there), turn: make(chan struct{}, 1)}
}

// absent reports whether an error of a call means that masterd does not run.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// running fails, with a hint, if masterd does not answer.
func (l *localMasterd) running(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := l.keys(ctx)
	return l.explain(err)
}

func (l *localMasterd) explain(err error) error {
	if err == nil || !absent(err) {
		return err
	}
	return cluster.Errorf(cluster.CodeUnavailable, "masterd does not run on this node").
		WithHint("start it, with systemctl start rolekey-masterd, and run the command again")
}

func (l *localMasterd) keys(ctx context.Context) (rpc.LocalKeysReply, error) {
	var reply rpc.LocalKeysReply
	err := l.client.Do(ctx, http.MethodGet, rpc.LocalKeysState, nil, &reply)
	return reply, err
}

func (l *localMasterd) bootstrap(ctx context.Context, r rpc.BootstrapRequest) (rpc.BootstrapReply, error) {
	ctx, cancel := context.WithTimeout(ctx, masterdWork)
	defer cancel()
	var reply rpc.BootstrapReply
	err := l.client.Do(ctx, http.MethodPost, rpc.LocalBootstrap, r, &reply)
	return reply, l.explain(err)
}

func (l *localMasterd) createKeys(ctx context.Context, r rpc.LocalKeysRequest) (rpc.CandidateKeys, error) {
	ctx, cancel := context.WithTimeout(ctx, masterdWork)
	defer cancel()
	var keys rpc.CandidateKeys
	err := l.client.Do(ctx, http.MethodPost, rpc.LocalKeysCreate, r, &keys)
	return keys, l.explain(err)
}

// revive has masterd make the state that goes on with this node alone.
func (l *localMasterd) revive(ctx context.Context, r rpc.ReviveRequest) (rpc.ReviveReply, error) {
	ctx, cancel := context.WithTimeout(ctx, masterdRevival)
	defer cancel()
	var reply rpc.ReviveReply
	err := l.client.Do(ctx, http.MethodPost, rpc.LocalRevive, r, &reply)
	return reply, l.explain(err)
}

// refound has masterd make the state of a backup go on with this node.
func (l *localMasterd) refound(ctx context.Context, r rpc.RefoundRequest) (rpc.RefoundReply, error) {
	ctx, cancel := context.WithTimeout(ctx, masterdRevival)
	defer cancel()
	var reply rpc.RefoundReply
	err := l.client.Do(ctx, http.MethodPost, rpc.LocalRefound, r, &reply)
	return reply, l.explain(err)
}

// destroyKeys has masterd destroy its keys. It must not depend on masterd that a
// lost role loses them: noded removes the files itself if masterd does not run,
// and otherwise what it left, by inability or by ill will. Under one that hangs
// or fails it removes the keys alone, since the rest may be in use, and tells
// that this was not all.
func (l *localMasterd) destroyKeys(caller context.Context) (rpc.KeyDestroyReply, error) {
	ctx, cancel := context.WithTimeout(caller, masterdWork)
	defer cancel()
	var reply rpc.KeyDestroyReply
	err := l.client.Do(ctx, http.MethodPost, rpc.LocalKeysDestroy, struct{}{}, &reply)
	switch {
	case absent(err):
		return l.remove(l.keyFiles()...), nil
	case err == nil:
		rest := l.remove(l.keyFiles()...)
		rest.Removed = append(reply.Removed, rest.Removed...)
		return rest, nil
	case caller.Err() != nil:
		return reply, err // nobody waits any more
	}
	reply = l.remove(l.at.SigningKey(), l.at.NextSigningKey(), l.at.CandidateKey(), l.at.NextCandidateKey())
	reply.Problems = append(reply.Problems, fmt.Sprintf("masterd does not confirm: it may hold keys in memory until it is restarted, and its state is still on disk: %v", err))
	return reply, nil
}

func (l *localMasterd) keyFiles() []string {
	return []string{
		l.at.SigningKey(), l.at.NextSigningKey(), l.at.CandidateKey(), l.at.NextCandidateKey(), l.at.Keyring(), l.at.CandidateCert(), l.at.RaftDB(), l.at.SnapshotDir(),
		l.at.RecoveryDir() + ".tmp", l.at.RecoveryDir(), l.at.RecoveryNote(),
	}
}

// remove removes files of masterd's folder, which belongs to masterd: nothing in
// it is followed.
func (l *localMasterd) remove(files ...string) rpc.KeyDestroyReply {
	var names []string
	for _, p := range files {
		names = append(names, filepath.Base(p))
	}
	return rpc.Destroyed(atomicfile.Erase(l.at.MasterdDir(), names...))
}

// present lists what lies in masterd's folder of a candidate's role.
func (l *localMasterd) present() ([]string, error) {
	found, err := atomicfile.Leftovers(l.at.MasterdDir())
	for _, p := range l.keyFiles() {
		if _, err := os.Lstat(p); err == nil {
			found = append(found, p)
		}
	}
	return found, err
}

// lying returns the digest of the candidate certificate that lies in masterd's
// folder, whoever put it there.
func (l *localMasterd) lying() (cluster.Digest, bool) {
	text, err := readKeyFile(l.at.CandidateCert())
	if err != nil {
		return cluster.Digest{}, false
	}
	cert, err := pki.ParseCert(text)
	if err != nil {
		return cluster.Digest{}, false
	}
	return cluster.DigestOf(cert.Raw), true
}

// tell gives masterd the view; it returns when masterd enforces it. A masterd
// that does not run enforces nothing, and is told when it starts. Of roster and
// chain it hears what is new since the view that this run of it confirmed last.
func (l *localMasterd) tell(ctx context.Context, v *candmap.View, reply func(since *candmap.View) rpc.LocalViewReply) error {
	ctx, cancel := context.WithTimeout(ctx, masterdTell)
	defer cancel()
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return errors.New("masterd on this node did not confirm the map: it is busy with an earlier one")
	}
	socket, ok := l.socket()
	if !ok {
		l.remember(told{})
		return nil
	}
	now := told{socket, v}
	var answer rpc.LocalViewAnswer
	err := l.client.Do(ctx, http.MethodPost, rpc.LocalView, reply(l.confirmed(socket)), &answer)
	if err == nil {
		l.remember(now)
		if answer.Recovered != nil {
			l.offered.Store(answer.Recovered)
		}
		return nil
	}
	l.remember(told{})
	if absent(err) {
		return nil
	}
	return fmt.Errorf("masterd on this node did not confirm the map: %w", err)
}

func (l *localMasterd) remember(t told) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = t
}

// confirmed returns the view that a run of masterd confirmed last, or nil.
func (l *localMasterd) confirmed(socket fileID) *candmap.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told.socket != socket {
		return nil
	}
	return l.told.view
}

// mayAct notes that masterd is given a view that names this node a candidate.
func (l *localMasterd) mayAct() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acts = true
}

// rests notes that masterd has confirmed a view by which it has nothing to do,
// if that is the newest: of a newer one it may have been noted that it acts.
func (l *localMasterd) rests(newest func() bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acts = l.acts && !newest()
}

// idle reports whether masterd has confirmed that this node is no candidate, and
// was given no other view since. It enforces nothing then.
func (l *localMasterd) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told.view != nil && !l.acts
}

func (l *localMasterd) knows(t told) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told == t
}

// untold reports whether masterd has not confirmed this view, or was started
// anew since.
func (l *localMasterd) untold(v *candmap.View) bool {
	socket, ok := l.socket()
	return ok && !l.knows(told{socket, v})
}

// forget makes masterd forget the cluster.
func (l *localMasterd) forget(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, masterdWork)
	defer cancel()
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	l.remember(told{})
	err := l.client.Do(ctx, http.MethodPost, rpc.LocalView, rpc.LocalViewReply{}, nil)
	if absent(err) {
		return nil
	}
	return err
}

// socket identifies one run of masterd: each makes its socket anew.
func (l *localMasterd) socket() (fileID, bool) {
	var st syscall.Stat_t
	if err := syscall.Lstat(l.at.MasterdSock(), &st); err != nil {
		return fileID{}, false
	}
	return fileID{uint64(st.Dev), st.Ino, st.Ctim.Sec, st.Ctim.Nsec}, true
}
