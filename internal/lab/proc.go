package lab

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// procID names a process beyond the recycling of its pid.
type procID struct {
	pid   int
	start uint64 // clock ticks since boot
}

// procStat is the part of /proc/PID/stat that matters here (proc(5)).
type procStat struct {
	procID
	ppid   int
	zombie bool
}

func readStat(pid int) (procStat, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, false
	}
	// The second field, the name, may hold blanks and brackets.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return procStat{}, false
	}
	ppid, err1 := strconv.Atoi(string(f[1]))
	start, err2 := strconv.ParseUint(string(f[19]), 10, 64)
	if err1 != nil || err2 != nil {
		return procStat{}, false
	}
	dead := f[0][0] == 'Z' || f[0][0] == 'X'
	return procStat{procID: procID{pid, start}, ppid: ppid, zombie: dead}, true
}

// running reports whether the process still exists and is no zombie.
func (p procID) running() bool {
	st, ok := readStat(p.pid)
	return ok && st.procID == p && !st.zombie
}

// descendants lists the living children, grandchildren and so on of pid,
// parents first.
func descendants(pid int) []procID {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]procStat{}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, ok := readStat(n); ok {
			children[st.ppid] = append(children[st.ppid], st)
		}
	}
	return collect(children, pid, nil)
}

func collect(children map[int][]procStat, pid int, out []procID) []procID {
	for _, c := range children[pid] {
		if !c.zombie {
			out = append(out, c.procID)
		}
		out = collect(children, c.pid, out)
	}
	return out
}

// mentions reports whether the command line of pid holds text.
func mentions(pid int, text string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(b), text)
}
