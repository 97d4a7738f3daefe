package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"rolekey/cluster"
)

// Limits of the keyring file.
const (
	maxKeyringFile = 64 << 10
	maxKeys        = 16
)

// Lines of the keyring file; docs/at-rest.rst has the whole.
const (
	keyringTitle   = "rolekey keyring "
	keyringVersion = "1"
	sumWord        = "sum "
	sumLine        = len(sumWord) + 2*sha256.Size + 1
)

// encodeKeyring writes the one text form of a keyring.
func encodeKeyring(ctx Context, keys []*dataKey) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%s\nkek none\n", keyringTitle, keyringVersion)
	fmt.Fprintf(&b, "cluster %s\nnode %s\nincarnation %d\n", ctx.Cluster, ctx.Node, ctx.Incarnation)
	for _, k := range keys {
		fmt.Fprintf(&b, "key %s %s %s\n", k.ID, k.State, hex.EncodeToString(k.secret.Reveal()))
	}
	fmt.Fprintf(&b, "%s%x\n", sumWord, sha256.Sum256(b.Bytes()))
	return b.Bytes()
}

// parseKeyring accepts only what encodeKeyring writes. Its errors quote no
// line: a line may hold a key.
func parseKeyring(text []byte) (Context, *keySet, error) {
	if err := checkFrame(text); err != nil {
		return Context{}, nil, err
	}
	lines := strings.Split(string(text[:len(text)-sumLine]), "\n")
	ctx, keys, err := parseLines(lines[2 : len(lines)-1])
	if err != nil {
		return Context{}, nil, fmt.Errorf("%w: %w", ErrKeyringDamaged, err)
	}
	set, err := newKeySet(keys)
	if err != nil {
		return Context{}, nil, fmt.Errorf("%w: %w", ErrKeyringDamaged, err)
	}
	if !bytes.Equal(encodeKeyring(ctx, keys), text) {
		return Context{}, nil, fmt.Errorf("%w: not in canonical form", ErrKeyringDamaged)
	}
	return ctx, set, nil
}

// checkFrame checks format, lock and sum. The first two come first: a file of a
// later version may end in something else than a sum.
func checkFrame(text []byte) error {
	version, ok := bytes.CutPrefix(text, []byte(keyringTitle))
	if !ok {
		return fmt.Errorf("%w: it does not begin as a keyring", ErrKeyringDamaged)
	}
	rest, ok := bytes.CutPrefix(version, []byte(keyringVersion+"\n"))
	if !ok {
		return fmt.Errorf("keyring: %w", ErrUnknownFormat)
	}
	if bytes.HasPrefix(rest, []byte("kek ")) && !bytes.HasPrefix(rest, []byte("kek none\n")) {
		return fmt.Errorf("keyring is locked in a way this version does not know: %w", ErrUnknownFormat)
	}
	if !bytes.HasPrefix(rest, []byte("kek none\n")) || len(rest) < sumLine {
		return fmt.Errorf("%w: it is cut short", ErrKeyringDamaged)
	}
	body, sum := text[:len(text)-sumLine], text[len(text)-sumLine:]
	if want := fmt.Sprintf("%s%x\n", sumWord, sha256.Sum256(body)); string(sum) != want {
		return fmt.Errorf("%w: its sum is wrong", ErrKeyringDamaged)
	}
	return nil
}

// parseLines reads the lines between "kek" and "sum".
func parseLines(lines []string) (ctx Context, keys []*dataKey, err error) {
	if len(lines) < 3 {
		return Context{}, nil, fmt.Errorf("%d lines are too few", len(lines))
	}
	if ctx.Cluster, err = parseUUIDLine("cluster ", lines[0]); err != nil {
		return Context{}, nil, err
	}
	if ctx.Node, err = parseUUIDLine("node ", lines[1]); err != nil {
		return Context{}, nil, err
	}
	n, ok := strings.CutPrefix(lines[2], "incarnation ")
	if ctx.Incarnation, err = strconv.ParseUint(n, 10, 64); err != nil || !ok {
		return Context{}, nil, fmt.Errorf("line %q is not there or wrong", "incarnation")
	}
	for _, line := range lines[3:] {
		key, err := parseKeyLine(line)
		if err != nil {
			return Context{}, nil, err
		}
		keys = append(keys, key)
	}
	return ctx, keys, nil
}

func parseUUIDLine(word, line string) (cluster.UUID, error) {
	s, ok := strings.CutPrefix(line, word)
	u, err := cluster.ParseUUID(s)
	if !ok || err != nil || u.IsZero() {
		return cluster.UUID{}, fmt.Errorf("line %q is not there or wrong", strings.TrimSpace(word))
	}
	return u, nil
}

// parseKeyLine reads one key. That the id belongs to the key shows when the
// whole is encoded again.
func parseKeyLine(line string) (*dataKey, error) {
	words := strings.Split(line, " ")
	if len(words) != 4 || words[0] != "key" {
		return nil, fmt.Errorf("a line %q is wrong", "key")
	}
	secret, err := hex.DecodeString(words[3])
	if err != nil {
		return nil, fmt.Errorf("key %q is not hex", clip(words[1]))
	}
	for _, state := range [...]State{Active, Retiring} {
		if words[2] == state.String() {
			return newDataKey(secret, state)
		}
	}
	return nil, fmt.Errorf("key %q: %w: state %q", clip(words[1]), ErrUnknownFormat, clip(words[2]))
}

// clip shortens a word that is quoted in an error to less than a key.
func clip(s string) string {
	if len(s) > 16 {
		return s[:16] + "…"
	}
	return s
}
