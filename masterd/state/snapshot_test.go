package state_test

import (
	"bytes"
	"encoding/base64"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/cluster"
	"rolekey/masterd/state"
	"rolekey/masterd/state/statetest"
)

var update = flag.Bool("update", false, "write the vectors in testdata anew")

// TestVectors applies a recorded log and compares the snapshot: what an older
// release wrote must mean the same for ever.
func TestVectors(t *testing.T) {
	logFile, snapFile := filepath.Join("testdata", "log.v1"), filepath.Join("testdata", "snapshot.v1")
	if *update {
		l := history(t)
		var text strings.Builder
		for _, b := range l.Log {
			text.WriteString(base64.StdEncoding.EncodeToString(b) + "\n")
		}
		write(t, logFile, []byte(text.String()))
		write(t, snapFile, snapshot(t, l.S))
	}
	text, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	l := &statetest.Lab{TB: t, S: state.New(), Term: 1}
	for line := range strings.Lines(string(text)) {
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		l.Apply(b)
	}
	want, err := os.ReadFile(snapFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, snapshot(t, l.S)) || len(l.Log) < 10 {
		t.Fatalf("%d recorded commands lead to another state than recorded", len(l.Log))
	}
	if s, err := state.DecodeSnapshot(want); err != nil || s.Head().Version != l.S.Head().Version {
		t.Fatalf("the recorded snapshot: %v", err)
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestG3SnapshotMustYieldItsHead: a snapshot whose intent and map disagree is
// not loaded, and the error does not quote it.
func TestG3SnapshotMustYieldItsHead(t *testing.T) {
	good := snapshot(t, history(t).S)
	for name, b := range map[string][]byte{
		"empty":           {},
		"format":          append([]byte{2}, good[1:]...),
		"state format":    bytes.Replace(good, []byte(`"format":1`), []byte(`"format":9`), 1),
		"truncated":       good[:len(good)-1],
		"trailing":        append(bytes.Clone(good), ' '),
		"unknown member":  bytes.Replace(good, []byte(`"format":1`), []byte(`"format":1,"x":1`), 1),
		"twice":           bytes.Replace(good, []byte(`"format":1`), []byte(`"format":1,"format":1`), 1),
		"other case":      bytes.Replace(good, []byte(`"format":1`), []byte(`"Format":1`), 1),
		"flag turned":     bytes.Replace(good, []byte(`"vm_capable":true`), []byte(`"vm_capable":false`), 1),
		"lease":           bytes.Replace(good, []byte(`"lease_seconds":120`), []byte(`"lease_seconds":121`), 1),
		"candidate added": bytes.Replace(good, []byte(`"voter":true`), []byte(`"voter":false`), 1),
		"other hash":      bytes.Replace(good, []byte(`"hash":"`), []byte(`"hash":"0`), 1),
		"version":         bytes.Replace(good, []byte(`"version":{"epoch":1,"version":1}`), []byte(`"version":{"epoch":1,"version":9}`), 1),
		"job misfiled":    bytes.Replace(good, []byte(`"jobs":{"1":`), []byte(`"jobs":{"2":`), 1),
		"job counter":     bytes.Replace(good, []byte(`"next_job":2`), []byte(`"next_job":1`), 1),
		"no nodes":        bytes.Replace(good, []byte(`"removed":[`), []byte(`"removed":[],"removed":[`), 1),
		"secret misplaced": bytes.Replace(good, []byte(`"feature_level":1`),
			[]byte(`"feature_level":"`+string(statetest.CAKey)+`"`), 1),
	} {
		if bytes.Equal(b, good) {
			t.Fatalf("%s: the test changes nothing", name)
		}
		s, err := state.DecodeSnapshot(b)
		if err == nil || s != nil {
			t.Errorf("%s: was accepted", name)
			continue
		}
		if strings.Contains(err.Error(), string(statetest.CAKey)) {
			t.Errorf("%s: the error quotes a secret: %v", name, err)
		}
	}
}

func TestEmptyStateSurvives(t *testing.T) {
	s, err := state.DecodeSnapshot(snapshot(t, state.New()))
	if err != nil || s.Founded() || s.Nodes == nil {
		t.Fatalf("%v, %v", s, err)
	}
	withKey := bytes.Replace(snapshot(t, state.New()), []byte(`"ca_key":null`), []byte(`"ca_key":"AAAA"`), 1)
	if _, err := state.DecodeSnapshot(withKey); cluster.CodeOf(err) != cluster.CodeBadFormat {
		t.Fatalf("keys without a cluster: %v", err)
	}
}
