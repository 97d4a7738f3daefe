package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"rolekey/masterd/query"
	"rolekey/masterd/rapi/wire"
)

// nodeObject is the JSON of gnt-node list without -o: fixed, but for more.
var nodeObject = []string{
	"uuid", "name", "role", "address", "master_candidate", "drained", "offline", "master_capable", "vm_capable", "voter", "map_version",
}

func (a *app) listNodesCommand() *cobra.Command {
	l := &listing[wire.Node]{
		table: query.Nodes, object: nodeObject, defaults: []string{"name", "role", "address", "voter", "map_version"},
	}
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "list [NODE...]",
		Short: "List nodes",
		Long: `Lists all nodes, or those that are named; * and ? in a name stand for any
characters and for one. Map versions are those that nodes last confirmed to the
master. Instead of a value there may be: ? not known now, * an offline node,
- no such value here, ?? no such field.

A single argument that cannot be a name is a filter, as with -F. Words in
$GNT_NODE_LIST are put in front of the arguments.`,
		Example: "  gnt-node list\n  gnt-node list --no-headers -o name,role\n" +
			"  gnt-node list -F 'role == \"C\" and not fresh' -o +fresh,reachable\n" +
			"  gnt-node list --json | jq -r '.[] | select(.voter) | .name'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.filter == "" && len(args) == 1 && isFilter(args[0]) {
				l.filter, args = args[0], nil
			}
			filter, err := l.parsed()
			if err != nil {
				return err
			}
			nodes, err := a.matchingNodes(cmd.Context(), args)
			if err != nil {
				return err
			}
			return l.print(a, query.Nodes.Select(nodes, filter))
		},
	})
	l.flags(cmd)
	return cmd
}

// isFilter reports whether an argument has characters that no name has.
func isFilter(arg string) bool { return strings.ContainsAny(arg, "()=!<>~'\"\\/ \t\n") }

func isPattern(arg string) bool { return strings.ContainsAny(arg, "*?") }

// matchingNodes returns all nodes, or those that are named, in that order; or,
// if there are patterns among the names, those that match, in order of their
// names. A name that is none is an error, and a pattern without a match is not.
func (a *app) matchingNodes(ctx context.Context, refs []string) ([]wire.Node, error) {
	var names []string
	var any []*query.Filter
	for _, ref := range refs {
		if !isPattern(ref) {
			names = append(names, ref)
			continue
		}
		f, err := query.Glob("name", ref)
		if err != nil {
			return nil, usage("%.40q: %v", ref, err)
		}
		any = append(any, f)
	}
	if any == nil {
		return a.nodes(ctx, names)
	}
	if names != nil {
		named, err := a.nodes(ctx, names)
		if err != nil {
			return nil, err
		}
		for _, n := range named {
			any = append(any, query.Equal("uuid", n.UUID.String()))
		}
	}
	all, err := a.nodes(ctx, nil)
	if err != nil {
		return nil, err
	}
	return query.Nodes.Select(all, query.Any(any...)), nil
}
