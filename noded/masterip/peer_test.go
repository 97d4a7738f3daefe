package masterip

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rolekey/cluster"
)

// roleVar makes this test program another one: a namespace, or a holder in it.
const roleVar = "MASTERIP_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "":
		os.Exit(m.Run())
	case "namespace":
		answer(namespaceCommand)
	case "holder":
		enter(os.Args[1])
	case "holder inside":
		answer(newHolderProgram(os.Args[2:]).command)
	}
}

// peer is another process of this program, which answers a line with a line.
type peer struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	ended sync.Once
}

func newPeer(t *testing.T, role string, args ...string) *peer {
	t.Helper()
	p := &peer{t: t, cmd: exec.Command(os.Args[0], args...)}
	p.cmd.Env = append(os.Environ(), roleVar+"="+role)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if role == "namespace" {
		p.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	runtime.LockOSThread() // Pdeathsig is about the thread that starts it
	if err := p.cmd.Start(); err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	t.Cleanup(p.kill)
	p.must("hello")
	return p
}

func (p *peer) pid() int { return p.cmd.Process.Pid }

// kill is kill -9, and waits.
func (p *peer) kill() {
	p.ended.Do(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
}

// must has the peer do a command, and returns its answer.
func (p *peer) must(command ...string) string {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, strings.Join(command, " ")); err != nil {
		p.t.Fatalf("%v: %v", command, err)
	}
	if !p.out.Scan() {
		p.t.Fatalf("%v: the process has ended: %v", command, p.out.Err())
	}
	text, ok := strings.CutPrefix(p.out.Text(), "ok ")
	if !ok {
		p.t.Fatalf("%v: %s", command, p.out.Text())
	}
	return text
}

// answer is the other end of must.
func answer(do func(args []string) (string, error)) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var out string
		var err error
		if args := strings.Fields(in.Text()); args[0] != "hello" {
			out, err = do(args)
		}
		if err != nil {
			fmt.Printf("error %v\n", err)
			continue
		}
		fmt.Printf("ok %s\n", out)
	}
}

// enter starts this program again in the namespace of another process: execve
// goes on in the namespace of the thread that calls it.
func enter(pid string) {
	runtime.LockOSThread()
	fd, err := unix.Open("/proc/"+pid+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Setns(fd, unix.CLONE_NEWNET)
	}
	if err == nil {
		err = os.Setenv(roleVar, "holder inside")
	}
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	fmt.Println("error", err)
}

// holderProgram is what noded is to a Holder.
type holderProgram struct {
	h    *Holder
	mu   sync.Mutex
	want Want
	end  time.Time
}

// newHolderProgram runs a holder: file, address, device.
func newHolderProgram(args []string) *holderProgram {
	p := &holderProgram{want: Want{Address: &cluster.MasterAddress{Address: netip.MustParsePrefix(args[1]), Netdev: args[2]}}}
	var err error
	if p.h, err = New(Config{File: args[0], Look: p.look}); err != nil {
		panic(err)
	}
	go p.h.Run(context.Background())
	return p
}

func (p *holderProgram) look() Want {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.want
	w.Left = max(0, time.Until(p.end))
	return w
}

func (p *holderProgram) command(args []string) (string, error) {
	switch args[0] {
	case "news":
		lease, err := time.ParseDuration(args[2])
		p.mu.Lock()
		p.want.Master, p.want.Heard, p.end = args[1] == "yes", true, time.Now().Add(lease)
		p.mu.Unlock()
		p.h.Poke()
		return "", err
	case "status":
		s := p.h.Status()
		return strings.TrimSpace(fmt.Sprintf("held %v %s", s.Held, s.Problem)), nil
	}
	return "", fmt.Errorf("unknown command %q", args)
}

func namespaceCommand(args []string) (string, error) {
	switch args[0] {
	case "bridge":
		return "", netlink.LinkAdd(&netlink.Bridge{LinkAttrs: named("br0")})
	case "link":
		return "", plug(args[1], args[2])
	case "up":
		return "", bringUp(args[1], args[2:])
	case "mac":
		l, err := net.InterfaceByName(args[1])
		if err != nil {
			return "", err
		}
		return l.HardwareAddr.String(), nil
	case "where":
		return where(netip.MustParseAddr(args[1]))
	case "neighbour":
		return cached(net.ParseIP(args[1]))
	case "serve":
		return "", serve(args[1])
	case "ask":
		return ask(args[1])
	case "source":
		c, err := net.Dial("udp", net.JoinHostPort(args[1], "7"))
		if err != nil {
			return "", err
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).IP.String(), nil
	}
	return "", fmt.Errorf("unknown command %q", args)
}

func named(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// plug makes a cable from the bridge to eth0 of another namespace.
func plug(port, pid string) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: named(port), PeerName: "eth0", PeerNamespace: netlink.NsPid(n)}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	bridge, err := netlink.LinkByName("br0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(veth, bridge); err != nil {
		return err
	}
	return netlink.LinkSetUp(veth)
}

func bringUp(dev string, prefixes []string) error {
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	for _, p := range prefixes {
		a := addr(netip.MustParsePrefix(p))
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// where returns the prefix with which an address stands here; "" if it does not.
func where(a netip.Addr) (string, error) {
	places, err := System.Places()
	var found []string
	for _, p := range places {
		if p.Prefix.Addr() == a {
			found = append(found, p.Prefix.String())
		}
	}
	return strings.Join(found, ","), err
}

// cached returns what the ARP or neighbour cache says of an address.
func cached(ip net.IP) (string, error) {
	l, err := netlink.LinkByName("br0")
	if err != nil {
		return "", err
	}
	list, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_ALL)
	for _, n := range list {
		if n.IP.Equal(ip) {
			return n.HardwareAddr.String(), err
		}
	}
	return "", err
}

// serve says its name to whoever connects, at whatever address.
func serve(name string) error {
	l, err := net.Listen("tcp", ":7")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, name)
			c.Close()
		}
	}()
	return nil
}

// ask returns who answers at an address; "" if nobody does.
func ask(ip string) (string, error) {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(ip, "7"), time.Second)
	if err != nil {
		return "", nil
	}
	defer c.Close()
	text, _ := io.ReadAll(io.LimitReader(c, 100))
	return string(text), nil
}
