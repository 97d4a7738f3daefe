package rpc

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"rolekey/cluster"
)

// Phases of hooks.
const (
	HooksPre  = "pre"  // before anything is committed; may veto
	HooksPost = "post" // after the change; reports only
)

// Times of hooks, which noded keeps and the master counts on.
const (
	HookScriptLimit = 20 * time.Second // of one script
	HookPhaseLimit  = 30 * time.Second // of all scripts of a phase on one node
)

// Names of hooks: an operation's scripts lie in NAME-pre.d and NAME-post.d.
const (
	HookClusterModify  = "cluster-modify"
	HookClusterRename  = "cluster-rename"
	HookClusterRenew   = "cluster-renew"
	HookClusterVerify  = "cluster-verify"
	HookMasterFailover = "master-failover"
	HookNodeAdd        = "node-add"
	HookNodeModify     = "node-modify"
	HookNodeRemove     = "node-remove"
)

// hookObjects tells for each hook what kind of object it is about.
var hookObjects = map[string]string{
	HookClusterModify: "CLUSTER", HookClusterRename: "CLUSTER",
	HookClusterRenew: "CLUSTER", HookClusterVerify: "CLUSTER", HookMasterFailover: "CLUSTER",
	HookNodeAdd: "NODE", HookNodeModify: "NODE", HookNodeRemove: "NODE",
}

// Forms of the variables' values. None holds a character that means something
// to a shell, so that a careless script cannot be made to run a value.
var (
	formName = regexp.MustCompile(`^[a-z0-9.-]{1,253}$`)
	formCode = regexp.MustCompile(`^OP_[A-Z_]{1,60}$`)
	formAddr = regexp.MustCompile(`^[0-9a-f.:]{0,45}$`)
	formFlag = regexp.MustCompile(`^(True|False|None)$`)
)

// general are the variables of every hook, own those of operations. Both are
// passed to scripts with GANETI_ in front, and the latter, in the post phase,
// also with GANETI_POST_ for what holds afterwards.
var (
	general = map[string]*regexp.Regexp{"CLUSTER": formName, "MASTER": formName, "OP_CODE": formCode}
	own     = map[string]*regexp.Regexp{
		"OP_TARGET": formName, "OLD_MASTER": formName, "NODE_NAME": formName, "NODE_PIP": formAddr, "NODE_SIP": formAddr,
		"NEW_NAME": formName, "NEW_PIP": formAddr, "NEW_SIP": formAddr,
		"MASTER_CANDIDATE": formFlag, "OFFLINE": formFlag, "DRAINED": formFlag, "MASTER_CAPABLE": formFlag, "VM_CAPABLE": formFlag,
	}
)

// HooksRequest asks a node to run the scripts that its administrator put into
// the hook's folder. It cannot name a script, a folder or an argument.
type HooksRequest struct {
	Hook  string            `json:"hook"`
	Phase string            `json:"phase"`
	Vars  map[string]string `json:"vars"` // names without GANETI_
}

// Check judges a request by the lists of hooks, phases and variables.
func (r *HooksRequest) Check() error {
	if hookObjects[r.Hook] == "" {
		return cluster.Errorf(cluster.CodeBadFormat, "there is no hook %.32q", r.Hook)
	}
	if r.Phase != HooksPre && r.Phase != HooksPost {
		return cluster.Errorf(cluster.CodeBadFormat, "there is no phase %.32q", r.Phase)
	}
	for name, value := range r.Vars {
		form := general[name]
		if after, ok := strings.CutPrefix(name, "POST_"); ok && r.Phase == HooksPost {
			form = own[after]
		} else if form == nil {
			form = own[name]
		}
		if form == nil || !form.MatchString(value) {
			return cluster.Errorf(cluster.CodeBadFormat, "hooks know no variable %.32q with the value %.64q", name, value)
		}
	}
	return nil
}

// hookPath is where scripts find programs.
const hookPath = "/sbin:/bin:/usr/sbin:/usr/bin"

// Environ returns the whole environment of the hook's scripts, sorted.
func (r *HooksRequest) Environ() []string {
	env := []string{
		"PATH=" + hookPath, "GANETI_HOOKS_VERSION=2", "GANETI_HOOKS_PHASE=" + r.Phase, "GANETI_HOOKS_PATH=" + r.Hook,
		"GANETI_OBJECT_TYPE=" + hookObjects[r.Hook], "GANETI_DATA_DIR=/var/lib/rolekey",
	}
	for name, value := range r.Vars {
		env = append(env, "GANETI_"+name+"="+value)
	}
	slices.Sort(env)
	return env
}

// HooksReply has one result for each script, in the order in which they ran.
// NoPost answers the pre phase: the post phase would find nothing to run here.
type HooksReply struct {
	Results []HookResult `json:"results"`
	NoPost  bool         `json:"no_post"`
}

// HookStatus says what became of a script.
type HookStatus string

// What becomes of scripts.
const (
	HookSucceeded HookStatus = "success"
	HookFailed    HookStatus = "failed"  // it ended with an error, or was killed
	HookRefused   HookStatus = "refused" // it was not run: others than root could have written it
)

// HookResult is what became of one script. Output is clipped.
type HookResult struct {
	Script string     `json:"script"`
	Status HookStatus `json:"status"`
	Reason string     `json:"reason"` // why it failed or was refused
	Output string     `json:"output"`
}
