package buildinfo

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"testing"
)

func TestFromInfo(t *testing.T) {
	rev := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef"}
	dirty := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	cases := []struct {
		main     string
		settings []debug.BuildSetting
		want     string
	}{
		{"v1.2.3", nil, "v1.2.3"},
		{"(devel)", nil, "devel"},
		{"", []debug.BuildSetting{rev}, "devel-0123456789ab"},
		{"(devel)", []debug.BuildSetting{rev, dirty}, "devel-0123456789ab-dirty"},
		{"", []debug.BuildSetting{{Key: "vcs.revision", Value: "short"}}, "devel"},
	}
	for _, c := range cases {
		got := fromInfo(&debug.BuildInfo{Main: debug.Module{Version: c.main}, Settings: c.settings})
		if got != c.want {
			t.Errorf("main %q, settings %v: %q, want %q", c.main, c.settings, got, c.want)
		}
	}
}

// The variable's name is part of the Makefile; a rename here would silently
// lose the version there.
func TestLinkerSetsVersion(t *testing.T) {
	if want := os.Getenv("BUILDINFO_WANT"); want != "" {
		if got := Version(); got != want {
			t.Fatalf("Version() = %q, want %q", got, want)
		}
		return
	}
	bin := filepath.Join(t.TempDir(), "child.test")
	build := exec.Command("go", "test", "-c", "-o", bin, "-ldflags=-X rolekey/internal/buildinfo.version=v9-test", ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	run := exec.Command(bin, "-test.run=^TestLinkerSetsVersion$")
	run.Env = append(os.Environ(), "BUILDINFO_WANT=v9-test")
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("run: %v\n%s", err, out)
	}
}
