package gossip

import (
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"
)

// maxLine bounds a line of memberlist's log, which may quote what peers sent.
const maxLine = 300

// logWriter turns the lines of memberlist's log into entries, and leaves out
// what would flood ours: every packet that does not decrypt is a line.
type logWriter struct {
	g     *Gossip
	limit *rate.Limiter
}

func newLogWriter(g *Gossip) *logWriter {
	return &logWriter{g: g, limit: rate.NewLimiter(linesPerSec, linesAtOnce)}
}

// logLevels are memberlist's. Its errors are about what peers sent or failed
// to answer, so none is an error of this daemon.
var logLevels = map[string]zapcore.Level{
	"DEBUG": zapcore.DebugLevel, "INFO": zapcore.InfoLevel, "WARN": zapcore.WarnLevel,
	"ERR": zapcore.WarnLevel, "ERROR": zapcore.WarnLevel,
}

// Write implements io.Writer; each call is one line.
func (w *logWriter) Write(p []byte) (int, error) {
	level, text := splitLine(string(p))
	entry := w.g.log.Check(level, text)
	if entry == nil {
		return len(p), nil
	}
	if !w.limit.Allow() {
		w.g.count.lines.Add(1)
		return len(p), nil
	}
	entry.Write(zap.String("from", "memberlist"))
	return len(p), nil
}

// splitLine takes "[WARN] memberlist: text" apart.
func splitLine(line string) (zapcore.Level, string) {
	line = strings.TrimSpace(line)
	level := zapcore.InfoLevel
	if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "["), "]"); ok && strings.HasPrefix(line, "[") {
		if l, known := logLevels[name]; known {
			level, line = l, strings.TrimSpace(rest)
		}
	}
	line = strings.TrimPrefix(line, "memberlist: ")
	if len(line) > maxLine {
		line = strings.ToValidUTF8(line[:maxLine], "") + "…"
	}
	return level, line
}

// reportSuspicious logs once in a while what is only counted otherwise.
func (g *Gossip) reportSuspicious() {
	s := g.Stats()
	if s.suspicious() == g.told.Swap(s.suspicious()) {
		return
	}
	g.log.Warn("gossip received what an honest peer does not send",
		zap.Uint64("unproven", s.Unproven), zap.Uint64("malformed", s.Malformed), zap.Uint64("forked", s.Forked),
		zap.Uint64("too_large", s.TooLarge), zap.Uint64("strangers", s.Strangers),
		zap.Uint64("streams", s.Streams), zap.Uint64("packets", s.Packets))
}
