package masterip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"rolekey/cluster"
	"rolekey/internal/atomicfile"
)

// maxRecord bounds the file, in bytes.
const maxRecord = 4 << 10

// readRecord tells which address this node has put onto a device; nil: none. A
// file that is not readable as written means none: then whatever stands there
// counts as somebody else's, and ends by its lifetime.
func readRecord(path string) (*cluster.MasterAddress, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read address held: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read address held: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var m cluster.MasterAddress
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("read address held: %s: %w", path, err)
	}
	return &m, m.Check()
}

// writeRecord comes before the address itself, so that none is ours without
// it. Neither survives a loss of power, so it is not synced.
func writeRecord(path string, m cluster.MasterAddress) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode address held: %w", err)
	}
	return atomicfile.Write(path, append(text, '\n'), atomicfile.Derived(0o600))
}

func removeRecord(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of the address held: %w", err)
	}
	return nil
}
