package sshkeys

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"strconv"
	"strings"

	"rolekey/cluster"
)

// The markers, and the mark that overwrites the beginning of a disabled line. It
// is shorter than every key line, so that the comment at the end survives.
const (
	beginPrefix = "# BEGIN ROLEKEY "
	endPrefix   = "# END ROLEKEY "
	offPrefix   = "# ROLEKEY OFF"
)

// blanks are what may surround a line of ours after somebody's editor.
const blanks = " \t\r\n"

type fileKind uint8

const (
	authorizedKeys fileKind = iota
	knownHosts
)

type lineKind uint8

const (
	textLine   lineKind = iota // nothing of Rolekey's
	keyLine                    // of a form that Rolekey writes
	beginOurs                  // markers of this cluster
	endOurs                    //
	beginOther                 // markers of another cluster
	endOther                   //
	cutLine                    // the end of a file that was cut within a line of ours
)

// line is one line of a file, with its newline if it has one.
type line struct {
	bytes []byte
	kind  lineKind
	id    cluster.UUID // of a marker of another cluster
	key   string       // blob of a key line or cut line; "" if the line is disabled
}

// parseFile splits at newlines, as sshd does (a carriage return alone ends
// nothing), and says what each line is.
func parseFile(content []byte, ours cluster.UUID, kind fileKind) []line {
	var lines []line
	for raw := range bytes.Lines(content) {
		lines = append(lines, parseLine(raw, ours, kind))
	}
	return lines
}

func parseLine(raw []byte, ours cluster.UUID, kind fileKind) line {
	l := line{bytes: raw}
	text := string(bytes.Trim(raw, blanks))
	if id, ok := parseMarker(text, beginPrefix); ok {
		l.kind, l.id = beginOther, id
		if id == ours {
			l.kind = beginOurs
		}
		return l
	}
	if id, ok := parseMarker(text, endPrefix); ok {
		l.kind, l.id = endOther, id
		if id == ours {
			l.kind = endOurs
		}
		return l
	}
	if key, ok := parseOwn(text, kind); ok {
		l.kind, l.key = keyLine, key
	} else if key, ok := parseCut(raw); ok && kind == authorizedKeys {
		l.kind, l.key = cutLine, key
	}
	return l
}

// parseCut reports whether raw is the beginning of a line of ours, of which the
// file's end cut the comment, and its key. sshd honours such a line.
func parseCut(raw []byte) (key string, ok bool) {
	text := string(raw)
	if strings.HasSuffix(text, "\n") {
		return "", false
	}
	if strings.HasPrefix(text, offPrefix) {
		return "", true
	}
	if !strings.HasPrefix(text, `from="`) {
		return "", false
	}
	options, rest, ok := cutOptions(text)
	if !ok || len(options) != 2 || !ownOptions(options) {
		return "", false
	}
	f := strings.FieldsFunc(rest, isBlank)
	if len(f) != 2 && (len(f) != 3 || !strings.HasPrefix(f[2], commentPrefix) && !strings.HasPrefix(commentPrefix, f[2])) {
		return "", false
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(f[1])
	return string(blob), err == nil && blobType(blob) == f[0]
}

func parseMarker(text, prefix string) (cluster.UUID, bool) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return cluster.UUID{}, false
	}
	id, err := cluster.ParseUUID(rest)
	return id, err == nil && !id.IsZero()
}

// parseOwn reports whether text has a form that Rolekey writes, and its key.
func parseOwn(text string, kind fileKind) (key string, ok bool) {
	// Cheap, and true of every line of ours: a file of foreign lines is not
	// decoded at all.
	i := strings.LastIndexAny(text, " \t")
	if i < 0 {
		return "", false
	}
	if _, ok := parseComment(text[i+1:]); !ok {
		return "", false
	}
	if kind == knownHosts {
		return parseOwnHost(text)
	}
	if isOff(text) {
		return "", true
	}
	return parseOwnAuthorized(text)
}

// isOff reports whether a line, which ends in our comment, was disabled in
// place. A loss of power can leave half of the mark; what it covers is then the
// beginning of what every line of ours begins with, or of an address behind it.
func isOff(text string) bool {
	const start, certain = `from="`, len("# ROLEK")
	n := 0
	for n < min(len(text), len(offPrefix)) && text[n] == offPrefix[n] {
		n++
	}
	if n >= certain {
		return true
	}
	if n == 0 || n > len(start) {
		return false
	}
	_, ok := parseOwnAuthorized(start[:n] + text[n:])
	return ok
}

func parseOwnAuthorized(text string) (key string, ok bool) {
	if key, ok := parseKeyText(text); ok {
		return key, true
	}
	options, rest, ok := cutOptions(text)
	if !ok || !ownOptions(options) {
		return "", false
	}
	return parseKeyText(rest)
}

// parseKeyText reads what keyText writes. The strength of the key is no
// question here: a line of an older release must still be taken away.
func parseKeyText(text string) (key string, ok bool) {
	f := strings.FieldsFunc(text, isBlank)
	if len(f) != 3 {
		return "", false
	}
	if _, ok := parseComment(f[2]); !ok {
		return "", false
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(f[1])
	if err != nil || blobType(blob) != f[0] {
		return "", false
	}
	return string(blob), true
}

// blobType reads the algorithm name in front of a key blob (RFC 4253 §6.6), or
// returns "".
func blobType(blob []byte) string {
	if len(blob) < 4 {
		return ""
	}
	n := int(blob[0])<<24 | int(blob[1])<<16 | int(blob[2])<<8 | int(blob[3])
	if n <= 0 || n > 64 || n > len(blob)-4 {
		return ""
	}
	return string(blob[4 : 4+n])
}

// cutOptions separates the options from the rest at the first blank outside
// quotes, as sshd does; a backslash hides a quote.
func cutOptions(text string) (options []string, rest string, ok bool) {
	quoted, start := false, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && text[i+1] == '"':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			options, start = append(options, text[start:i]), i+1
		case isBlank(rune(c)) && !quoted:
			return append(options, text[start:i]), text[i+1:], true
		}
	}
	return nil, "", false
}

func isBlank(r rune) bool { return r == ' ' || r == '\t' }

// plainOptions are options without a value that this or a later release may
// write. A line with any other, such as command, is the administrator's.
var plainOptions = map[string]bool{
	"restrict": true, "pty": true, "user-rc": true, "agent-forwarding": true,
	"port-forwarding": true, "x11-forwarding": true, "no-pty": true, "no-user-rc": true,
	"no-agent-forwarding": true, "no-port-forwarding": true, "no-x11-forwarding": true,
}

func ownOptions(options []string) bool {
	for _, o := range options {
		name, value, valued := strings.Cut(strings.ToLower(o), "=")
		switch {
		case !valued && plainOptions[name]:
		case valued && (name == "from" || name == "expiry-time") && isQuoted(value):
		default:
			return false
		}
	}
	return true
}

func isQuoted(s string) bool {
	return len(s) >= 2 && s[0] == '"' && strings.IndexByte(s[1:], '"') == len(s)-2
}

// parseOwnHost reads a known_hosts line of ours: names, key and comment, the
// names being names and addresses only.
func parseOwnHost(text string) (key string, ok bool) {
	i := strings.IndexFunc(text, isBlank)
	if i < 0 {
		return "", false
	}
	for n := range strings.SplitSeq(text[:i], ",") {
		if !isHostPattern(n) {
			return "", false
		}
	}
	return parseKeyText(text[i:])
}

func isHostPattern(s string) bool {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		host, port, ok := strings.Cut(inner, "]:")
		if _, err := strconv.ParseUint(port, 10, 16); !ok || err != nil {
			return false
		}
		s = host
	}
	if _, err := cluster.ParseName(s); err == nil {
		return true
	}
	a, err := netip.ParseAddr(s)
	return err == nil && cluster.CheckAddr(a) == nil
}
