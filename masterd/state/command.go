package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"rolekey/cluster"
)

// commandFormat is the first byte of an encoded command.
const commandFormat = 1

// ErrUnknownCommand says that a committed command was written by a newer
// release. Skipping it would let this replica's state depart from the others',
// so the daemon must stop.
var ErrUnknownCommand = errors.New("unknown raft command: it was written by a newer release; upgrade this node")

// Command is one entry of the replicated log.
type Command struct {
	V         int
	Kind      string
	Time      time.Time // of the leader's clock: UTC, whole milliseconds
	Actor     string    // who asked
	RequestID string
	Body      json.RawMessage // canonical; may hold secrets
	Map       []byte          // exact payload of the map that the command yields; empty: none
}

// wireCommand is Command in the form that is encoded.
type wireCommand struct {
	V         int             `json:"v"`
	Kind      string          `json:"kind"`
	Time      time.Time       `json:"time"`
	Actor     string          `json:"actor"`
	RequestID string          `json:"request_id"`
	Body      json.RawMessage `json:"body"`
	Map       []byte          `json:"map"`
}

// Format implements fmt.Formatter for every verb: the body may hold secrets.
func (c Command) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "command %s of %s (%d bytes, map %d bytes)", c.Kind, c.Time.Format(time.RFC3339), len(c.Body), len(c.Map))
}

// MarshalJSON shows a command to people, without its body.
func (c Command) MarshalJSON() ([]byte, error) {
	type shown struct {
		Kind      string    `json:"kind"`
		Time      time.Time `json:"time"`
		Actor     string    `json:"actor"`
		RequestID string    `json:"request_id"`
	}
	return json.Marshal(shown{c.Kind, c.Time, c.Actor, c.RequestID})
}

// EncodeCommand returns the bytes of a log entry. They may hold secrets.
func EncodeCommand(c Command) ([]byte, error) {
	b, err := marshal(wireCommand(c))
	if err != nil {
		return nil, fmt.Errorf("encode command %.40q: %w", c.Kind, err)
	}
	if len(b)+1 > MaxCommand {
		return nil, cluster.Errorf(cluster.CodeTooLarge, "encode command %s: %d bytes, the limit is %d", c.Kind, len(b)+1, MaxCommand)
	}
	return append([]byte{commandFormat}, b...), nil
}

// DecodeCommand reads a log entry. What is well formed but not understood, be
// it the format, the kind or a member of the body, is ErrUnknownCommand.
func DecodeCommand(b []byte) (Command, error) {
	switch {
	case len(b) == 0:
		return Command{}, cluster.Errorf(cluster.CodeBadFormat, "decode command: empty")
	case len(b) > MaxCommand:
		return Command{}, cluster.Errorf(cluster.CodeTooLarge, "decode command: %d bytes, the limit is %d", len(b), MaxCommand)
	case b[0] != commandFormat:
		return Command{}, fmt.Errorf("decode command: format %d: %w", b[0], ErrUnknownCommand)
	}
	var w wireCommand
	if err := unmarshal(b[1:], &w); err != nil {
		return Command{}, fmt.Errorf("decode command: %w: %w", err, ErrUnknownCommand)
	}
	c := Command(w)
	if err := c.checkHead(); err != nil {
		return Command{}, err
	}
	if _, err := decodeBody(c.Kind, c.Body); err != nil {
		return Command{}, fmt.Errorf("decode command %.40q: %w", c.Kind, err)
	}
	return c, nil
}

func (c Command) checkHead() error {
	switch {
	case c.V != commandFormat:
		return fmt.Errorf("command version %d: %w", c.V, ErrUnknownCommand)
	case len(c.Actor) > MaxActor || len(c.RequestID) > MaxRequestID:
		return cluster.Errorf(cluster.CodeTooLarge, "command %.40q: actor or request id too long", c.Kind)
	case !validTime(c.Time):
		return cluster.Errorf(cluster.CodeBadFormat, "command %.40q: time %s is not UTC in whole milliseconds of this era", c.Kind, c.Time)
	}
	return nil
}

// validTime accepts times in the one form that round-trips.
func validTime(t time.Time) bool {
	return t.Location() == time.UTC && t.Equal(t.Truncate(time.Millisecond)) && t.After(minTime) && t.Before(maxTime)
}

// body is the part of a command that depends on its kind.
type body interface {
	apply(d *draft) error
}

// secretBody is implemented by bodies whose encoding holds secrets; wire
// returns the form that reveals them.
type secretBody interface {
	wire() any
}

// encodeBody returns the canonical encoding of a body, of its own type or a
// pointer to it.
func encodeBody(kind string, v any) (json.RawMessage, error) {
	if s, ok := v.(secretBody); ok {
		v = s.wire()
	}
	b, err := marshal(v)
	if err != nil {
		return nil, err
	}
	if _, err := decodeBody(kind, b); err != nil {
		return nil, fmt.Errorf("body of %s: %w", kind, err)
	}
	return b, nil
}

func decodeBody(kind string, b []byte) (body, error) {
	read, ok := kinds[kind]
	if !ok {
		return nil, ErrUnknownCommand
	}
	v, err := read(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrUnknownCommand)
	}
	if l, ok := v.(raiser); ok && l.raises() > cluster.FeatureLevel {
		return nil, fmt.Errorf("feature level %d, and this build knows %d: %w", l.raises(), cluster.FeatureLevel, ErrUnknownCommand)
	}
	return v, nil
}

// reader returns the strict decoder of a body type.
func reader[T any, P interface {
	*T
	body
}]() func([]byte) (body, error) {
	return func(b []byte) (body, error) {
		v := P(new(T))
		if err := unmarshal(b, v); err != nil {
			return nil, err
		}
		return v, nil
	}
}
