package noded

import (
	"fmt"
	"slices"
	"time"

	"rolekey/internal/audit"
)

// What others change in SSH's files is put right, told once a minute, and told
// as a problem when it does not end.
const (
	repairAudit  = time.Minute
	repairWindow = 10 * time.Minute
	repairMany   = 3
)

// repairs are how often files were put right, by path.
type repairs map[string]*repairCount

type repairCount struct {
	untold int64
	told   time.Time
	times  []time.Time // within the window
}

// repaired notes that somebody else had changed a file, and that it is right
// again.
func (s *sshFiles) repaired(path string, n int) {
	if s.repairs == nil {
		s.repairs = repairs{}
	}
	r := s.repairs[path]
	if r == nil {
		r = &repairCount{}
		s.repairs[path] = r
	}
	r.untold += int64(n)
	s.repairsAll++
	if len(r.times) < 1000 {
		r.times = append(r.times, s.now())
	}
	s.tellRepairs()
}

func (s *sshFiles) tellRepairs() {
	now := s.now()
	for path, r := range s.repairs {
		r.times = slices.DeleteFunc(r.times, func(t time.Time) bool { return now.Sub(t) > repairWindow })
		if r.untold > 0 && (r.told.IsZero() || now.Sub(r.told) >= repairAudit) {
			s.audit.Write(audit.Event{Act: audit.KeysRepaired, Target: path, Count: r.untold})
			r.untold, r.told = 0, now
		}
	}
}

// repairsMade counts all repairs of this run.
func (s *sshFiles) repairsMade() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repairsAll
}

// rivals tells which files somebody else keeps rewriting.
func (s *sshFiles) rivals() []string {
	var list []string
	for path, r := range s.repairs {
		if len(r.times) >= repairMany {
			list = append(list, fmt.Sprintf("%s was put right %d times within %.0f minutes: something else keeps rewriting it; let it keep the lines between the ROLEKEY markers", path, len(r.times), repairWindow.Minutes()))
		}
	}
	slices.Sort(list)
	return list
}

// warnings say why sshd may not honour what is authorized, though it is written.
func (s *sshFiles) warnings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.report.Unsafe, s.refusals)
}

// files are the files to watch.
func (s *sshFiles) files() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watched
}
