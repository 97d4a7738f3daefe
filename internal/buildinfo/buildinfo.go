// Package buildinfo tells which build is running. It is safe for concurrent
// use.
package buildinfo

import "runtime/debug"

// version is set by the Makefile:
// -ldflags "-X rolekey/internal/buildinfo.version=$(git describe ...)".
var version string

// Version returns the version that the build was given, else the module's
// version or revision as the Go tool recorded it, else "devel".
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	return fromInfo(info)
}

func fromInfo(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	rev := settings["vcs.revision"]
	if len(rev) < 12 {
		return "devel"
	}
	if settings["vcs.modified"] == "true" {
		return "devel-" + rev[:12] + "-dirty"
	}
	return "devel-" + rev[:12]
}
