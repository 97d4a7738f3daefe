package vcluster

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logs keeps what the daemons say, to be shown if the test fails. The
// environment variable ROLEKEY_VCLUSTER_LOG=debug shows more.
type logs struct {
	level zapcore.Level

	mu    sync.Mutex
	lines []string
	tap   func(line string) // nil: nobody listens
}

const maxLines = 40000

func newLogs() *logs {
	l := &logs{level: zapcore.InfoLevel}
	if os.Getenv("ROLEKEY_VCLUSTER_LOG") == "debug" {
		l.level = zapcore.DebugLevel
	}
	return l
}

func (l *logs) of(who string) *zap.Logger { return zap.New(&core{to: l, who: who}) }

func (l *logs) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == maxLines {
		l.lines = l.lines[maxLines/2:]
	}
	l.lines = append(l.lines, line)
	if l.tap != nil {
		l.tap(line)
	}
}

func (l *logs) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return "log:\n" + strings.Join(l.lines, "")
}

// core is a zapcore.Core that writes to logs.
type core struct {
	to     *logs
	who    string
	fields []zapcore.Field
}

// Enabled implements zapcore.Core.
func (c *core) Enabled(l zapcore.Level) bool { return l >= c.to.level }

// With implements zapcore.Core.
func (c *core) With(f []zapcore.Field) zapcore.Core {
	return &core{c.to, c.who, append(append([]zapcore.Field(nil), c.fields...), f...)}
}

// Check implements zapcore.Core.
func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.fields, fields...) {
		f.AddTo(enc)
	}
	c.to.add(fmt.Sprintf("%s %-5s %-14s %s: %s %v\n", time.Now().Format("15:04:05.000000"), e.Level, c.who, e.LoggerName, e.Message, enc.Fields))
	return nil
}

// Sync implements zapcore.Core.
func (*core) Sync() error { return nil }
