package ssconf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"rolekey/internal/atomicfile"
)

// MaxFile is the largest file that Ganeti's readers take, in bytes.
const MaxFile = 128 << 10

const mode = 0o444

// Dir is where the files lie.
type Dir struct {
	Path func(name string) string // of the file that holds the fact
}

// Write makes the files say what is rendered, and writes only what differs. A
// fact that is missing, or too long for a file, has no file: an old one would
// be a lie.
func (d Dir) Write(texts map[string]string) error {
	var errs []error
	for _, name := range Names {
		errs = append(errs, d.writeOne(name, texts))
	}
	return errors.Join(errs...)
}

func (d Dir) writeOne(name string, texts map[string]string) error {
	path := d.Path(name)
	text, ok := texts[name]
	switch {
	case !ok:
		return remove(path)
	case len(text) > MaxFile:
		return errors.Join(fmt.Errorf("ssconf_%s would be of %d bytes, and no reader takes more than %d; it is left out", name, len(text), MaxFile), remove(path))
	case says(path, text):
		return nil
	}
	return atomicfile.Write(path, []byte(text), atomicfile.Derived(mode))
}

// says reports whether a file is as it would be written.
func says(path, text string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != mode || info.Size() != int64(len(text)) {
		return false
	}
	have, err := os.ReadFile(path)
	return err == nil && bytes.Equal(have, []byte(text))
}

// Remove takes all files away, and what an interrupted Write left.
func (d Dir) Remove() error {
	var errs []error
	for _, name := range Names {
		path := d.Path(name)
		errs = append(errs, remove(path), remove(atomicfile.TempName(path)))
	}
	return errors.Join(errs...)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	return nil
}
