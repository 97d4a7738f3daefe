package sshkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// disable turns into comments, in place, the lines of old that are ours and
// whose key the block no longer holds. It needs no space on the disk and moves
// no byte: the first characters of each line become a mark, which the next
// Splice recognises and takes away. It returns how many revoked lines are
// disabled now, counting those of earlier calls.
func (f File) disable(old []byte, b Block) (n int, err error) {
	current := map[string]bool{}
	for _, l := range b.lines {
		current[l.key] = true
	}
	lines := parseFile(old, b.cluster, b.file)
	drop, _ := claim(lines)
	var offsets []int64
	at := int64(0)
	for i, l := range lines {
		if drop[i] && l.kind == keyLine {
			if l.key == "" {
				n++
			} else if !current[l.key] {
				offsets = append(offsets, at)
			}
		}
		at += int64(len(l.bytes))
	}
	if len(offsets) == 0 {
		return n, nil
	}
	done, err := f.overwrite(old, offsets)
	if err != nil {
		return n + done, fmt.Errorf("disable revoked lines of %s: %w", f.Path, err)
	}
	return n + done, nil
}

// overwrite puts the mark at each offset of the file, which must still hold
// old. Each write is a few bytes: a torn one leaves a comment as well.
func (f File) overwrite(old []byte, offsets []int64) (done int, err error) {
	h, err := os.OpenFile(f.Path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	now, err := io.ReadAll(io.LimitReader(h, MaxFile+1))
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(now, old) {
		return 0, errChanged
	}
	for _, at := range offsets {
		if _, err := h.WriteAt([]byte(offPrefix), at); err != nil {
			return done, err
		}
		done++
	}
	return done, h.Sync()
}
