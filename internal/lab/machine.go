package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// machineSpaces are the namespaces that make a node a machine of its own.
const machineSpaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// machine is what isolation netns gives a node: namespaces of its own, which
// live as long as the first process in them (pid_namespaces(7)). The kernel
// ends that one with the holder, with it all others, and with the last of them
// the mounts and devices.
type machine struct {
	init  *process
	stdin *os.File    // its end ends init, too
	said  *os.File    // init's report
	forks chan func() // run on a thread inside
}

// bootMachines gives every node its namespaces, side by side.
func (h *holder) bootMachines() error {
	var wires strings.Builder
	for i, n := range h.nodes {
		m, err := h.startInit(n)
		if err != nil {
			return err
		}
		n.machine = m
		h.state.Nodes[i].Init, n.Init = m.init.pid, m.init.pid
		fmt.Fprintf(&wires, "link add veth%d type veth peer name eth0 netns %d\nlink set veth%d master %s up\n", i+1, m.init.pid, i+1, bridgeDevice)
	}
	if err := ipBatch(h.spawn, h.ip, nil, wires.String()); err != nil {
		return kindf(kindNoNamespaces, "connect the nodes: %v", err)
	}
	for _, n := range h.nodes {
		if err := json.NewEncoder(n.machine.stdin).Encode(h.machineSpec(n)); err != nil {
			return fmt.Errorf("set up %s: %w", n.Name, err)
		}
	}
	for _, n := range h.nodes {
		if err := n.machine.settle(n.Name); err != nil {
			return err
		}
	}
	return nil
}

func (h *holder) machineSpec(n *node) machineSpec {
	return machineSpec{
		Node: n.Node, Nodes: h.state.Nodes, Dir: h.spec.Dir, Bin: h.spec.Bin, IP: h.ip,
		Tools: h.tools, Accounts: *h.accounts, PAM: h.pam,
	}
}

// startInit starts the first process of a node, which waits for its spec.
func (h *holder) startInit(n *node) (*machine, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	stdin, ours, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer stdin.Close()
	said, report, err := os.Pipe()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer report.Close()
	p, err := h.spawn.start(command{
		path: exe, argv: []string{"devcluster-init", n.Name}, env: append(os.Environ(), initEnv+"=1"), dir: "/",
		files: []*os.File{stdin, os.Stdout, os.Stderr, report}, spaces: machineSpaces,
	})
	if err != nil {
		ours.Close()
		said.Close()
		if refusedByKernel(err) {
			err = kindf(kindNoNamespaces, "create namespaces of %s: %v", n.Name, err)
		}
		return nil, err
	}
	return &machine{init: p, stdin: ours, said: said, forks: make(chan func())}, nil
}

// settle waits for init's report, and puts a thread into its namespaces.
func (m *machine) settle(name string) error {
	defer m.said.Close()
	var r reply
	if err := json.NewDecoder(m.said).Decode(&r); err != nil {
		return fmt.Errorf("set up %s: no report: %w", name, err)
	}
	if r.Error != nil {
		r.Error.Text = "set up " + name + ": " + r.Error.Text
		return r.Error
	}
	entered := make(chan error)
	go m.forkLoop(entered)
	if err := <-entered; err != nil {
		return fmt.Errorf("enter namespaces of %s: %w", name, err)
	}
	return nil
}

// forkLoop forks inside the namespaces, on a thread that ends with the holder.
func (m *machine) forkLoop(entered chan<- error) {
	runtime.LockOSThread()
	err := m.enter()
	entered <- err
	if err != nil {
		return // and the thread ends with this goroutine
	}
	for fork := range m.forks {
		fork()
	}
}

// enter moves the calling thread; its children get the process ids.
func (m *machine) enter() error {
	fd, err := unix.PidfdOpen(m.init.pid, 0)
	if err != nil {
		return fmt.Errorf("open process: %w", err)
	}
	defer unix.Close(fd)
	// A thread that shares its working directory cannot change mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return os.NewSyscallError("setns", unix.Setns(fd, machineSpaces))
}

// orphans lists the processes of a node that have lost their parents: SSH
// sessions whose sshd was killed, and what left its parent on purpose.
func (m *machine) orphans() []procID {
	if m == nil || m.init.ended() {
		return nil
	}
	return descendants(m.init.pid)
}

// lookUp finds the program of c, on the thread that will execute it.
func lookUp(c *command) (err error) {
	if c.in != nil {
		if st, err := os.Stat(c.dir); err != nil || !st.IsDir() {
			c.dir = "/root" // the caller's folder is not there
		}
	}
	c.path, err = lookPath(c.argv[0], c.dir, c.env)
	return err
}

// machineEnv makes env that of root's shell on a node that is a machine.
func machineEnv(env []string) []string {
	path := defaultPath
	if p := getenv(env, "PATH"); p != "" {
		path += ":" + p
	}
	return append(without(env, "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR", "ROLEKEY_DEVCLUSTER"),
		"PATH="+path, "HOME=/root", "USER=root", "LOGNAME=root")
}

// machineCommand starts a daemon as an installation does: at the real paths,
// and masterd without root.
func (h *holder) machineCommand(n *node, name string) command {
	c := command{in: n.machine, env: machineEnv(os.Environ()), dir: "/"}
	switch name {
	case SSHD:
		c.path = systemSSHD
		c.argv = []string{c.path, "-D", "-e"} // in the foreground; stderr is the log
	case Masterd:
		c.cred = &syscall.Credential{Uid: uint32(h.accounts.UID), Gid: uint32(h.accounts.GID)}
		fallthrough
	default:
		c.path = filepath.Join("/usr/sbin", name)
		c.argv = []string{c.path}
	}
	return c
}

// refusedByKernel reports an error by which kernels refuse what isolation needs.
func refusedByKernel(err error) bool {
	for _, e := range []error{syscall.EPERM, syscall.ENOSYS, syscall.ENOSPC, syscall.EUSERS, syscall.ENODEV, syscall.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
