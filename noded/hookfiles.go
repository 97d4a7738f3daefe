package noded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"unicode"
)

// Bounds on what hooks can make an answer hold.
const (
	maxHookScripts  = 64
	maxScriptOutput = 2 << 10
	maxHookOutput   = 8 << 10
)

// hookScript is a file in a hook's folder. A refused one is not run.
type hookScript struct {
	name    string
	refused string // why; empty: it may be run
}

// hookName is what a script may be called, as run-parts(8) has it: copies that
// editors and packages leave do not match.
var hookName = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

func hookOwners() map[uint32]bool {
	return map[uint32]bool{0: true, uint32(os.Geteuid()): true}
}

// find lists the scripts of a folder in their order. What is not executable is
// no script; what others than root could have written is refused.
func (h *hooks) find(folder string) []hookScript {
	dir := filepath.Join(h.dir, folder)
	entries, err := os.ReadDir(dir) // sorted
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return []hookScript{{folder, fmt.Sprintf("cannot be read: %v", err)}}
	}
	for _, d := range append([]string{dir, h.dir}, h.above...) {
		if reason := h.unsafe(d, fs.FileMode.IsDir, "a folder"); reason != "" {
			return []hookScript{{folder, fmt.Sprintf("folder %s %s", d, reason)}}
		}
	}
	var found []hookScript
	for _, e := range entries {
		if !hookName.MatchString(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err != nil || info.Mode().IsRegular() && info.Mode().Perm()&0o111 == 0 {
			continue // gone meanwhile, or a text beside the scripts
		}
		if len(found) == maxHookScripts {
			return append(found, hookScript{folder, fmt.Sprintf("holds more than %d scripts; the others are not run", maxHookScripts)})
		}
		found = append(found, hookScript{e.Name(), h.unsafe(filepath.Join(dir, e.Name()), fs.FileMode.IsRegular, "a regular file")})
	}
	return found
}

// unsafe tells why something must not be trusted, or "".
func (h *hooks) unsafe(path string, kind func(fs.FileMode) bool, want string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Sprintf("cannot be examined: %v", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !kind(info.Mode()):
		return "is not " + want
	case !ok || !h.owners[st.Uid]:
		return "is not owned by root"
	case info.Mode().Perm()&0o022 != 0:
		return "is writable by others than its owner"
	}
	return ""
}

// hookOutput keeps the beginning of what a script says.
type hookOutput struct {
	mu   sync.Mutex
	said []byte
	left int
	more bool
}

// Write implements io.Writer; it never fails, so that no script is hindered.
func (o *hookOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(o.left, len(p))
	o.said = append(o.said, p[:n]...)
	o.left -= n
	o.more = o.more || n < len(p)
	return len(p), nil
}

// text is the output without what could play tricks on a terminal.
func (o *hookOutput) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(o.said), "?"))
	text = strings.TrimSpace(text)
	if o.more {
		text += " …"
	}
	return text
}
