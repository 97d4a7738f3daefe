package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/raft"

	"rolekey/internal/atomicfile"
	"rolekey/seal"
)

// sink writes one snapshot under a temporary name.
type sink struct {
	store  *Snapshots
	meta   raft.SnapshotMeta
	temp   string
	file   *os.File
	stream *seal.StreamWriter
	done   bool
}

// Create implements raft.SnapshotStore.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64,
	configuration raft.Configuration, configurationIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	if version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("create snapshot: version %d is not supported", version)
	}
	id := snapshotName{term, index, s.nextMillis()}.id()
	k := &sink{store: s, temp: atomicfile.TempName(s.path(id)), meta: raft.SnapshotMeta{
		Version: version, ID: id, Index: index, Term: term,
		Configuration: configuration.Clone(), ConfigurationIndex: configurationIndex,
	}}
	if err := k.begin(); err != nil {
		return nil, fmt.Errorf("create snapshot %s: %w", id, err)
	}
	return k, nil
}

// nextMillis returns the time, or a little later: of two snapshots at one index
// the later one must sort first, even if the clock went back.
func (s *Snapshots) nextMillis() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last+1, s.now().UnixMilli())
	return s.last
}

func (k *sink) begin() (err error) {
	if k.file, err = os.OpenFile(k.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	if _, err = k.file.WriteString(snapshotMagic); err == nil {
		k.stream, err = k.store.keyring.NewStreamWriter(k.file, purposeSnapshot+k.meta.ID, k.meta.Index)
	}
	if err != nil {
		return errors.Join(err, k.Cancel())
	}
	return nil
}

// ID implements raft.SnapshotSink.
func (k *sink) ID() string { return k.meta.ID }

// Write implements raft.SnapshotSink.
func (k *sink) Write(p []byte) (int, error) {
	n, err := k.stream.Write(p)
	k.meta.Size += int64(n)
	return n, err
}

// Close implements raft.SnapshotSink: the snapshot is on disk under its name
// before Close returns. After an error nothing of it is left, unless only the
// last sync of the folder or the removal of older snapshots failed.
func (k *sink) Close() error {
	if k.done {
		return nil
	}
	if err := k.publish(); err != nil {
		return fmt.Errorf("write snapshot %s: %w", k.meta.ID, errors.Join(err, k.Cancel()))
	}
	k.done = true
	if err := atomicfile.SyncDir(k.store.dir); err != nil {
		return fmt.Errorf("write snapshot %s: %w", k.meta.ID, err)
	}
	if err := k.store.reap(); err != nil {
		return fmt.Errorf("remove old snapshots: %w", err)
	}
	return nil
}

// publish completes the file and gives it its name.
func (k *sink) publish() error {
	if err := k.stream.Close(); err != nil {
		return err
	}
	record := k.store.keyring.Seal(purposeMeta+k.meta.ID, k.meta.Index, encodeMeta(&k.meta))
	if len(record) > maxMeta || len(k.meta.Configuration.Servers) > maxServers {
		return fmt.Errorf("metadata: %w", seal.ErrTooLarge)
	}
	if _, err := k.file.Write(binary.BigEndian.AppendUint32(record, uint32(len(record)))); err != nil {
		return err
	}
	if err := errors.Join(k.file.Sync(), k.file.Close()); err != nil {
		return err
	}
	return os.Rename(k.temp, k.store.path(k.meta.ID))
}

// Cancel implements raft.SnapshotSink: nothing is left. After Close it does
// nothing.
func (k *sink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	if err := k.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return errors.Join(fmt.Errorf("cancel snapshot: %w", err), os.Remove(k.temp))
	}
	if err := os.Remove(k.temp); err != nil {
		return fmt.Errorf("cancel snapshot: %w", err)
	}
	return nil
}
