package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// target is what a figure should be.
type target struct {
	value float64 // zero: none
	least bool    // the figure should be at least that
}

func atMost(v float64) target  { return target{value: v} }
func atLeast(v float64) target { return target{v, true} }

func (t target) verdict(median float64) string {
	met := median <= t.value
	sign := "<="
	if t.least {
		met, sign = median >= t.value, ">="
	}
	if t.value == 0 {
		return ""
	}
	word := "met"
	if !met {
		word = "MISSED"
	}
	return fmt.Sprintf("%s %s  %s", sign, number(t.value), word)
}

const line = "%-58s %6s %10s %16s %4s %6s   %s\n"

func header() { fmt.Printf(line, "figure", "unit", "median", "min - max", "n", "load", "target") }

// show prints one figure.
func show(name, unit string, values []float64, t target) {
	if len(values) == 0 {
		fmt.Printf(line, name, unit, "-", "-", "0", load(), "not measured")
		return
	}
	slices.Sort(values)
	m := median(values)
	fmt.Printf(line, name, unit, number(m), number(values[0])+" - "+number(values[len(values)-1]), fmt.Sprint(len(values)), load(), t.verdict(m))
}

// median of sorted values.
func median(v []float64) float64 {
	mid := len(v) / 2
	if len(v)%2 == 1 {
		return v[mid]
	}
	return (v[mid-1] + v[mid]) / 2
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// machine describes where the figures come from.
func machine() string {
	var u unix.Utsname
	kernel := "unknown"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%s; %d processors, %s of memory; Linux %s; %s",
		fact("/proc/cpuinfo", "model name"), runtime.NumCPU(), memoryText(), kernel, runtime.Version())
}

// fact returns the first value of a name in a file of /proc.
func fact(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func memoryText() string {
	var kib int64
	if _, err := fmt.Sscanf(fact("/proc/meminfo", "MemTotal"), "%d kB", &kib); err != nil {
		return "an unknown amount"
	}
	return fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20))
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}
