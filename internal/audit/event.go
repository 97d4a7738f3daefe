package audit

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"rolekey/cluster"
)

// Bounds of a line. The texts alone, all of bytes that JSON escapes, fit into
// one.
const (
	MaxLine   = 12 << 10
	maxText   = 256 // the longest name has 253
	maxValues = 32
)

// Values describe a thing before or after an act, such as {"role": "regular"}.
type Values map[string]string

// Caller is who asked for an act.
type Caller struct {
	Actor      string         // a person or program, such as "root (local socket)"
	UID        *uint32        // of a process on this machine
	PeerNode   cluster.NodeID // zero: no node of the cluster
	PeerDigest cluster.Digest // of its certificate; zero: none
	Remote     string         // address and port
	RequestID  string         // ties the lines of one request together, on all machines
}

type callerKey struct{}

// WithCaller returns a context of work that the caller asked for.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns who asked for the work of a context; zero if nobody did.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Event is one act. Everything but Act may be left out; a text that is too long
// is cut. Nothing secret belongs into it, and no text of an error: its code.
type Event struct {
	Act     Act
	Outcome Outcome
	Code    cluster.Code // why it was refused or failed
	Caller
	Op      string // which call, command or kind of thing
	Target  string // what it was done to: a node, a key, a job, an address
	Before  Values
	After   Values
	Version cluster.Version // the map by which it was done; zero: the one in force
	Count   int64           // how many, where one line stands for several
	Time    time.Time       // zero: now
}

// Of sets outcome and code by an error, which may be nil.
func (e Event) Of(err error) Event {
	switch e.Code = cluster.CodeOf(err); e.Code {
	case "":
		e.Outcome = OK
	case cluster.CodeInternal, cluster.CodeUnavailable, cluster.CodeNoQuorum:
		e.Outcome = Failed
	default:
		e.Outcome = Refused
	}
	return e
}

// line is an event as it is written; docs/audit.rst says what each field means.
type line struct {
	Time       time.Time    `json:"time"`
	Node       string       `json:"node"`
	Daemon     string       `json:"daemon"`
	Act        Act          `json:"act"`
	Outcome    Outcome      `json:"outcome"`
	Code       cluster.Code `json:"code,omitempty"`
	Actor      string       `json:"actor,omitempty"`
	UID        *uint32      `json:"uid,omitempty"`
	PeerNode   string       `json:"peer_node,omitempty"`
	PeerDigest string       `json:"peer_digest,omitempty"`
	Remote     string       `json:"remote,omitempty"`
	Op         string       `json:"op,omitempty"`
	Target     string       `json:"target,omitempty"`
	Before     Values       `json:"before,omitempty"`
	After      Values       `json:"after,omitempty"`
	MapVersion string       `json:"map_version,omitempty"`
	RequestID  string       `json:"request_id,omitempty"`
	Count      int64        `json:"count,omitempty"`
	Cut        bool         `json:"cut,omitempty"`
}

// encode returns the line with its end.
func (l *line) encode() []byte {
	b, err := json.Marshal(l)
	if err == nil && len(b) >= MaxLine {
		l.Before, l.After, l.Cut = nil, nil, true
		b, err = json.Marshal(l)
	}
	if err != nil { // a time of another era
		l.Time, l.Before, l.After, l.Cut = time.Time{}, nil, nil, true
		b, _ = json.Marshal(l)
	}
	return append(b, '\n')
}

// of fills a line from an event, within bounds.
func (l *line) of(e Event) {
	l.Act, l.Outcome, l.Code, l.UID, l.Count = e.Act, e.Outcome, e.Code, e.UID, e.Count
	switch {
	case l.Outcome != "":
	case e.Code != "":
		l.Outcome = Refused
	default:
		l.Outcome = OK
	}
	for _, t := range []struct {
		to   *string
		from string
	}{{&l.Actor, e.Actor}, {&l.Remote, e.Remote}, {&l.Op, e.Op}, {&l.Target, e.Target}, {&l.RequestID, e.RequestID}} {
		*t.to = l.clip(t.from)
	}
	l.Before, l.After = l.clipAll(e.Before), l.clipAll(e.After)
	if !e.PeerNode.IsZero() {
		l.PeerNode = e.PeerNode.String()
	}
	if !e.PeerDigest.IsZero() {
		l.PeerDigest = e.PeerDigest.String()
	}
	if !e.Version.IsZero() {
		l.MapVersion = e.Version.String()
	}
}

// clip cuts a text, at a character.
func (l *line) clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	l.Cut = true
	n := maxText
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n])
}

func (l *line) clipAll(v Values) Values {
	if len(v) == 0 {
		return nil
	}
	out := Values{}
	for _, k := range slices.Sorted(maps.Keys(v)) {
		if len(out) == maxValues {
			l.Cut = true
			break
		}
		out[l.clip(k)] = l.clip(v[k])
	}
	return out
}
