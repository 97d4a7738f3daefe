package cli

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rolekey/cluster"
	"rolekey/rpc"
)

func (a *app) evictCommand() *cobra.Command {
	var list, undo bool
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "evict {NODE [--undo] | --list}",
		Short: "Have this voter refuse a candidate, to depose a master that is not to be trusted",
		Long: `Evicts the candidate NODE on this node: its raft messages and its requests are
refused here, this node votes for another, and signs nothing for it. When a
majority of the voters does so, they elect another master among themselves within
seconds, and the evicted one can change nothing any more. So run it, as root, on
every voter but NODE itself; the command says how many there are and what is left
to do. Then, on the new master: gnt-node modify --offline=yes --auto-promote NODE.

Less than a majority deposes nobody: such a voter just does not take part. An
eviction survives restarts, and ends by itself when NODE is no candidate any more.

Exit codes: 0 done on this node; 1 failed; 5 no cluster here.`,
		Example: `  gnt-cluster evict node1.example.com
  gnt-cluster evict --list
  gnt-cluster evict --undo node1.example.com`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case list && !undo && len(args) == 0:
				return a.listEvicted(cmd.Context())
			case list || len(args) != 1:
				return usage("usage: %s\nSee '%s --help'", cmd.UseLine(), cmd.CommandPath())
			}
			return a.evict(cmd.Context(), args[0], undo)
		},
	})
	cmd.Flags().BoolVar(&list, "list", false, "list whom this node refuses")
	cmd.Flags().BoolVar(&undo, "undo", false, "take the eviction back on this node")
	return cmd
}

// evictReport is the JSON of one candidate.
type evictReport struct {
	Node    cluster.Name   `json:"node"`
	Evicted bool           `json:"evicted"` // on this node
	Since   any            `json:"since"`
	Voters  []evictedBy    `json:"voters"` // but the candidate itself
	Count   int            `json:"count"`  // of those that have evicted it
	Needed  int            `json:"needed"` // for it to be deposed
	Deposed bool           `json:"majority"`
	id      cluster.NodeID // zero: not evicted here
}

// evictedBy is what one voter says. Evicted is null if it does not say.
type evictedBy struct {
	Name    cluster.Name `json:"name"`
	Evicted *bool        `json:"evicted"`
	Problem string       `json:"problem,omitempty"`
}

func (a *app) evict(ctx context.Context, node string, undo bool) error {
	before, err := a.evictCall(ctx, http.MethodGet, nil)
	if err != nil {
		return err
	}
	after, err := a.evictCall(ctx, http.MethodPost, rpc.EvictRequest{Node: node, Undo: undo})
	if err != nil {
		return err
	}
	if after.Problem != "" {
		a.note("noded goes on trying: %s", after.Problem)
	}
	all := append(after.Evicted, before.Evicted...)
	i := slices.IndexFunc(all, func(e rpc.Eviction) bool {
		return e.Name == cluster.Name(node) || e.Node.String() == node || first(e.Name) == node
	})
	if i < 0 { // a map has ended it at this very moment
		return cluster.Errorf(cluster.CodeNotFound, "%s is no candidate any more", node)
	}
	r := a.evictReport(ctx, all[i])
	r.Evicted = !undo
	if a.asJSON {
		return a.printJSON(r)
	}
	printItems(a.out, r.items(), "")
	r.advise(a)
	return nil
}

func first(n cluster.Name) string {
	label, _, _ := strings.Cut(string(n), ".")
	return label
}

func (a *app) evictCall(ctx context.Context, verb string, req any) (rpc.EvictReply, error) {
	noded := a.client.noded()
	defer noded.Close()
	var r rpc.EvictReply
	err := noded.Do(ctx, verb, rpc.LocalEvict, req, &r)
	if cluster.CodeOf(err) == cluster.CodeNoMap {
		err = noCluster()
	}
	return r, err
}

func (a *app) listEvicted(ctx context.Context) error {
	r, err := a.evictCall(ctx, http.MethodGet, nil)
	if err != nil {
		return err
	}
	reports, lists := []evictReport{}, [][]item{}
	for _, e := range r.Evicted {
		report := a.evictReport(ctx, e)
		reports, lists = append(reports, report), append(lists, report.items())
	}
	if a.asJSON {
		return a.printJSON(reports)
	}
	printList(a.out, lists)
	if len(lists) == 0 {
		a.note("No node is evicted on this one.")
	}
	return nil
}

// evictReport asks the voters, as far as this node can.
func (a *app) evictReport(ctx context.Context, e rpc.Eviction) evictReport {
	r := evictReport{Node: e.Name, Evicted: true, Since: e.Since, Voters: []evictedBy{}, id: e.Node}
	masterd := a.client.masterd()
	defer masterd.Close()
	var reply rpc.EvictionsReply
	if err := masterd.Do(ctx, http.MethodGet, rpc.LocalEvictions, nil, &reply); err != nil {
		a.note("What the other voters have done is not known: %v", err)
		return r
	}
	for _, v := range reply.Voters {
		if v.Node == e.Node {
			continue
		}
		by := evictedBy{Name: v.Name, Problem: v.Problem}
		if v.Problem == "" {
			by.Evicted = new(slices.Contains(v.Evicted, e.Node))
			if *by.Evicted {
				r.Count++
			}
		}
		r.Voters = append(r.Voters, by)
	}
	r.Needed = len(reply.Voters)/2 + 1
	r.Deposed = r.Count >= r.Needed
	return r
}

func (r *evictReport) items() []item {
	here := "no"
	if r.Evicted {
		here = "yes"
	}
	list := []item{{"Node", string(r.Node)}, {"Evicted on this node", here}}
	if r.Needed == 0 {
		return list
	}
	by := []string{}
	for _, v := range r.Voters {
		if v.Evicted != nil && *v.Evicted {
			by = append(by, string(v.Name))
		}
	}
	return append(list, item{"Evicted by voters", by}, item{"Needed to depose it", r.Needed})
}

// advise says, for people, what is left to do.
func (r *evictReport) advise(a *app) {
	var left []string
	for _, v := range r.Voters {
		switch {
		case v.Evicted == nil:
			left = append(left, fmt.Sprintf("%s (%s)", v.Name, v.Problem))
		case !*v.Evicted:
			left = append(left, string(v.Name))
		}
	}
	switch {
	case r.Needed == 0 || !r.Evicted:
	case len(r.Voters) < r.Needed:
		a.note("%s cannot be deposed by eviction: without it there are too few voters to elect another master. Stop its machine, and use gnt-cluster recover.", r.Node)
	case r.Deposed:
		a.note("That is a majority: if %s is the master, another one is elected within seconds. On that one, which gnt-cluster getmaster names, run", r.Node)
		a.note("    gnt-node modify --offline=yes --auto-promote %s", r.Node)
		if len(left) > 0 {
			a.note("Before that, evict it on the other voters too, or it can disturb them: %s", strings.Join(left, ", "))
		}
	default:
		a.note("That is no majority, and deposes nobody yet. Run the same command on: %s", strings.Join(left, ", "))
	}
}
