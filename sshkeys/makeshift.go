package sshkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// makeshift does, in place, what can be done to a file that cannot be replaced.
// It needs no space on the disk and moves no byte:
//
//   - the beginning of each line of ours whose key the block no longer holds
//     becomes a mark, so that the line is a comment;
//   - a line of ours whose key stays, such as one with a new expiry, is brought
//     up to date if it does not grow;
//   - a key that is missing gets the room of a revoked line that is long enough,
//     so that the key of a new master comes in where the old one's goes.
//
// The next Splice recognises all of it, and leaves a block as it should be.
// Report.Disabled counts the revoked lines that open nothing now, those of
// earlier calls included; Report.InPlace counts the lines that were written.
func (f File) makeshift(old []byte, b Block, r *Report) error {
	patches, off := planPatches(old, b)
	r.Disabled = off
	if len(patches) == 0 {
		return nil
	}
	if err := f.patch(old, patches, r); err != nil {
		return fmt.Errorf("change lines of %s in place: %w", f.Path, err)
	}
	return nil
}

// patch is what one line becomes; empty text makes it a comment.
type patch struct {
	at      int64 // of the line
	was     string
	text    string
	revoked bool // the line's key must open nothing
}

// planPatches returns them in the order in which they are to be made, and how
// many lines are comments already.
func planPatches(old []byte, b Block) (patches []patch, off int) {
	p := planner{wanted: map[string]bool{}, current: map[string]bool{}}
	for _, l := range b.lines {
		p.wanted[l.text], p.current[l.key] = true, true
	}
	p.collect(old, b)
	for _, l := range b.lines {
		if !p.there[l.text] {
			p.place(l)
		}
	}
	for _, s := range p.slots {
		switch {
		case s.taken:
		case s.key == "":
			off++
		case !p.current[s.key]:
			// Before the others: closing goes first.
			patches = append(patches, patch{at: s.at, was: s.text, revoked: true})
		}
	}
	return append(patches, p.placed...), off
}

// slot is the place of a line of ours that need not stay.
type slot struct {
	at    int64
	text  string // without the end of the line
	key   string // "" if it is a comment already
	taken bool
}

type planner struct {
	wanted, current map[string]bool // texts and keys of the block
	there           map[string]bool // texts that need not be written
	slots           []slot
	placed          []patch
}

func (p *planner) collect(old []byte, b Block) {
	p.there = map[string]bool{}
	lines := parseFile(old, b.cluster, b.file)
	drop, _ := claim(lines)
	at := int64(0)
	for i, l := range lines {
		if drop[i] && (l.kind == keyLine || l.kind == cutLine) {
			text := strings.TrimRight(string(l.bytes), "\r\n")
			if trimmed := strings.Trim(text, blanks); p.wanted[trimmed] {
				p.there[trimmed] = true
			} else {
				p.slots = append(p.slots, slot{at: at, text: text, key: l.key})
			}
		}
		at += int64(len(l.bytes))
	}
}

// place finds room for a line: that of the same key first, then that of a
// revoked one, then that of a comment.
func (p *planner) place(l blockLine) {
	fits := []func(s slot) bool{
		func(s slot) bool { return s.key == l.key },
		func(s slot) bool { return s.key != "" && !p.current[s.key] },
		func(s slot) bool { return s.key == "" },
	}
	for _, fit := range fits {
		for i, s := range p.slots {
			if s.taken || !fit(s) || len(s.text) < len(l.text) {
				continue
			}
			p.slots[i].taken = true
			text := l.text + strings.Repeat(" ", len(s.text)-len(l.text))
			p.placed = append(p.placed, patch{at: s.at, was: s.text, text: text, revoked: s.key != "" && s.key != l.key})
			return
		}
	}
}

// patch makes the changes to the file, which must still hold old. One that
// fails keeps no other from being tried.
func (f File) patch(old []byte, patches []patch, r *Report) (err error) {
	h, err := f.on().OpenFile(f.Path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	now, err := io.ReadAll(io.LimitReader(h, MaxFile+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(now, old) {
		return errChanged
	}
	var errs []error
	for _, p := range patches {
		errs = append(errs, p.write(h, r))
	}
	return errors.Join(append(errs, h.Sync())...)
}

// write makes one change. It is one small write, so that no reader and no crash
// of this process finds the line half done; if the machine loses power, half a
// mark is a comment as well, and half a key opens nothing.
func (p patch) write(h io.WriterAt, r *Report) error {
	var err error
	if p.text != "" {
		from, to := difference(p.was, p.text)
		if _, err = h.WriteAt([]byte(p.text[from:to]), p.at+int64(from)); err == nil {
			r.InPlace++
		}
	}
	if p.revoked && (p.text == "" || err != nil) {
		_, offErr := h.WriteAt([]byte(offPrefix), p.at)
		err = errors.Join(err, offErr)
		if offErr != nil {
			return err
		}
	}
	if p.revoked {
		r.Disabled++
	}
	r.Changed = true
	return err
}

// difference returns the shortest stretch outside of which two texts of one
// length are the same.
func difference(a, b string) (from, to int) {
	to = len(b)
	for from < to && a[from] == b[from] {
		from++
	}
	for to > from && a[to-1] == b[to-1] {
		to--
	}
	return from, to
}
