package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"
)

// Bounds of what Tail reads and returns.
const (
	MaxTail  = 1000    // lines
	tailRead = 2 << 20 // bytes from the end of the file
)

// Tail returns the newest lines of a log, the oldest of them first: at most n,
// of what was written at since or later. More reports whether there are older
// ones that fit, in the file or perhaps in one that was rotated away. Lines that
// are not readable are left out.
func Tail(path string, n int, since time.Time) (lines []json.RawMessage, more bool, err error) {
	text, whole, err := readEnd(path)
	if err != nil {
		return nil, false, fmt.Errorf("read audit log: %w", err)
	}
	parts := bytes.Split(text, []byte("\n"))
	if !whole {
		parts = parts[1:] // the rest of a line
	}
	for _, part := range slices.Backward(parts) {
		var l struct {
			Time time.Time `json:"time"`
		}
		if json.Unmarshal(part, &l) != nil {
			continue // also the empty rest after the last line end
		}
		if l.Time.Before(since) {
			slices.Reverse(lines)
			return lines, false, nil
		}
		if len(lines) == min(n, MaxTail) {
			more = true
			break
		}
		lines = append(lines, part)
	}
	slices.Reverse(lines)
	return lines, more || !whole, nil
}

// readEnd reads the end of a file; whole: it is all of it. A log that was not
// begun is empty.
func readEnd(path string) (text []byte, whole bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		return nil, false, fmt.Errorf("%s is no regular file", path)
	}
	from := max(0, info.Size()-tailRead)
	text, err = io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	return text, from == 0, err
}
