package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// commandReport is the JSON of gnt-cluster command.
type commandReport struct {
	Command string          `json:"command"`
	Results []commandResult `json:"results"` // the master's is the last
	Offline []string        `json:"offline"` // nodes that were left out
}

type commandResult struct {
	Node       string `json:"node"`
	ReturnCode int    `json:"return_code"` // 255: perhaps ssh's own
	Output     string `json:"output"`
	Truncated  bool   `json:"truncated"`
}

// commandPrinter prints results for people, as Ganeti does.
type commandPrinter struct {
	a        *app
	names    bool // in front of each line
	failures bool // and nothing else
	printed  bool
}

func (a *app) commandCommand() *cobra.Command {
	var refs []string
	p := &commandPrinter{a: a}
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "command [-n NODE]... [-M] [--failure-only] COMMAND...",
		Short: "Run a command on all nodes, by ssh",
		Long: `Runs a command as root on all nodes that are not offline, or on those that are
named, by ssh(1) with this node's key, up to 8 at once, and prints what they say
in the order of their names, the master's last. The words of the command are
joined with spaces and given to the shell of root on each node, which interprets
them once more. The exit code is 1 if any node's command failed; ssh itself fails
with 255.`,
		Example: `  gnt-cluster command uptime
  gnt-cluster command -n node2 -n node3 systemctl is-active ntp
  gnt-cluster command -M 'dmesg | tail -3'`,
		Args: atLeastOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, offline, err := a.online(cmd.Context(), refs)
			if err != nil {
				return err
			}
			report := commandReport{Command: strings.Join(args, " "), Results: []commandResult{}, Offline: offline}
			var work []remote
			for _, n := range nodes {
				work = append(work, remote{node: n, to: string(n.Name), command: report.Command})
			}
			failed := 0
			err = overSSH(cmd.Context(), work, func(d done) {
				if d.failed() {
					failed++
				}
				report.Results = append(report.Results, p.take(d))
			})
			if err == nil && a.asJSON {
				err = a.printJSON(report)
			}
			if err == nil && failed > 0 {
				err = &exitError{ExitFailed, fmt.Sprintf("The command failed on %d of %d node(s)", failed, len(work))}
			}
			return err
		},
	})
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the command's first word is its own
	f.StringArrayVarP(&refs, "node", "n", nil, "run it on this node (repeatable); all without")
	f.BoolVarP(&p.names, "show-machine-names", "M", false, "put the node's name in front of each line")
	f.BoolVar(&p.failures, "failure-only", false, "print only what failed")
	return cmd
}

// take prints a result, unless JSON is wanted.
func (p *commandPrinter) take(d done) commandResult {
	out := d.output
	if d.err != nil {
		out = strings.TrimRight(out, "\n") + "\n" + d.err.Error()
		out = strings.TrimPrefix(out, "\n")
	}
	r := commandResult{Node: string(d.node.Name), ReturnCode: d.code, Output: out, Truncated: d.truncated}
	if d.truncated {
		p.a.note("Node %s said more than %d KiB; the rest is left out", r.Node, maxSSHOutput>>10)
	}
	if !p.a.asJSON && (d.failed() || !p.failures) {
		p.print(r)
	}
	return r
}

func (p *commandPrinter) print(r commandResult) {
	if p.printed {
		fmt.Fprintln(p.a.out)
	}
	p.printed = true
	text := strings.TrimSuffix(r.Output, "\n")
	if !p.names {
		fmt.Fprintf(p.a.out, "node: %s\n", r.Node)
	}
	if text != "" {
		for line := range strings.SplitSeq(text, "\n") {
			if p.names {
				line = r.Node + ": " + line
			}
			fmt.Fprintln(p.a.out, line)
		}
	}
	if p.names {
		fmt.Fprintf(p.a.out, "%s: ", r.Node)
	}
	fmt.Fprintf(p.a.out, "return code = %d\n", r.ReturnCode)
}
