package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"rolekey/internal/paths"
	"rolekey/masterd/rapi/wire"
)

// copyReport is the JSON of gnt-cluster copyfile.
type copyReport struct {
	File    string       `json:"file"`
	Results []copyResult `json:"results"`
	Offline []string     `json:"offline"` // nodes that were left out
}

type copyResult struct {
	Node  string `json:"node"`
	OK    bool   `json:"ok"`
	Error string `json:"error"`
}

func (a *app) copyfileCommand() *cobra.Command {
	var refs []string
	var second bool
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "copyfile [-n NODE]... FILE",
		Short: "Copy a file to the same place on all nodes, by ssh",
		Long: `Copies a file of this node to the same absolute path on all other nodes that are
not offline, or on those that are named, by ssh(1) with this node's key, up to 8 at
once. Mode and owner (by number) stay, and each node has the old file or the whole
new one at any time. Rolekey's own state is refused: it is each node's own.`,
		Example: "  gnt-cluster copyfile /etc/motd\n  gnt-cluster copyfile -n node2 -n node3 /etc/rolekey/hooks/node-add-post.d/tell",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := openCopy(a.client.at, args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			nodes, offline, err := a.online(cmd.Context(), refs)
			if err != nil {
				return err
			}
			report := copyReport{File: file.path, Results: []copyResult{}, Offline: offline}
			failed, err := a.copyTo(cmd.Context(), file, a.others(cmd.Context(), nodes), second, &report)
			if err == nil && a.asJSON {
				err = a.printJSON(report)
			}
			if err == nil && failed > 0 {
				err = &exitError{ExitFailed, fmt.Sprintf("%s was not copied to %d of %d node(s)", file.path, failed, len(report.Results))}
			}
			return err
		},
	})
	cmd.Flags().StringArrayVarP(&refs, "node", "n", nil, "copy it to this node (repeatable); to all without")
	cmd.Flags().BoolVar(&second, "use-replication-network", false, "connect to the nodes' secondary addresses")
	return cmd
}

// others leaves out this node: the file is there.
func (a *app) others(ctx context.Context, nodes []wire.Node) []wire.Node {
	status, err := a.client.nodeStatus(ctx)
	if err != nil {
		return nodes // then it is copied onto itself
	}
	var out []wire.Node
	for _, n := range nodes {
		if n.Name != status.Name {
			out = append(out, n)
		}
	}
	return out
}

func (a *app) copyTo(ctx context.Context, file *copyFile, nodes []wire.Node, second bool, report *copyReport) (failed int, err error) {
	var work []remote
	for _, n := range nodes {
		to := string(n.Name)
		if second {
			to = n.SIP.String()
		}
		work = append(work, remote{node: n, to: to, command: file.command(), stdin: file.reader()})
	}
	err = overSSH(ctx, work, func(d done) {
		r := copyResult{Node: string(d.node.Name), OK: !d.failed()}
		if !r.OK {
			failed++
			r.Error = copyFailure(d)
			a.note("Copy of %s to node %s failed: %s", file.path, r.Node, r.Error)
		}
		report.Results = append(report.Results, r)
	})
	return failed, err
}

func copyFailure(d done) string {
	said := strings.TrimSpace(d.output)
	switch {
	case said != "":
		return said
	case d.err != nil:
		return d.err.Error()
	}
	return fmt.Sprintf("exit code %d", d.code)
}

// copyFile is an open file to be copied.
type copyFile struct {
	*os.File
	path  string
	mode  uint32
	owner string // UID:GID
	size  int64
}

// openCopy opens what may be copied.
func openCopy(at paths.Layout, path string) (*copyFile, error) {
	if !filepath.IsAbs(path) {
		return nil, usage("%s: want an absolute path, which is the same on all nodes", path)
	}
	path = filepath.Clean(path)
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, &prereqError{class: "environment_error", text: fmt.Sprintf("File %s cannot be copied: %v", path, err)}
	}
	for _, own := range []string{paths.Layout{}.StateDir(), at.StateDir()} {
		if inside(own, real) || inside(own, path) {
			return nil, &prereqError{
				class: "wrong_input", text: fmt.Sprintf("File %s is this node's own state: keys and certificates are never copied", path),
				hint: "a node that lacks a key gets a new one by itself; see gnt-cluster verify",
			}
		}
	}
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe must not hang
	if err != nil {
		return nil, &prereqError{class: "environment_error", text: fmt.Sprintf("File %s cannot be copied: %v", path, err)}
	}
	c, err := describe(f, path)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return c, nil
}

func inside(dir, path string) bool {
	if real, err := filepath.EvalSymlinks(dir); err == nil && strings.HasPrefix(path, real+"/") {
		return true
	}
	return strings.HasPrefix(path, dir+"/")
}

func describe(f *os.File, path string) (*copyFile, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("examine file: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return nil, &prereqError{class: "wrong_input", text: fmt.Sprintf("%s is not a regular file", path)}
	}
	return &copyFile{File: f, path: path, mode: st.Mode & 0o7777, owner: fmt.Sprintf("%d:%d", st.Uid, st.Gid), size: info.Size()}, nil
}

// reader reads the file from its beginning; several may do so at once.
func (c *copyFile) reader() io.Reader { return io.NewSectionReader(c.File, 0, c.size) }

// copyScript takes a file from standard input. The size is compared because the
// end of a broken connection looks like the end of the file.
const copyScript = `umask 077; f=$1; test -d "$f" && { echo "$f is a folder there"; exit 1; }; ` +
	`t=$(mktemp "$(dirname "$f")/.rolekey-copy.XXXXXXXX") || exit 1; trap "rm -f \"\$t\"" EXIT; trap "exit 1" HUP INT TERM PIPE; ` +
	`cat >"$t" || exit 1; test "$(wc -c <"$t")" -eq "$4" || { echo "the file has not arrived whole"; exit 1; }; ` +
	`chown "$2" "$t" && chmod "$3" "$t" && mv -f "$t" "$f"`

// command is what the shell of a node is told, whichever shell that is.
func (c *copyFile) command() string {
	return fmt.Sprintf("exec sh -c %s copyfile %s %s %o %d", quoted(copyScript), quoted(c.path), c.owner, c.mode, c.size)
}
