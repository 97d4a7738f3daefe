package floors

import "strings"

// floor is one storey of the building. Imports point down only.
type floor struct {
	level   int
	folders []string
}

// floors lists the storeys. A package belongs to the first folder of its path.
var floors = []floor{
	{6, []string{"tests"}},
	{5, []string{"tools"}},
	{4, []string{"noded", "masterd"}},
	{3, []string{"rpc"}},
	{2, []string{"candmap", "sshkeys", "pki", "seal"}},
	{1, []string{"cluster"}},
}

// internalLevel stands for internal/, which every floor may import and which
// itself may import cluster and internal packages.
const internalLevel = 0

// sideways lists the imports between packages of one floor that are allowed,
// each with its reason.
var sideways = map[[2]string]string{}

// pure lists the packages that must not do I/O or read a clock, and the reason.
var pure = map[string]string{
	"cluster":       "the domain's words are values",
	"masterd/state": "every replica must compute the same",
	"masterd/roles": "the planner maps (state, request, now) to steps",
	"masterd/query": "a filter maps a row to yes or no",
}

// impureImports are what a pure package must not import.
var impureImports = map[string]bool{
	"net": true, "net/http": true, "os": true, "os/exec": true, "io/fs": true, "io/ioutil": true, "syscall": true,
	"golang.org/x/sys/unix": true, "math/rand": true, "math/rand/v2": true,
}

// impureCalls are what a pure package must not call.
var impureCalls = map[string]bool{
	"time.Now": true, "time.Since": true, "time.Until": true, "time.Sleep": true, "time.After": true,
	"time.NewTimer": true, "time.NewTicker": true, "time.Tick": true, "time.AfterFunc": true,
}

// Limits of size.
const (
	maxFileLines = 500
	maxFuncLines = 60
)

// levelOf returns the floor of a package, given its path below the module;
// ok is false for a folder that no rule knows.
func levelOf(pkg string) (level int, ok bool) {
	top, _, _ := strings.Cut(pkg, "/")
	if top == "internal" {
		return internalLevel, true
	}
	for _, f := range floors {
		for _, folder := range f.folders {
			if folder == top {
				return f.level, true
			}
		}
	}
	return 0, false
}

// judge says why one package must not import another, or "". Tests may use
// packages of their own floor, to build what they test with.
func judge(from, to string, test bool) string {
	fromTop, _, _ := strings.Cut(from, "/")
	toTop, _, _ := strings.Cut(to, "/")
	fromLevel, fromOK := levelOf(from)
	toLevel, toOK := levelOf(to)
	switch {
	case !fromOK:
		return "its folder belongs to no floor; see tests/floors/rules.go"
	case !toOK:
		return "the imported folder belongs to no floor; see tests/floors/rules.go"
	case toTop == "internal", fromTop == toTop:
		return ""
	case fromTop == "internal" && toTop != "cluster":
		return "internal packages are importable by all, so they import at most cluster and internal"
	case fromTop == "internal":
		return ""
	case toLevel > fromLevel:
		return "imports point down only, and this one points up"
	case toLevel == fromLevel && !test && sideways[[2]string{from, to}] == "":
		return "packages of one floor do not know each other"
	}
	return ""
}
