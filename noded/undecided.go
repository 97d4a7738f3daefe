package noded

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Logins that are under way
//
// On the side of sshd a connection is a login that is not decided until the
// titles of the processes that serve it tell that somebody was let in. One that
// no process serves yet waits to be accepted. On the side of ssh a process has
// read its configuration when it is there, and counts until it has connected;
// from then on it is the server's to tell. Whatever cannot be told counts.

// letIn fits a process of sshd that serves nobody but who has been let in, and
// the one that watches over such a process, before and after.
var letIn = regexp.MustCompile(`^sshd(-session)?: [^\s\[\]@]+( \[priv\]|@\S+)?$`)

// undecided are the logins that sshd has not decided, from the addresses, by
// names that stay the same as long as they last.
func (s *sessions) undecided(ctx context.Context, from []netip.Prefix) (map[string]bool, error) {
	d, err := s.sshd(ctx)
	if err != nil {
		return nil, err
	}
	open, err := s.list(wanted{local: d.port, opening: true})
	if err != nil {
		return nil, err
	}
	ours := slices.DeleteFunc(slices.Clone(open), func(c connection) bool { return !s.counts(c, from) })
	if len(ours) == 0 && len(s.local) > 0 {
		return nil, nil
	}
	found, doubtful, err := s.weigh(open, ours)
	if err != nil || !doubtful {
		return found, err
	}
	// A process that watches over another one looks the same after the login as
	// before it. One that was started in the middle of the look is seen now.
	again, _, err := s.weigh(open, ours)
	maps.Copy(found, again)
	return found, err
}

// counts reports whether a connection is to this node, from one of the addresses.
func (s *sessions) counts(c connection, from []netip.Prefix) bool {
	return (len(s.local) == 0 || slices.Contains(s.local, c.local.Addr())) &&
		slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Contains(c.remote.Addr()) })
}

// weigh judges connections of ours by who serves them, and who serves none of the
// open ones; doubtful: some by what may have been missed.
func (s *sessions) weigh(open, ours []connection) (found map[string]bool, doubtful bool, err error) {
	list, err := s.processes()
	if err != nil {
		return nil, false, err
	}
	links := map[string]bool{}
	for _, c := range open {
		links[c.link()] = true
	}
	found, serve := map[string]bool{}, map[string][]process{}
	for _, p := range list {
		if !sshdTitle.MatchString(p.title) || strings.Contains(p.title, "[listener]") {
			continue
		}
		known := false
		for _, link := range s.sockets(p.pid) {
			serve[link] = append(serve[link], p)
			known = known || links[link]
		}
		// An sshd of this machine on another port or network.
		if !known && !letIn.MatchString(p.title) && len(s.local) == 0 && s.sameRoot(p) {
			found[p.id()] = true
		}
	}
	for _, c := range ours {
		decided, sure := decided(withChildren(serve[c.link()], list))
		doubtful = doubtful || decided && !sure
		if !decided {
			found[fmt.Sprint(c.local, " ", c.remote)] = true
		}
	}
	return found, doubtful, nil
}

// withChildren adds the processes of sshd that those have started. Before the
// login they serve the same connection, and may hide that.
func withChildren(serve, list []process) []process {
	all := slices.Clone(serve)
	for _, p := range list {
		if sshdTitle.MatchString(p.title) && slices.ContainsFunc(serve, func(o process) bool { return o.pid == p.parent }) {
			all = append(all, p)
		}
	}
	return all
}

// decided tells by the titles whether somebody was let in; sure: a session tells
// so, and not only that nobody is seen who still asks.
func decided(serve []process) (decided, sure bool) {
	decided = len(serve) > 0
	for _, p := range serve {
		decided = decided && letIn.MatchString(p.title)
		sure = sure || strings.Contains(p.title, "@")
	}
	return decided, sure
}

// id names a process for as long as it lasts.
func (p process) id() string { return fmt.Sprintf("process %d of %d", p.pid, p.ticks) }

// sameRoot reports whether a process of sshd is this machine's and no
// container's. Before the login it has a root folder of its own, and the one
// that watches over it has not.
func (s *sessions) sameRoot(p process) bool {
	root, err := os.Stat("/")
	if err != nil {
		return true
	}
	for _, pid := range []int{p.pid, p.parent} {
		theirs, err := os.Stat(filepath.Join(s.proc, strconv.Itoa(pid), "root"))
		if err == nil && os.SameFile(root, theirs) {
			return true
		}
	}
	return false
}

// connecting are the processes of ssh that the account runs and that have no
// connection to any of the ports. Those that are older than any login can be do
// not count: they wait for another process of ssh, or for a way to the other end
// that there is not.
func (s *sessions) connecting(uid int, ports []uint16) (map[string]bool, error) {
	list, err := s.processesOf("ssh")
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(p process) bool { return !s.startedBy(p, uid) })
	if len(list) == 0 {
		return nil, nil
	}
	connected := map[string]bool{}
	for _, port := range ports {
		open, err := s.list(wanted{remote: port})
		if err != nil {
			return nil, err
		}
		for _, c := range open {
			connected[c.link()] = true
		}
	}
	found := map[string]bool{}
	for _, p := range list {
		if !slices.ContainsFunc(s.sockets(p.pid), func(link string) bool { return connected[link] }) {
			found[p.id()] = true
		}
	}
	return found, nil
}

// startedBy reports whether the account started a process, which has not ended, a
// while ago at most.
func (s *sessions) startedBy(p process, uid int) bool {
	if p.title == "" || time.Since(startOf(p.ticks)) > loginWindow {
		return false
	}
	info, err := os.Stat(filepath.Join(s.proc, strconv.Itoa(p.pid)))
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == uid
}
