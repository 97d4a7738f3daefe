package ssconf

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rolekey/candmap"
	ct "rolekey/candmap/candmaptest"
	"rolekey/cluster"
)

var update = flag.Bool("update", false, "write the golden files")

// scene is four nodes, two of them candidates, one of these with two digests.
func scene(t *testing.T, settings *candmap.Settings) *candmap.View {
	t.Helper()
	m := ct.Map(2, 1)
	m.Candidates[1].Client = append(m.Candidates[1].Client, ct.Pin("next client", 2))
	nodes := []candmap.RosterNode{ct.RosterNode(10), ct.RosterNode(4), ct.RosterNode(2), ct.RosterNode(1)}
	nodes[0].Flags.Offline = true
	nodes[1].Flags.VMCapable = false
	nodes[1].Ports.SSH = 2222
	nodes[2].Addresses = append(nodes[2].Addresses, netip.MustParseAddr("2001:db8::2"))
	r, err := candmap.NewRoster(nodes, settings)
	if err != nil {
		t.Fatal(err)
	}
	return &candmap.View{Map: &candmap.Verified{Map: m}, Roster: r}
}

var (
	address4 = cluster.MasterAddress{Address: netip.MustParsePrefix("192.0.2.9/24"), Netdev: "eth0"}
	address6 = cluster.MasterAddress{Address: netip.MustParsePrefix("2001:db8::9/64"), Netdev: "br-lan"}
)

// TestGolden pins every format.
func TestGolden(t *testing.T) {
	noMaster := scene(t, &candmap.Settings{Name: "lab.test", Address: &address6})
	noMaster.Map.Master = cluster.NodeID{}
	for name, v := range map[string]*candmap.View{
		"full":      scene(t, &candmap.Settings{Name: "lab.test", Address: &address4}),
		"no-master": noMaster,
		"level1":    scene(t, nil),
		"no-roster": {Map: scene(t, nil).Map},
	} {
		var b strings.Builder
		texts := Render(v, "1.2.3")
		for _, file := range Names {
			if text, ok := texts[file]; ok {
				fmt.Fprintf(&b, "== ssconf_%s\n%s", file, text)
			} else {
				fmt.Fprintf(&b, "== ssconf_%s (absent)\n", file)
			}
		}
		golden := filepath.Join("testdata", name+".txt")
		if *update {
			if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if b.String() != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, b.String(), want)
		}
		for file := range texts {
			if !strings.Contains(b.String(), "== ssconf_"+file+"\n") {
				t.Errorf("%s: %s is rendered and not in Names", name, file)
			}
		}
	}
}

func testDir(t *testing.T) (Dir, string) {
	at := t.TempDir()
	return Dir{Path: func(name string) string { return filepath.Join(at, "ssconf_"+name) }}, at
}

func ls(t *testing.T, at string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(at)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteOnlyWhatDiffers(t *testing.T) {
	d, at := testDir(t)
	texts := Render(scene(t, &candmap.Settings{Name: "lab.test", Address: &address4}), "1")
	must := func() {
		t.Helper()
		if err := d.Write(texts); err != nil {
			t.Fatal(err)
		}
	}
	must()
	before := map[string]os.FileInfo{}
	for _, name := range ls(t, at) {
		info, err := os.Lstat(filepath.Join(at, name))
		if err != nil {
			t.Fatal(err)
		}
		if before[name] = info; info.Mode() != 0o444 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if len(before) != len(Names) {
		t.Errorf("%d files, want %d", len(before), len(Names))
	}
	// Others change the content, the mode, or what the name stands for.
	changed := map[string]bool{"ssconf_" + MasterNode: true, "ssconf_" + NodeList: true, "ssconf_" + SSHPorts: true, "ssconf_" + OnlineNodes: true}
	texts[MasterNode] = "node9.example.com\n"
	for _, step := range []error{
		os.Remove(d.Path(OnlineNodes)), os.Symlink(d.Path(NodeVMCapable), d.Path(OnlineNodes)),
		os.Remove(d.Path(NodeList)), os.WriteFile(d.Path(NodeList), []byte("x"), 0o444),
		os.Chmod(d.Path(SSHPorts), 0o644),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	must()
	for name, was := range before {
		info, err := os.Lstat(filepath.Join(at, name))
		if err != nil || info.Mode() != 0o444 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
		if same := os.SameFile(was, info); same == changed[name] {
			t.Errorf("%s: left alone: %v", name, same)
		}
		text, err := os.ReadFile(filepath.Join(at, name))
		if want := texts[strings.TrimPrefix(name, "ssconf_")]; err != nil || string(text) != want {
			t.Errorf("%s: %q, want %q", name, text, want)
		}
	}
}

// A fact that is gone, or too long for Ganeti's readers, leaves no old file.
func TestNoFileIsBetterThanAWrongOne(t *testing.T) {
	d, at := testDir(t)
	texts := map[string]string{NodeList: "a\n", OnlineNodes: strings.Repeat("x", MaxFile), MasterNode: ""}
	if err := d.Write(texts); err != nil {
		t.Fatal(err)
	}
	if got := ls(t, at); len(got) != 3 {
		t.Fatalf("files %v", got)
	}
	texts[OnlineNodes] += "x"
	delete(texts, NodeList)
	err := d.Write(texts)
	if err == nil || !strings.Contains(err.Error(), "ssconf_online_nodes") || !strings.Contains(err.Error(), "131072") {
		t.Errorf("too long: %v", err)
	}
	if got := ls(t, at); len(got) != 1 || got[0] != "ssconf_"+MasterNode {
		t.Errorf("files %v", got)
	}
}

// One file that cannot be written keeps no other from being written.
func TestOneFailureStopsNothing(t *testing.T) {
	d, _ := testDir(t)
	if err := os.MkdirAll(filepath.Join(d.Path(ClusterName), "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(map[string]string{ClusterName: "c\n", ReleaseVersion: "1\n"}); err == nil {
		t.Error("no error")
	}
	if text, err := os.ReadFile(d.Path(ReleaseVersion)); err != nil || string(text) != "1\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestRemove(t *testing.T) {
	d, at := testDir(t)
	if err := d.Write(Render(scene(t, nil), "1")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".ssconf_node_list.rolekey-tmp", "ssconf_mine"} {
		if err := os.WriteFile(filepath.Join(at, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := d.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if got := ls(t, at); len(got) != 1 || got[0] != "ssconf_mine" {
		t.Errorf("left: %v", got)
	}
}
