package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rolekey/cluster"
	"rolekey/internal/sdnotify"
)

// limit bounds every wait for an event that must come.
const limit = 60 * time.Second

// programEnv names the stand-in that this test binary plays.
const programEnv = "LAB_TEST_PROGRAM"

func TestMain(m *testing.M) {
	Main(map[string]Helper{"echo-server": echoServer, "echo-client": echoClient})
	if name := os.Getenv(programEnv); name != "" {
		os.Exit(standIn(name, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// standIn plays the programs of Rolekey, just enough to be brought up.
func standIn(name string, args []string) int {
	args = append(args, "") // a daemon of a machine has none
	switch {
	case name == "caller":
		return callUp(args[0], args[1])
	case name == "netns-caller":
		_, err := Up(context.Background(), Config{Nodes: 1, Isolation: IsolationNetns})
		fmt.Println(err, errors.Is(err, ErrNeedsRoot))
		return 0
	case name == "noded" && args[0] == "join":
		token, _ := io.ReadAll(os.Stdin)
		return fakeJoin(strings.TrimSpace(string(token)))
	case name == "noded" || name == "masterd":
		return fakeDaemon(name)
	case name == "gnt-cluster" && args[0] == "init":
		return fakeJoin("node1.example")
	case name == "gnt-cluster" && args[0] == "map":
		return fakeMap()
	case name == "gnt-node" && args[0] == "add":
		fmt.Println(args[1])
		return 0
	}
	fmt.Fprintln(os.Stderr, "stand-in: unknown command", name, args)
	return 1
}

// fakeDaemon is ready at once and ends on SIGTERM.
func fakeDaemon(name string) int {
	root := os.Getenv("ROLEKEY_ROOT")
	if _, err := os.Stat(filepath.Join(root, "broken-"+name)); err == nil || os.Getenv("LAB_TEST_BREAK") == name {
		fmt.Println("the stand-in is broken")
		return 3
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println("args", os.Args[1:])
	if err := sdnotify.Ready(); err != nil {
		fmt.Println(err)
		return 1
	}
	<-term
	return 0
}

// members is the stand-in for replicated state: a file next to the trees.
func members() string { return filepath.Join(filepath.Dir(os.Getenv("ROLEKEY_ROOT")), "members") }

func fakeJoin(name string) int {
	if name == "" || !strings.HasPrefix(name, filepath.Base(os.Getenv("ROLEKEY_ROOT"))+".") {
		fmt.Fprintf(os.Stderr, "token of %q spent on %s\n", name, os.Getenv("ROLEKEY_ROOT"))
		return 12
	}
	f, err := os.OpenFile(members(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return 1
	}
	defer f.Close()
	fmt.Fprintln(f, name)
	return 0
}

func fakeMap() int {
	b, err := os.ReadFile(members())
	if err != nil {
		return 5
	}
	out := map[string]any{}
	var nodes []any
	for _, name := range strings.Fields(string(b)) {
		uuid := cluster.NewUUID()
		nodes = append(nodes, map[string]any{"uuid": uuid, "name": name, "version": "0.4", "hash": "ab", "fresh": true})
	}
	out["nodes"], out["candidates"] = nodes, nodes
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return 1
	}
	return 0
}

// callUp brings a cluster up and waits to be killed.
func callUp(dir, bin string) int {
	c, err := Up(context.Background(), Config{Nodes: 1, Dir: dir, Bin: bin, Bare: true})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("up", c.Dir())
	select {}
}

// echoServer answers every line on every connection to its address.
func echoServer(args []string) int {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("listening")
	for {
		conn, err := l.Accept()
		if err != nil {
			return 1
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// echoClient connects from args[0] to args[1] within args[2], and then says for
// every line on its input whether it came back. It waits long, except for the
// line "lost", which is not meant to.
func echoClient(args []string) int {
	wait, _ := time.ParseDuration(args[2])
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(args[0])}, Timeout: wait}
	conn, err := d.Dial("tcp", args[1])
	if err != nil {
		fmt.Println("no connection:", err)
		return 1
	}
	fmt.Println("connected")
	back := bufio.NewScanner(conn)
	lines := make(chan string, 100)
	go func() {
		for back.Scan() {
			lines <- back.Text()
		}
		close(lines)
	}()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Fprintln(conn, in.Text())
		patience := limit
		if in.Text() == "lost" {
			patience = 700 * time.Millisecond
		}
		select {
		case got := <-lines:
			fmt.Println("back", got)
		case <-time.After(patience):
			fmt.Println("silence")
		}
	}
	return 0
}

// fakeBin makes a folder with the stand-ins.
func fakeBin(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"noded", "masterd", "gnt-cluster", "gnt-node"} {
		script := fmt.Sprintf("#!/bin/sh\nexec env %s=%s %s \"$@\"\n", programEnv, name, shellQuote(exe))
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// testContext ends before the test binary's own limit, and never in practice.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	t.Cleanup(cancel)
	return ctx
}

// up brings up a cluster of stand-ins that ends with the test.
func up(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	if cfg.Bin == "" {
		cfg.Bin = fakeBin(t)
	}
	if cfg.Progress == nil {
		cfg.Progress = t.Output()
	}
	c, err := Up(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(context.Background()); err != nil {
			t.Errorf("Down: %v", err)
		}
	})
	return c
}

// needNamespaces skips a test where the kernel gives none.
func needNamespaces(t *testing.T, c *Cluster) {
	t.Helper()
	st, err := c.State(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if !st.Namespaces {
		t.Skipf("no namespaces: %s", st.Reason)
	}
}

// eventually waits for a condition that must come true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
