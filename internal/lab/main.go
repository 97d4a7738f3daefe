package lab

import (
	"fmt"
	"os"
)

// Helper is a function of the calling program that runs in a process of its
// own inside a cluster. It returns the exit code.
type Helper func(args []string) int

// mainCalled guards against a program that would execute itself without end.
var mainCalled bool

// Main must be the first call in main or TestMain of a program that uses Up. In
// the processes that this package starts it does their work and exits; in all
// others it returns at once. helpers may be nil.
func Main(helpers map[string]Helper) {
	mainCalled = true
	if os.Getenv(holderEnv) != "" {
		os.Unsetenv(holderEnv)
		os.Exit(holderMain())
	}
	if os.Getenv(initEnv) != "" {
		os.Unsetenv(initEnv)
		os.Exit(initMain())
	}
	name := os.Getenv(helperEnv)
	if name == "" {
		return
	}
	os.Unsetenv(helperEnv)
	f := helpers[name]
	if f == nil {
		fmt.Fprintf(os.Stderr, "no helper %q was given to lab.Main\n", name)
		os.Exit(125)
	}
	os.Exit(f(os.Args[1:]))
}

// HelperCmd returns the command that runs a Helper of this program on a node,
// for Run and Spawn. An empty node means just inside the namespaces.
func HelperCmd(node, name string, args ...string) (Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return Cmd{}, fmt.Errorf("find own program: %w", err)
	}
	return Cmd{Node: node, Args: append([]string{exe}, args...), Env: []string{helperEnv + "=" + name}}, nil
}
