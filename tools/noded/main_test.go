package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/internal/paths"
	"rolekey/noded"
	"rolekey/rpc"
)

type result struct {
	code     int
	out, err string
}

func runWith(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, err bytes.Buffer
	code := run(t.Context(), args, streams{strings.NewReader(stdin), &out, &err})
	return result{code, out.String(), err.String()}
}

// startDaemon runs a noded without a cluster below a root of its own.
func startDaemon(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	d, err := noded.New(noded.Config{Paths: paths.Layout{Root: root}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- d.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-ready
	return root
}

func TestWithoutDaemon(t *testing.T) {
	root := t.TempDir()
	for _, args := range [][]string{{"status"}, {"leave", "--yes"}, {"join", "-"}, {"trust", someHash, "--yes"}} {
		r := runWith(t, "x", append(args, "--root", root)...)
		if r.code != exitFailed || !strings.Contains(r.err, "noded does not run on this machine") || !strings.Contains(r.err, "hint: start it") {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestWithoutCluster(t *testing.T) {
	root := startDaemon(t)
	if r := runWith(t, "", "status", "--root", root); r.code != exitNoCluster || !strings.Contains(r.out, "state:    none") || !strings.Contains(r.err, "hint:") {
		t.Errorf("status: %+v", r)
	}
	var s rpc.LocalStatusReply
	if r := runWith(t, "", "status", "--json", "--root", root); r.code != 0 || json.Unmarshal([]byte(r.out), &s) != nil || s.State != "none" {
		t.Errorf("status --json: %+v", r)
	}
	if r := runWith(t, "", "leave", "--root", root); r.code != exitDeclined {
		t.Errorf("leave: %+v", r)
	}
	if r := runWith(t, "", "leave", "--yes", "--root", root); r.code != exitNoCluster {
		t.Errorf("leave --yes: %+v", r)
	}
}

// No admission string reaches the terminal, and none is taken from arguments.
func TestTokens(t *testing.T) {
	root := startDaemon(t)
	const token = "rk1.c2VjcmV0c2VjcmV0c2VjcmV0"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"argument":   {[]string{"join", token}, "not taken from the command line"},
		"nothing":    {[]string{"join"}, "give either"},
		"both":       {[]string{"join", "-", "--token-file", file}, "give either"},
		"stdin":      {[]string{"join", "-"}, "checksum does not fit"},
		"file":       {[]string{"join", "--token-file", file}, "checksum does not fit"},
		"no file":    {[]string{"join", "--token-file", file + "x"}, "no such file"},
		"no address": {[]string{"join", "-", "--address", "node1"}, "want an IP address"},
	} {
		r := runWith(t, token, append(c.args, "--root", root)...)
		if r.code != exitFailed || !strings.Contains(r.err, c.want) {
			t.Errorf("%s: %+v, want %q", name, r, c.want)
		}
		if strings.Contains(r.out+r.err, token[4:]) {
			t.Errorf("%s repeats the string: %+v", name, r)
		}
	}
}

func TestCheckConfig(t *testing.T) {
	at := paths.Layout{Root: t.TempDir()}
	if r := runWith(t, "", "--check-config", "--root", at.Root); r.code != 0 {
		t.Errorf("no file: %+v", r)
	}
	if err := os.MkdirAll(at.ConfigDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at.NodedConfig(), []byte("\nadress = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--check-config"}, {}} {
		r := runWith(t, "", append(args, "--root", at.Root)...)
		if r.code != exitFailed || !strings.Contains(r.err, at.NodedConfig()+`:2: unknown key "adress"`) {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"join", "--help"}, {"leave", "--help"}, {"trust", "--help"}, {"status", "--help"}} {
		if r := runWith(t, "", args...); r.code != 0 || !strings.Contains(r.out, "Usage:") || r.err != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if r := runWith(t, "", "--version"); r.code != 0 || !strings.HasPrefix(r.out, "noded ") {
		t.Errorf("version: %+v", r)
	}
	if r := runWith(t, "", "jion"); r.code != exitFailed || r.err == "" {
		t.Errorf("unknown command: %+v", r)
	}
}

func TestPrintStatus(t *testing.T) {
	var b bytes.Buffer
	printStatus(&b, rpc.LocalStatusReply{State: "member", Name: "a.example", Role: "regular", Master: "m.example", Version: cluster.Version{Epoch: 1, Version: 7}, Problem: "p"})
	for _, want := range []string{"member", "a.example", "regular", "m.example", "1.7, stale", "problem:  p"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
}
