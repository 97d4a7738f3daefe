package masterd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	"go.uber.org/zap"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/internal/atomicfile"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// A recovered state is put together in a folder of its own. The folder's rename
// is the commit: before it the old state is in force, after it the new one, and
// whatever of the exchange a crash leaves undone is done at the next start,
// before anything is opened. The old state is destroyed by the exchange; the map
// stays in the folder until noded holds it.
const (
	tmpSuffix    = ".tmp"
	recoveredMap = "map.json"
)

// recovered is a map that was committed, and is not in force yet.
type recovered struct {
	at       cluster.Version
	delivery rpc.MapDelivery
}

// commitState writes the state as the beginning of a raft of its own.
func (d *Daemon) commitState(s *state.State, id raft.ServerID, m rpc.MapDelivery, index, term uint64) error {
	dir := d.cfg.Paths.RecoveryDir()
	tmp := dir + tmpSuffix
	for _, p := range []string{tmp, dir} { // an earlier recovery's: it is in force, or this is a later one
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	if err := d.writeState(tmp, s, id, index, term); err != nil {
		return err
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = atomicfile.Write(filepath.Join(tmp, recoveredMap), b, atomicfile.Durable(0o600))
	}
	if err == nil {
		err = d.step("commit")
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err == nil {
		err = atomicfile.SyncDir(d.cfg.Paths.MasterdDir())
	}
	if err != nil {
		return err
	}
	return d.resumeRecovery()
}

func (d *Daemon) writeState(dir string, s *state.State, id raft.ServerID, index, term uint64) error {
	ring := d.vault.keyring()
	store, err := consensus.OpenStore(consensus.StoreConfig{Path: rebased(dir, d.cfg.Paths.RaftDB()), Sealer: ring})
	if err != nil {
		return err
	}
	snaps, err := consensus.OpenSnapshots(consensus.SnapshotsConfig{Dir: rebased(dir, d.cfg.Paths.SnapshotDir()), Keyring: ring})
	if err == nil {
		err = writeSigned(store, signed{s.Head().Version, s.Head().Hash})
	}
	if err == nil {
		err = consensus.FoundAt(id, store, snaps, s, index, term)
	}
	return errors.Join(err, store.Close())
}

func rebased(dir, path string) string { return filepath.Join(dir, filepath.Base(path)) }

// resumeRecovery completes the exchange of a recovery that is committed. Nothing
// of the candidate's state may be open.
func (d *Daemon) resumeRecovery() error {
	dir := d.cfg.Paths.RecoveryDir()
	if missing(dir) {
		return nil
	}
	for _, to := range []string{d.cfg.Paths.SnapshotDir(), d.cfg.Paths.RaftDB()} {
		if err := d.exchange(rebased(dir, to), to); err != nil {
			return fmt.Errorf("complete recovery: %w", err)
		}
	}
	for _, p := range []string{dir, d.cfg.Paths.MasterdDir()} {
		if err := atomicfile.SyncDir(p); err != nil {
			return fmt.Errorf("complete recovery: %w", err)
		}
	}
	return d.loadRecovered(filepath.Join(dir, recoveredMap))
}

func (d *Daemon) exchange(from, to string) error {
	if missing(from) {
		return nil // done before a crash
	}
	if err := d.step("exchange " + filepath.Base(to)); err != nil {
		return err
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (d *Daemon) loadRecovered(path string) error {
	text, err := readIfThere(path)
	if err != nil {
		return err
	}
	var p recovered
	if text != nil {
		if err := json.Unmarshal(text, &p.delivery); err != nil {
			return fmt.Errorf("read recovered map: %w", err)
		}
	}
	if len(p.delivery.Maps) == 0 {
		return nil
	}
	m, err := candmap.DecodeMap(p.delivery.Maps[0].Payload)
	if err != nil {
		return fmt.Errorf("read recovered map: %w", err)
	}
	p.at = m.At()
	d.pending.Store(&p)
	return nil
}

func readIfThere(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// awaits reports whether this node may not act by a map: its state is that of a
// recovery, and the voters of the map before would pass for its own.
func (d *Daemon) awaits(m *candmap.Verified) bool {
	p := d.pending.Load()
	return p != nil && p.at.Newer(m.At())
}

// unheard returns the recovered map if the one that noded told is older.
func (d *Daemon) unheard(told candmap.Envelope) *rpc.MapDelivery {
	p := d.pending.Load()
	if p == nil {
		return nil
	}
	if m, err := candmap.DecodeMap(told.Payload); err != nil || !p.at.Newer(m.At()) {
		return nil
	}
	return &p.delivery
}

// settleRecovery forgets the recovered map when noded holds it, or a newer one.
func (d *Daemon) settleRecovery(held *candmap.Verified) {
	p := d.pending.Load()
	if p == nil || held == nil || p.at.Newer(held.At()) {
		return
	}
	d.pending.Store(nil)
	if err := os.RemoveAll(d.cfg.Paths.RecoveryDir()); err != nil {
		d.log.Warn("a folder of the recovery is left behind", zap.Error(err)) // it means nothing any more
	}
}

// step is where tests make a crash.
func (d *Daemon) step(name string) error {
	if d.cfg.Crash == nil {
		return nil
	}
	return d.cfg.Crash(name)
}
