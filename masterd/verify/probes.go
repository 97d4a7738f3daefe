package verify

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"slices"
	"strconv"
	"sync"
	"time"

	"rolekey/candmap"
	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/rpc"
)

// Prober makes attempts that nodes must refuse.
type Prober interface {
	// Probe has a node attempt them.
	Probe(ctx context.Context, node cluster.NodeID, r rpc.ProbeRequest) (rpc.ProbeReply, error)
	// PutMap delivers maps.
	PutMap(ctx context.Context, node cluster.NodeID, d rpc.MapDelivery) (rpc.MapAck, error)
	// OldMap returns a map that was replaced, if one is still known.
	OldMap() (candmap.Envelope, bool)
	// Outsider returns a caller with a candidate's certificate that the cluster's
	// CA has signed this moment, and that no map lists.
	Outsider(s *state.State) (Outsider, error)
}

// Outsider calls as nobody that a node should know.
type Outsider interface {
	Read(ctx context.Context, node cluster.NodeID) error // what only a candidate may
	Close() error
}

// targetsEach is how many others a normal node attempts something with.
const targetsEach = 2

// counted are the probes of a run.
type counted struct {
	logins, refusedLogins, refusedCalls int
	earlier                             int // of the refused logins: not of this run, but of one a moment before
	cutOff                              int // did not reach the other node
}

// refusals tells of what must fail: by normal nodes, and from here. Each attempt
// leaves a line in the audit of the node that refuses it. All of a run carry one
// request id, by which they are known; nobody is trusted for showing it.
func (c *check) refusals(a *attempts) {
	c.section("Verifying refusals")
	for _, f := range a.own.problems {
		c.report(f.code, "cluster", "", "%s", f.text)
	}
	c.count.refusedCalls += a.own.refused
	old := map[cluster.NodeID]bool{}
	for _, p := range a.strangers {
		c.strangeResult(p, old, len(a.own.found[p.to.UUID]) == 0)
	}
	c.answered(func(n *state.Node, _ rpc.NodeState) {
		for _, f := range a.own.found[n.UUID] {
			c.node(n, f.code, "%s", f.text)
		}
	})
	if n := c.count; n.refusedCalls+n.refusedLogins > 0 {
		c.tell("  - NOTICE: " + strconv.Itoa(n.refusedCalls) + " calls and " + strconv.Itoa(n.refusedLogins) +
			" logins were refused, as they must be; nodes' audit logs show the calls with request id " + c.id + ".")
	}
	if n := c.count.earlier; n > 0 {
		c.tell("  - NOTICE: Of these logins " + strconv.Itoa(n) + " met their refusal in an earlier run, less than 15 s ago: newer sshd shuts out who fails often.")
	}
	if n := c.count.cutOff; n > 0 {
		c.tell("  - NOTICE: " + strconv.Itoa(n) + " attempts between nodes that are no candidates did not arrive: a firewall, which may be so, or the network.")
	}
}

// strange is one attempt of a normal node with another.
type strange struct {
	from, to *state.Node
	reply    rpc.ProbeReply
	err      error
	skipped  string
	mute     bool // no login was tried: the sshd there answers nobody
}

// strangeAttempts has normal nodes attempt a call and a login.
func (c *check) strangeAttempts(ctx context.Context, all []*strange) []attempt {
	list := make([]attempt, 0, len(all))
	for _, p := range all {
		list = append(list, attempt{
			kind: improper, from: p.from.UUID, to: p.to.UUID,
			run:  func() verdict { return c.strange(ctx, p) },
			skip: func(why string) { p.skipped = why },
		})
	}
	return list
}

// strangers pairs normal nodes with their targets. Who gets whom changes every
// few seconds, so that runs that follow each other see different pairs.
func (c *check) strangers() []*strange {
	nodes := c.heardNodes()
	each := min(targetsEach, len(nodes)-1)
	if c.opts.AllPairs {
		each = len(nodes) - 1
	}
	shift := int(c.now.Unix() / 15 % 1024)
	var all []*strange
	for k := range each {
		for i, from := range nodes {
			if c.held.Candidate(from.UUID) != nil || !from.Joined || c.answers[from.UUID].Version != c.held.At() {
				continue
			}
			// One of the others, never the node itself.
			others := len(nodes) - 1
			all = append(all, &strange{from: from, to: nodes[(i+1+(shift+k)%others)%len(nodes)]})
		}
	}
	return all
}

func (c *check) strange(ctx context.Context, p *strange) verdict {
	ctx, cancel := context.WithTimeout(ctx, oneProbe)
	defer cancel()
	began := time.Now()
	req := rpc.ProbeRequest{Calls: []cluster.NodeID{p.to.UUID}, Logins: []cluster.NodeID{}}
	if p.mute = c.mute.has(p.to.UUID); c.s.Params.SSHSetup && !p.mute {
		req.Logins = append(req.Logins, p.to.UUID)
	}
	p.reply, p.err = c.ask.Probe(ctx, p.from.UUID, req)
	switch slow := time.Since(began) >= unanswered; {
	case p.err != nil && cluster.CodeOf(p.err) == cluster.CodeNotFound:
		return verdict{fromGone: unknownProbe}
	case p.err != nil && (slow || cluster.CodeOf(p.err) == cluster.CodeUnavailable):
		return verdict{fromGone: "the node no longer answers"}
	case slow:
		return verdict{toGone: noAnswer}
	}
	return verdict{}
}

const unknownProbe = "its release makes no probes; upgrade it"

// strangeResult tells of one attempt. Refuses says whether the other node refused
// all that was tried from here.
func (c *check) strangeResult(p *strange, old map[cluster.NodeID]bool, refuses bool) {
	warn := func(code, text string) { c.line("WARNING", code, "node", string(p.from.Name), text) }
	about := "could not test what node '" + string(p.to.Name) + "' refuses: "
	switch {
	case p.skipped == unknownProbe || cluster.CodeOf(p.err) == cluster.CodeNotFound && p.err != nil:
		if !old[p.from.UUID] {
			warn(CodeNodeVersion, unknownProbe)
		}
		old[p.from.UUID] = true
	case p.skipped == noAnswer:
		c.count.cutOff++
	case p.skipped != "":
		warn(CodeNodeRPC, about+p.skipped)
	case p.err != nil:
		warn(CodeNodeRPC, about+oneLine(p.err.Error()))
	default:
		c.strangeCalls(p, about, warn, refuses)
		c.strangeLogins(p, about, warn, refuses)
	}
}

func (c *check) strangeCalls(p *strange, about string, warn func(code, text string), refuses bool) {
	if len(p.reply.Calls) != 1 || p.reply.Calls[0].Node != p.to.UUID {
		warn(CodeNodeRPC, about+"it was not tried")
		return
	}
	r := p.reply.Calls[0]
	for _, a := range []struct {
		what      string
		got, want cluster.Code
	}{
		{"though it is no master candidate", r.Identity, cluster.CodeNotInMap},
		{"without a certificate", r.Nothing, cluster.CodeNoCertificate},
	} {
		switch a.got {
		case a.want:
			c.count.refusedCalls++
		case rpc.ProbeServed:
			c.accused(p, CodeNodeGate, "got what only a candidate may read, "+a.what, refuses)
		case cluster.CodeUnavailable:
			c.count.cutOff++
			return
		case cluster.CodeBusy:
			warn(CodeNodeRPC, about+oneLine(r.Error))
			return
		default:
			c.accused(p, CodeNodeGate, "was refused, "+a.what+", with '"+string(a.got)+"' instead of '"+string(a.want)+"'", refuses)
		}
	}
}

func (c *check) strangeLogins(p *strange, about string, warn func(code, text string), refuses bool) {
	if !c.s.Params.SSHSetup || p.mute {
		return
	}
	if len(p.reply.Logins) != 1 || p.reply.Logins[0].Node != p.to.UUID {
		warn(CodeNodeSSH, about+"it was not tried")
		return
	}
	switch r := p.reply.Logins[0]; r.Outcome {
	case rpc.LoginRefused:
		c.count.refusedLogins++
		if r.AgeSeconds > 0 {
			c.count.earlier++
		}
	case rpc.LoginCutOff:
		c.count.cutOff++
	case rpc.LoginAdmitted:
		c.accused(p, CodeNodeSSH, "was let in by its sshd as root with a key that nobody authorized", refuses).
			cure(RepairNone, "on %s: sshd -T -C user=root,host=localhost,addr=127.0.0.1 shows its configuration: see to AuthorizedKeysCommand, TrustedUserCAKeys and PermitEmptyPasswords; if nothing there lets it in, look what runs on %s, whose word it is", p.to.Name, p.from.Name)
	default:
		if !c.closed[p.to.UUID] { // it lets in no candidate either, which is told
			c.line("WARNING", CodeNodeSSH, "node", string(p.from.Name), about+oneLine(r.Error)).cure(RepairNone, sshRemedy, p.to.Name)
		}
	}
}

// accused reports what one node says of another. It may lie, which must not cost
// an honest node its place: the report says whose word it is.
func (c *check) accused(p *strange, code, what string, refuses bool) *Finding {
	own := "the master, too, was not refused as it should be"
	if refuses {
		own = "the master's own attempts there were refused"
	}
	f := c.node(p.to, code, "node '%s' says that it %s; %s", p.from.Name, what, own)
	f.cure(RepairNone, "one of %s and %s is not what it should be: compare their programs with those of the others; the audit log of %s shows with request id %s what it refused; then gnt-node modify -O yes the one, and add it again: gnt-node add --readd",
		p.to.Name, p.from.Name, p.to.Name, c.id)
	return f
}

// refusal is what was wrong with one.
type refusal struct{ code, text string }

// offers are what every node was offered from here.
type offers struct {
	problems []refusal // why some could not be made
	found    map[cluster.NodeID][]refusal
	refused  int // as they must be
}

// fromHere attempts with every node what a thief of the CA's key, and forgers
// and replayers of maps would.
func (c *check) fromHere(ctx context.Context) (all offers) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	outsider, err := c.ask.Outsider(c.s)
	if err != nil {
		all.problems = append(all.problems, refusal{CodeClusterCert, "the cluster's CA cannot sign a certificate: " + err.Error()})
	} else {
		defer func() { _ = outsider.Close() }() // nothing is kept
	}
	forged, ferr := forge(c.held, c.now)
	if ferr != nil {
		all.problems = append(all.problems, refusal{CodeClusterConfig, "the candidate map cannot be written again: " + ferr.Error()})
	}
	old, replay := c.ask.OldMap()
	var mu sync.Mutex
	var wg sync.WaitGroup
	all.found = map[cluster.NodeID][]refusal{}
	c.answered(func(n *state.Node, a rpc.NodeState) {
		wg.Go(func() {
			var list []refusal
			calls := 0
			if outsider != nil {
				calls++
				list = append(list, judge("a certificate that the CA has just signed and the map does not list", outsider.Read(ctx, n.UUID), cluster.CodeNotInMap)...)
			}
			if ferr == nil {
				calls++
				list = append(list, c.deliver(ctx, n, "a forged candidate map", forged, cluster.CodeBadSignature)...)
			}
			if replay && a.Version == c.held.At() {
				calls++
				list = append(list, c.deliver(ctx, n, "an old candidate map", old, cluster.CodeMapOlder, cluster.CodeBadSignature)...)
			}
			mu.Lock()
			defer mu.Unlock()
			all.refused += calls - len(list)
			all.found[n.UUID] = list
		})
	})
	wg.Wait()
	return all
}

func (c *check) deliver(ctx context.Context, n *state.Node, what string, env candmap.Envelope, want ...cluster.Code) []refusal {
	_, err := c.ask.PutMap(ctx, n.UUID, rpc.MapDelivery{Maps: []candmap.Envelope{env}})
	return judge(what, err, want...)
}

// judge compares a refusal with those that are right.
func judge(what string, err error, want ...cluster.Code) []refusal {
	switch code := cluster.CodeOf(err); {
	case err == nil:
		return []refusal{{CodeNodeGate, "it accepted " + what}}
	case slices.Contains(want, code):
		return nil
	case code == cluster.CodeUnavailable || code == cluster.CodeBusy || code == "":
		return []refusal{{CodeNodeRPC, "while offering it " + what + ": " + oneLine(err.Error())}}
	default:
		return []refusal{{CodeNodeGate, "it refused " + what + " with '" + string(code) + "' instead of '" + string(want[0]) + "'"}}
	}
}

// forge makes the map that would follow, signed in every voter's name by a key
// that is made for it and thrown away. No real key signs it: a signature would
// stay good for whoever collects them. It says nothing new, so that a node that
// is so broken that it takes it grants nobody anything.
func forge(held *candmap.Verified, now time.Time) (candmap.Envelope, error) {
	m := *held.Map
	m.Version, m.Previous, m.Issued = m.Version+1, held.Hash, candmap.Stamp(now)
	payload, err := m.Encode()
	if err != nil {
		return candmap.Envelope{}, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return candmap.Envelope{}, err
	}
	sig, err := candmap.Sign(key, candmap.MapType, payload)
	if err != nil {
		return candmap.Envelope{}, err
	}
	env := candmap.Envelope{PayloadType: candmap.MapType, Payload: payload, Signatures: []candmap.Signature{sig}}
	for _, e := range held.Candidates {
		if e.Voter {
			env.Signatures = append(env.Signatures, candmap.Signature{KeyID: candmap.KeyIDOf(e.Signing.Public()), Sig: sig.Sig})
		}
	}
	return env, nil
}
