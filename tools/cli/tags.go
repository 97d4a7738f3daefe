package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rolekey/masterd/rapi/wire"
)

// tagged is a kind of objects that have tags.
type tagged struct {
	program string
	args    string // how the object is named in a usage line
	named   int    // how many arguments name it
	path    func(args []string) string
}

func (a *app) nodeTagCommands() []*cobra.Command {
	return a.tagCommands(tagged{"gnt-node", "NODE ", 1, func(args []string) string { return nodePath(args[0], "/tags") }})
}

func (a *app) clusterTagCommands() []*cobra.Command {
	of := tagged{"gnt-cluster", "", 0, func([]string) string { return "/2/tags" }}
	return append(a.tagCommands(of), a.searchTagsCommand())
}

func (a *app) tagCommands(of tagged) []*cobra.Command {
	return []*cobra.Command{
		a.changeTagsCommand(of, http.MethodPut, "add-tags", "Add tags"),
		a.changeTagsCommand(of, http.MethodDelete, "remove-tags", "Remove tags"),
		a.listTagsCommand(of),
	}
}

func (a *app) changeTagsCommand(of tagged, verb, word, short string) *cobra.Command {
	var s submission
	var from string
	example := strings.TrimSuffix(of.program+" "+word+" "+strings.ToLower(of.args), "node ")
	if of.named > 0 {
		example += "node2 "
	}
	cmd := a.jsonFlag(&cobra.Command{
		Use:     word + " " + of.args + "TAG...",
		Short:   short,
		Example: "  " + example + "rack:b7 dmz\n  " + example + "--from tags.txt",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < of.named || len(args) == of.named && from == "" {
				return exactArgs(len(args)+1)(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			tags, err := withFile(args[of.named:], from, cmd.InOrStdin())
			if err != nil {
				return err
			}
			id, state, ok, err := a.change(cmd.Context(), s, verb, of.path(args), tags)
			if !ok {
				return err
			}
			if a.asJSON {
				err = a.printJSON(struct {
					Job         int64              `json:"job"`
					Tags        []string           `json:"tags"`
					Unreachable []wire.Unreachable `json:"unreachable"`
				}{id, tags, state.unreachable})
			}
			return errors.Join(err, a.pending(state.unreachable))
		},
	})
	cmd.Flags().StringVar(&from, "from", "", "read more tags from this file, one a line; - is standard input")
	s.flags(cmd)
	return cmd
}

// maxTagFile bounds a file of tags; a job takes no more.
const maxTagFile = 64 << 10

// withFile adds the lines of a file to tags.
func withFile(tags []string, from string, stdin io.Reader) ([]string, error) {
	if from == "" {
		return tags, nil
	}
	in := stdin
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return nil, fmt.Errorf("read tags: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxTagFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read tags: %w", err)
	case len(text) > maxTagFile:
		return nil, usage("%s: over %d bytes of tags", from, maxTagFile)
	}
	tags = slices.Clone(tags)
	for line := range strings.Lines(string(text)) {
		if t := strings.TrimSpace(line); t != "" {
			tags = append(tags, t)
		}
	}
	if len(tags) == 0 {
		return nil, usage("%s: no tags", from)
	}
	return tags, nil
}

func (a *app) listTagsCommand(of tagged) *cobra.Command {
	example := of.program + " list-tags"
	if of.named > 0 {
		example += " node2"
	}
	return a.jsonFlag(&cobra.Command{
		Use:     strings.TrimSpace("list-tags " + of.args),
		Short:   "List tags, one a line",
		Example: "  " + example,
		Args:    exactArgs(of.named),
		RunE: func(cmd *cobra.Command, args []string) error {
			tags := []string{}
			if err := a.client.get(cmd.Context(), of.path(args), &tags); err != nil {
				if of.named > 0 {
					err = unknownNode(err, args[0])
				}
				return err
			}
			if a.asJSON {
				return a.printJSON(tags)
			}
			for _, t := range tags {
				fmt.Fprintln(a.out, t)
			}
			return nil
		},
	})
}

// foundTag is a tag and the object that has it.
type foundTag struct {
	Path string `json:"path"` // /cluster or /nodes/NAME
	Tag  string `json:"tag"`
}

func (a *app) searchTagsCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:     "search-tags PATTERN",
		Short:   "Find tags of the cluster and of nodes by a regular expression",
		Long:    "Prints the objects that have a tag which matches, and the tag. Exit code 1 says\nthat there is none.",
		Example: "  gnt-cluster search-tags '^rack:'",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pattern, err := regexp.Compile(args[0])
			if err != nil {
				return usage("%v", err)
			}
			found, err := a.searchTags(cmd.Context(), pattern)
			if err != nil {
				return err
			}
			if a.asJSON {
				err = a.printJSON(found)
			} else {
				for _, f := range found {
					fmt.Fprintf(a.out, "%s %s\n", f.Path, f.Tag)
				}
			}
			if err == nil && len(found) == 0 {
				err = &exitError{ExitFailed, ""}
			}
			return err
		},
	})
}

func (a *app) searchTags(ctx context.Context, pattern *regexp.Regexp) ([]foundTag, error) {
	found := []foundTag{}
	add := func(path string, tags []string) {
		for _, t := range tags {
			if pattern.MatchString(t) {
				found = append(found, foundTag{path, t})
			}
		}
	}
	var tags []string
	if err := a.client.get(ctx, "/2/tags", &tags); err != nil {
		return nil, err
	}
	add("/cluster", tags)
	nodes, err := a.nodes(ctx, nil)
	for _, n := range nodes {
		add("/nodes/"+string(n.Name), n.Tags)
	}
	return found, err
}
