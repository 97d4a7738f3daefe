package noded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"rolekey/internal/atomicfile"
	"rolekey/sshkeys"
)

// placesFile lists the files that a block of this cluster was written to, one on
// each line. It outlives noded, so that a block that sshd no longer reads is
// taken away: sshd may read that file again one day, and no revocation reaches
// it until then.
const placesFile = "authorized_keys_files"

// keyPlaces are those files.
type keyPlaces struct {
	file string
	list []string
	used map[string]bool // in this run
}

func openPlaces(dir string) (*keyPlaces, error) {
	p := &keyPlaces{file: filepath.Join(dir, placesFile), used: map[string]bool{}}
	text, err := os.ReadFile(p.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read where keys were authorized: %w", err)
	}
	for l := range strings.Lines(string(text)) {
		if l = strings.TrimSuffix(l, "\n"); filepath.IsAbs(l) {
			p.list = append(p.list, l)
		}
	}
	return p, nil
}

// add is called before a file is written.
func (p *keyPlaces) add(path string) error {
	p.used[path] = true
	if slices.Contains(p.list, path) {
		return nil
	}
	p.list = append(p.list, path)
	return p.save()
}

func (p *keyPlaces) drop(path string) error {
	p.list = slices.DeleteFunc(p.list, func(l string) bool { return l == path })
	return p.save()
}

func (p *keyPlaces) save() error {
	text := ""
	for _, l := range p.list {
		text += l + "\n"
	}
	return atomicfile.Write(p.file, []byte(text), atomicfile.Durable(0o600))
}

// put writes the block where it belongs, and takes it out of all other files.
func (s *sshFiles) put(set *sshSettings, b sshkeys.Block) (sshkeys.Report, error) {
	if s.places == nil {
		p, err := openPlaces(s.at.NodeDir())
		if err != nil {
			s.log.Warn("files that keys were authorized in before are not looked at", zap.Error(err))
		}
		if s.places = p; p == nil {
			s.places = &keyPlaces{file: filepath.Join(s.at.NodeDir(), placesFile), used: map[string]bool{}}
		}
	}
	var report sshkeys.Report
	if set.unread != nil { // no key is honoured, which is told: nothing is less enforced
		return report, s.clear(set, b, true)
	}
	if b.Len() > 0 {
		s.noteError(s.places.add(set.authorized.Path))
	}
	report, err := set.authorized.Apply(b)
	return report, errors.Join(err, s.clear(set, b, err != nil))
}

// clear keeps the block out of the files that it does not belong to. If it is
// not where it belongs, they keep what is still authorized of what they hold, so
// that nobody is locked out.
func (s *sshFiles) clear(set *sshSettings, b sshkeys.Block, failed bool) error {
	read := slices.Clone(set.others)
	for _, path := range s.places.list {
		if path != set.authorized.Path && !hasPath(set.others, path) {
			read = append(read, sshkeys.File{Path: path, Account: set.account, Lax: set.authorized.Lax})
		}
	}
	var errs []error
	for _, f := range read {
		if !f.Holds(b) {
			continue
		}
		left := b.Without()
		// An sshd that has not read its new configuration yet reads the old file.
		waiting := s.places.used[f.Path] && !hasPath(set.others, f.Path)
		if failed || waiting {
			left = b
		}
		_, err := f.Apply(left)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s, where no key of the cluster belongs any more: %w", f.Path, err))
		}
	}
	for _, path := range slices.Clone(s.places.list) {
		f := sshkeys.File{Path: path}
		if path != set.authorized.Path && !s.places.used[path] && !f.Holds(b) {
			s.noteError(s.places.drop(path))
		}
	}
	return errors.Join(errs...)
}

func hasPath(list []sshkeys.File, path string) bool {
	return slices.ContainsFunc(list, func(f sshkeys.File) bool { return f.Path == path })
}

// noteError logs what keeps nothing from being done now.
func (s *sshFiles) noteError(err error) {
	if err != nil {
		s.log.Warn("where keys are authorized could not be noted", zap.Error(err))
	}
}
