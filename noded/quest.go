package noded

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/rpc"
)

// Bounds of a quest.
const (
	questAtOnce = 16               // nodes that are asked at the same time
	questOthers = 64               // nodes that are asked although they are no candidates
	questRound  = 30 * time.Second // for all candidates, and again for the others
	questPages  = 64               // answers of one node
	questTold   = 8                // nodes whose trouble an error tells
)

// quest asks other nodes for one map, known by its hash. Whom it asks, and how
// it knows them, is in a view that may be old; so it also asks nodes that are
// no candidates there. Any node gives what it holds to a member.
type quest struct {
	hash   cluster.Digest
	known  *candmap.View
	newest cluster.Version // held last: nothing older is of use
	self   cluster.NodeID
	client *rpc.Client
	turn   chan struct{} // of fetching a roster: it is the same from everybody
}

// find is the map, its whole roster, and a beacon that came along.
type find struct {
	env    candmap.Envelope
	docs   [][]byte
	beacon *candmap.Envelope
	from   cluster.Name
}

// answer is how it went with one node.
type answer struct {
	from    cluster.Name
	find    *find
	offered bool            // it has the map
	newest  cluster.Version // the newest that it offers
	err     error
}

func (q *quest) run(ctx context.Context) (*find, error) {
	candidates, others := q.nodes()
	var answers []answer
	for _, nodes := range [][]candmap.RosterNode{candidates, others} {
		got, failed := q.ask(ctx, nodes)
		if got != nil {
			return got, nil
		}
		answers = append(answers, failed...)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("ask for map: %w", err)
	}
	return nil, q.explain(answers)
}

// nodes are the candidates, by the map or by the roster, and some others.
func (q *quest) nodes() (candidates, others []candmap.RosterNode) {
	for _, n := range q.known.Roster.Nodes() {
		switch {
		case n.UUID == q.self:
		case n.Flags.MasterCandidate || q.known.Map.Candidate(n.UUID) != nil:
			candidates = append(candidates, n)
		case len(others) < questOthers:
			others = append(others, n)
		}
	}
	return candidates, others
}

// ask asks nodes in parallel until one has given everything.
func (q *quest) ask(ctx context.Context, nodes []candmap.RosterNode) (*find, []answer) {
	ctx, cancel := context.WithTimeout(ctx, questRound)
	defer cancel()
	answers := make([]answer, len(nodes))
	slots := make(chan struct{}, questAtOnce)
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			answers[i] = q.askOne(ctx, n)
			if answers[i].find != nil {
				cancel()
			}
		})
	}
	all.Wait()
	for _, a := range answers {
		if a.find != nil {
			return a.find, nil
		}
	}
	return nil, answers
}

// askOne looks first at what is newer than the map known, and then at all that
// the node has: the hash may be that of an older map, which is worth saying.
func (q *quest) askOne(ctx context.Context, n candmap.RosterNode) answer {
	a := answer{from: n.Name}
	for _, since := range []cluster.Version{q.known.At(), {}} {
		if q.search(ctx, n.UUID, since, &a); a.err != nil || a.offered {
			break
		}
	}
	return a
}

// search asks page by page.
func (q *quest) search(ctx context.Context, node cluster.NodeID, since cluster.Version, a *answer) {
	for range questPages {
		var got rpc.MapPull
		if a.err = q.client.Call(ctx, nodedOf(node), rpc.MethodMapGet, since.String(), nil, &got); a.err != nil {
			return
		}
		for _, env := range got.Maps {
			if a.offered = env.Hash() == q.hash; a.offered {
				a.find, a.err = q.take(ctx, node, env)
				if a.find != nil {
					a.find.beacon, a.find.from = got.Beacon, a.from
				}
				return
			}
		}
		last := lastVersion(got.Maps)
		if !last.Newer(since) {
			return
		}
		since, a.newest = last, last
	}
}

// lastVersion is from where to ask on; zero if that cannot be told. What such a
// map says proves nothing, but must be well-formed and signed by somebody.
func lastVersion(maps []candmap.Envelope) cluster.Version {
	if len(maps) == 0 {
		return cluster.Version{}
	}
	last := maps[len(maps)-1]
	v, err := candmap.Genesis(last, last.Hash())
	if err != nil {
		return cluster.Version{}
	}
	return v.At()
}

// take verifies the map that was found and fetches its roster. A map is of no
// use without: the nodes that it trusts could not be reached by the old one.
func (q *quest) take(ctx context.Context, node cluster.NodeID, env candmap.Envelope) (*find, error) {
	v, err := candmap.Genesis(env, q.hash)
	switch {
	case err != nil:
		return nil, err
	case v.Cluster != q.known.Map.Cluster:
		return nil, cluster.Errorf(cluster.CodeConflict, "the map with that hash is of another cluster, %s", v.Cluster)
	case q.newest.Newer(v.At()):
		return nil, tooOld(v.At(), q.newest)
	}
	select {
	case q.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-q.turn }()
	docs, err := q.roster(ctx, node, v.Roster)
	if err != nil {
		return nil, fmt.Errorf("fetch roster: %w", err)
	}
	return &find{env: env, docs: docs}, nil
}

// roster fetches the documents of a roster that are not known yet.
func (q *quest) roster(ctx context.Context, node cluster.NodeID, want cluster.Digest) ([][]byte, error) {
	var docs [][]byte
	get := func(d cluster.Digest) error {
		doc := q.known.Roster.Docs()[d]
		if doc == nil {
			if err := q.client.Call(ctx, nodedOf(node), rpc.MethodRosterGet, d.String(), nil, &doc); err != nil {
				return err
			}
		}
		if cluster.DigestOf(doc) != d {
			return cluster.Errorf(cluster.CodeBadFormat, "roster document %s has another hash", d.Short())
		}
		docs = append(docs, doc)
		return nil
	}
	if err := get(want); err != nil {
		return nil, err
	}
	index, err := candmap.ParseRosterIndex(docs[0], want)
	if err != nil {
		return nil, err
	}
	for _, d := range index.Missing(func(cluster.Digest) bool { return false }) {
		if err := get(d); err != nil {
			return nil, err
		}
	}
	return docs, nil
}

// explain tells why the map was not found. The versions that others offer are
// told, and not their hashes: who copies those from here has compared nothing.
func (q *quest) explain(answers []answer) error {
	var told, strange, refusing, silent []string
	var newest cluster.Version
	answered := 0
	for _, a := range answers {
		switch code := cluster.CodeOf(a.err); {
		case a.err == nil:
			answered++
			if a.newest.Newer(newest) {
				newest = a.newest
			}
			continue
		case a.offered && code != cluster.CodeUnavailable && code != cluster.CodeNotFound:
			return a.err // it is the map that is not right
		case code == cluster.CodeIdentityMismatch:
			strange = append(strange, string(a.from))
		case code == cluster.CodeNotInRoster || code == cluster.CodeNoCertificate:
			refusing = append(refusing, string(a.from))
		default:
			silent = append(silent, string(a.from))
		}
		told = append(told, trouble(a))
	}
	all := list(told)
	switch {
	case len(answers) == 0:
		return cluster.Errorf(cluster.CodeUnavailable, "this node knows no other node that it could ask").WithHint(comeBack)
	case slices.ContainsFunc(answers, func(a answer) bool { return a.offered }):
		return cluster.Errorf(cluster.CodeUnavailable, "the map is there, but its roster is not to be had: %s", all).
			WithHint("run the command again")
	case answered > 0:
		return q.nobodyOffers(answered, newest, all)
	case len(strange) > 0:
		return cluster.Errorf(cluster.CodeIdentityMismatch,
			"no node could be asked: %s answer with keys that the roster of this node does not pin, as when their certificates were renewed meanwhile: %s", list(strange), all).
			WithHint(comeBack)
	case len(refusing) > 0:
		return cluster.Errorf(cluster.CodeNotInRoster, "no node could be asked: %s no longer know this node: %s", list(refusing), all).WithHint(comeBack)
	default:
		return cluster.Errorf(cluster.CodeUnavailable, "none of the %d nodes that this node knows could be reached: %s", len(silent), all).
			WithHint("check the network and the firewall; if they have other addresses now, " + comeBack)
	}
}

func (q *quest) nobodyOffers(answered int, newest cluster.Version, trouble string) error {
	text := fmt.Sprintf("%d nodes answered, and none offers a map with hash %s", answered, q.hash)
	if !newest.IsZero() {
		text += fmt.Sprintf("; the newest that they offer is version %s", newest)
	}
	if trouble != "" {
		text += "; others could not be asked: " + trouble
	}
	return cluster.Errorf(cluster.CodeNotFound, "%s", text).
		WithHint("copy the hash from gnt-cluster map on the master again: it changes with every new map")
}

func trouble(a answer) string {
	text := a.err.Error()
	if !strings.HasPrefix(text, string(a.from)) {
		text = string(a.from) + ": " + text
	}
	return text
}

// list joins the first of many.
func list(texts []string) string {
	more := ""
	if n := len(texts) - questTold; n > 0 {
		texts, more = texts[:questTold], fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(texts, "; ") + more
}
