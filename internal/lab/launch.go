package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// prepareDir makes the folder. Links in its name are resolved, because sshd
// compares resolved names.
func prepareDir(dir string) (string, error) {
	var err error
	if dir == "" {
		dir, err = os.MkdirTemp("", "rolekey-lab-")
	} else {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return "", fmt.Errorf("create cluster folder: %w", err)
	}
	if dir, err = filepath.Abs(dir); err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", fmt.Errorf("resolve cluster folder: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("protect cluster folder: %w", err)
	}
	if err := clearDir(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(privateDir(dir), 0o755); err != nil {
		return "", fmt.Errorf("create cluster folder: %w", err)
	}
	return dir, nil
}

// clearDir removes the files of a cluster that ran in dir before. It refuses
// when one still runs, or when files with such names are somebody else's.
func clearDir(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, "node[0-9]*"))
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	if _, err := os.Stat(privateDir(dir)); err != nil {
		if len(old) > 0 {
			return fmt.Errorf("%s holds %s, which no cluster made: choose another folder", dir, filepath.Base(old[0]))
		}
		return nil
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := Sweep(dir); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	if err := removeFiles(dir); err != nil {
		return fmt.Errorf("remove the files of an earlier cluster: %w", err)
	}
	return nil
}

// startHolder starts the holder in namespaces, or without where the kernel
// refuses.
func (c *Cluster) startHolder(ctx context.Context, cfg Config) error {
	tools, err := findSSH(cfg.Bin)
	if err != nil {
		return err
	}
	s := spec{
		Tools: tools, Dir: c.dir, Nodes: cfg.Nodes, Bin: cfg.Bin, Ports: cfg.Ports, Purge: c.temp,
		ReadyMS: cfg.ReadyLimit.Milliseconds(), Namespaces: !cfg.NoNamespaces, Reason: "they were switched off",
		Machines: cfg.Isolation == IsolationNetns,
	}
	if s.Machines {
		s.Reason = ""
		return c.tryHolder(ctx, s, namespaceAttr())
	}
	if s.Namespaces {
		err := c.tryHolder(ctx, s, namespaceAttr())
		if !errors.Is(err, ErrNoNamespaces) {
			return err
		}
		fmt.Fprintf(c.progress, "no namespaces here, so partitions will not work: %v\n", err)
		s.Namespaces, s.Reason = false, err.Error()
	}
	return c.tryHolder(ctx, s, &syscall.SysProcAttr{Setsid: true})
}

func (c *Cluster) tryHolder(ctx context.Context, s spec, attr *syscall.SysProcAttr) error {
	log, err := os.OpenFile(holderLogPath(c.dir), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open holder's log: %w", err)
	}
	defer log.Close()
	report, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer report.Close()
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.Command(exe)
	cmd.Args = []string{"devcluster-holder", s.Dir}
	cmd.Env = append(os.Environ(), holderEnv+"=1")
	cmd.Dir = "/" // a folder that will not vanish
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = attr
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		lifeline.Close()
		return startError(err, attr)
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(gone)
	}()
	if err := greetHolder(ctx, s, lifeline, report); err != nil {
		lifeline.Close()
		<-gone
		return err
	}
	c.lifeline, c.gone = lifeline, gone
	return nil
}

// startError tells a kernel that refuses namespaces from other failures.
func startError(err error, attr *syscall.SysProcAttr) error {
	for _, e := range []error{syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.ENOSPC, syscall.ENOSYS, syscall.EUSERS} {
		if attr.Cloneflags != 0 && errors.Is(err, e) {
			return kindf(kindNoNamespaces, "create namespaces: %v", err)
		}
	}
	return fmt.Errorf("start holder: %w", err)
}

// greetHolder sends the spec and waits for the report.
func greetHolder(ctx context.Context, s spec, lifeline io.Writer, report *os.File) error {
	stop := context.AfterFunc(ctx, func() { report.Close() })
	defer stop()
	if err := json.NewEncoder(lifeline).Encode(s); err != nil {
		return fmt.Errorf("start holder: %w; its log ends with:\n%s", err, tail(holderLogPath(s.Dir), 8))
	}
	var r reply
	if err := json.NewDecoder(bufio.NewReader(report)).Decode(&r); err != nil {
		return fmt.Errorf("start holder: no report: %w; its log ends with:\n%s", errors.Join(ctx.Err(), err), tail(holderLogPath(s.Dir), 8))
	}
	if r.Error != nil {
		return fmt.Errorf("start holder: %w", r.Error)
	}
	return nil
}
