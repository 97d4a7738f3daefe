package masterd

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"
)

func TestLoadConfig(t *testing.T) {
	at := layout(t)
	if err := os.MkdirAll(filepath.Dir(at.MasterdConfig()), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(at)
	if err != nil || cfg.Paths != at || cfg.LogLevel != zapcore.InfoLevel || len(cfg.Addresses) > 0 {
		t.Errorf("without a file: %+v, %v", cfg, err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(at.MasterdConfig(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("addresses = [\"10.77.0.1\", \"fd00::1\"]\nlog_level = \"debug\"\n")
	cfg, err = LoadConfig(at)
	want := []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd00::1")}
	if err != nil || !slices.Equal(cfg.Addresses, want) || cfg.LogLevel != zapcore.DebugLevel {
		t.Errorf("%+v, %v", cfg, err)
	}
	if cfg.bindAddress() != want[0] || !slices.Equal(cfg.listenAddresses(), want) {
		t.Errorf("it would call from %s and listen on %v", cfg.bindAddress(), cfg.listenAddresses())
	}
	if got := cfg.MetricsAddress.String(); got != "127.0.0.1:1815" {
		t.Errorf("monitoring at %s", got)
	}
	write("addresses = [\"127.77.0.2\"]\nmetrics_address = \"\"\n")
	if cfg, err = LoadConfig(at); err != nil || cfg.MetricsAddress.IsValid() {
		t.Errorf("monitoring at %s, %v; it is switched off", cfg.MetricsAddress, err)
	}
	for text, word := range map[string]string{
		"metrics_address = \"1815\"":  "metrics_address",
		"adresses = []":               "adresses",
		"[rpc]\nport = 1":             "rpc",
		"addresses = [\"node1\"]":     "node1",
		"addresses = [\"0.0.0.0\"]":   "addresses",
		"addresses = [\"224.0.0.1\"]": "addresses",
		"log_level = \"loud\"":        "log_level",
		"log_level = 7":               "log_level",
		"log_level":                   at.MasterdConfig(),
	} {
		write(text)
		if _, err := LoadConfig(at); err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), at.MasterdConfig()) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestDefaultsListenEverywhere(t *testing.T) {
	var cfg Config
	if a := cfg.bindAddress(); a.IsValid() {
		t.Errorf("it would call from %s; the system should choose", a)
	}
	if got := cfg.listenAddresses(); !slices.Equal(got, []netip.Addr{netip.IPv6Unspecified()}) {
		t.Errorf("it would listen on %v", got)
	}
}
