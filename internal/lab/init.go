package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// machineSpec is what the holder tells the first process of a node, on its
// standard input; the end of that input is the end of the node.
type machineSpec struct {
	Node     Node      `json:"node"`
	Nodes    []Node    `json:"nodes"`
	Dir      string    `json:"dir"`
	Bin      string    `json:"bin"`
	IP       string    `json:"ip"` // ip(8)
	Tools    *sshTools `json:"tools"`
	Accounts accounts  `json:"accounts"`
	PAM      string    `json:"pam"` // sshd's, for a machine that has none; empty: nothing to do
}

// initMain is the whole life of a node's first process: it makes the machine
// and reaps orphans. It returns the exit code.
func initMain() int {
	syscall.CloseOnExec(3)
	report := os.NewFile(3, "report")
	var s machineSpec
	if err := json.NewDecoder(os.Stdin).Decode(&s); err != nil {
		return 1 // the holder has gone
	}
	if err := s.setUp(); err != nil {
		e := toWire(err)
		if refusedByKernel(err) {
			e.Kind = kindNoNamespaces
		}
		_ = json.NewEncoder(report).Encode(reply{Error: e}) // nobody else to tell
		return 1
	}
	go reapOrphans()
	if err := json.NewEncoder(report).Encode(reply{}); err != nil {
		return 1
	}
	report.Close()
	_, _ = io.Copy(io.Discard, os.Stdin) // any end is the end
	return 0
}

func reapOrphans() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for range ended {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if (err != nil && !errors.Is(err, syscall.EINTR)) || pid == 0 {
				break
			}
		}
	}
}

// setUp turns fresh namespaces into the machine.
func (s *machineSpec) setUp() error {
	if err := unix.Sethostname([]byte(s.Node.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := s.mountAll(); err != nil {
		return err
	}
	if err := s.writeEtc(); err != nil {
		return err
	}
	if err := s.installPrograms(); err != nil {
		return err
	}
	return s.joinNetwork()
}

// joinNetwork sets up the node's end of the wire. IPv6 addresses work at once:
// nobody else can have them.
func (s *machineSpec) joinNetwork() error {
	lines := []string{"link set lo up", "link set eth0 up"}
	for _, a := range s.Node.Addresses {
		lines = append(lines, "addr add "+prefixed(a)+" dev eth0"+nodad(a))
	}
	if err := runIP(s.IP, lines...); err != nil {
		return kindf(kindNoNamespaces, "set up the network: %v", err)
	}
	if err := makePit(s.IP); err != nil {
		return kindf(kindNoNamespaces, "make a device for cuts: %v", err)
	}
	return nil
}
