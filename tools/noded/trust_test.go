package main

import (
	"bytes"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/rpc"
)

const someHash = "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"

func TestTrust(t *testing.T) {
	root := startDaemon(t)
	for name, c := range map[string]struct {
		stdin string
		args  []string
		code  int
		want  string
	}{
		"in no cluster": {"", []string{someHash, "--yes"}, exitNoCluster, "in no cluster"},
		"confirmed":     {"y\n", []string{someHash}, exitNoCluster, "show this hash?"},
		"declined":      {"n\n", []string{someHash}, exitDeclined, "show this hash?"},
		"no answer":     {"", []string{someHash}, exitDeclined, "give --yes"},
		"other answer":  {"yonder\n", []string{someHash}, exitDeclined, "give --yes"},
		"short hash":    {"", []string{someHash[:12], "--yes"}, exitFailed, "digest"},
		"no hash":       {"", []string{"--yes"}, exitFailed, "accepts 1 arg"},
	} {
		r := runWith(t, c.stdin, append(append([]string{"trust"}, c.args...), "--root", root)...)
		if r.code != c.code || !strings.Contains(r.err, c.want) || r.out != "" {
			t.Errorf("%s: %+v, want %d and %q", name, r, c.code, c.want)
		}
	}
}

func TestPrintTrust(t *testing.T) {
	at := func(v uint64) cluster.Version { return cluster.Version{Epoch: 1, Version: v} }
	for want, r := range map[string]rpc.TrustReply{
		"map 1.9 is in force, given by a.example; before it was 1.3\n":     {Version: at(9), Previous: at(3), From: "a.example", Fresh: true, Durable: true},
		"map 1.9 is in force, given by a.example; none was before\n":       {Version: at(9), From: "a.example", Fresh: true, Durable: true},
		"this node holds map 1.9 already\nit becomes fresh with":           {Version: at(9), Previous: at(9), Durable: true},
		"this node holds map 1.9 already\nproblem: apply: the disk is red": {Version: at(9), Previous: at(9), Fresh: true, Durable: true, Problems: []string{"apply: the disk is red"}},
	} {
		var b bytes.Buffer
		if err := printTrust(&b, r); err != nil || !strings.HasPrefix(b.String(), want) {
			t.Errorf("%+v: %q, %v", r, b.String(), err)
		}
	}
	if err := printTrust(new(bytes.Buffer), rpc.TrustReply{}); err == nil || cluster.HintOf(err) == "" {
		t.Errorf("a map that is not on disk: %v", err)
	}
}
