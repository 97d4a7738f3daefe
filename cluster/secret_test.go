package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// leaks lists the shapes in which the secret below would show.
var leaks = []string{"hunter2", "68756e74657232", "68 75 6e", "aHVudGVyMg", "104 117", "0x68", "1101000", "150 165"}

func checkNoLeak(t *testing.T, how, text string) {
	t.Helper()
	for _, l := range leaks {
		if strings.Contains(strings.ToLower(text), strings.ToLower(l)) {
			t.Errorf("%s shows the secret: %s", how, text)
		}
	}
}

type holder struct {
	Secret  Secret
	Pointer *Secret
	List    []Secret
	private Secret
}

func newHolder() holder {
	s := NewSecret([]byte("hunter2"))
	return holder{s, &s, []Secret{s}, s}
}

func TestG6SecretNeverFormats(t *testing.T) {
	h := newHolder()
	for _, verb := range strings.Split("v +v #v s q x X d o b c U e f g t p T % 10s -20v 08d .3s", " ") {
		for _, value := range []any{h.Secret, &h.Secret, h.List, h.Pointer} {
			checkNoLeak(t, "%"+verb, fmt.Sprintf("%"+verb, value))
		}
	}
	if got := fmt.Sprintf("%v %s %#v %d", h.Secret, h.Secret, h.Secret, h.Secret); got != strings.TrimSpace(strings.Repeat("[redacted] ", 4)) {
		t.Errorf("formats as %q", got)
	}
	checkNoLeak(t, "Print", fmt.Sprint(h.Secret, h.List))
	checkNoLeak(t, "Errorf", fmt.Errorf("use %v: %w", h.Secret, errors.New("x")).Error())
	exported := struct{ A, B any }{h.Secret, h.Pointer}
	checkNoLeak(t, "in a struct", fmt.Sprintf("%v %+v %#v", exported, exported, exported))
}

// Package fmt cannot call methods of what lies in unexported fields, so there
// the bytes themselves must be out of its reach.
func TestG6SecretInUnexportedField(t *testing.T) {
	h := newHolder()
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d", "%q", "%p", "%c", "%t", "%U"} {
		checkNoLeak(t, verb+" of an unexported field", fmt.Sprintf(verb, struct{ private Secret }{h.private}))
	}
}

func TestG6SecretNeverEncodes(t *testing.T) {
	h := newHolder()
	b, err := json.Marshal(map[string]any{"h": h, "s": h.Secret})
	if err != nil || !bytes.Contains(b, []byte(`"s":"[redacted]"`)) {
		t.Errorf("JSON %s, %v", b, err)
	}
	checkNoLeak(t, "JSON", string(b))
}

func TestG6SecretNeverLogs(t *testing.T) {
	h := newHolder()
	var out bytes.Buffer
	for _, enc := range []zapcore.Encoder{
		zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()),
		zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()),
	} {
		log := zap.New(zapcore.NewCore(enc, zapcore.AddSync(&out), zap.DebugLevel))
		log.Info("x", zap.Any("any", h.Secret), zap.Any("pointer", h.Pointer), zap.Any("list", h.List), zap.Reflect("reflect", h))
		log.Sugar().Infow("x", "s", h.Secret, "h", h)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", h.Secret, "h", h)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", h.Secret, "h", h)
	if out.Len() < 500 {
		t.Fatalf("little was logged: %s", &out)
	}
	checkNoLeak(t, "log", out.String())
}

func TestSecretReveals(t *testing.T) {
	s := NewSecret([]byte("hunter2"))
	if string(s.Reveal()) != "hunter2" || s.IsZero() {
		t.Errorf("reveals %q, zero %v", s.Reveal(), s.IsZero())
	}
	if !(Secret{}).IsZero() || !NewSecret(nil).IsZero() {
		t.Error("no secret is not zero")
	}
}
