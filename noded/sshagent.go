package noded

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"rolekey/rpc"
)

// maxAgentConns bounds root's ssh processes that ask at a time.
const maxAgentConns = 64

var errReadOnly = errors.New("the keys of this agent are the cluster's: they are not changed here")

// sshAgent serves the keys that are held in memory, by the protocol of
// ssh-agent(1), to root of this machine. It lists and signs, and nothing else.
type sshAgent struct{ keys keyDir }

// List implements agent.Agent.
func (a sshAgent) List() ([]*agent.Key, error) {
	var out []*agent.Key
	for _, k := range a.keys.inMemory() {
		out = append(out, &agent.Key{Format: k.key.Type, Blob: k.key.Blob, Comment: "rolekey"})
	}
	return out, nil
}

// Sign implements agent.Agent.
func (a sshAgent) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	return a.SignWithFlags(key, data, 0)
}

// SignWithFlags implements agent.ExtendedAgent. RSA signs by SHA-2 only.
func (a sshAgent) SignWithFlags(key ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	blob := string(key.Marshal())
	for _, k := range a.keys.inMemory() {
		if string(k.key.Blob) != blob {
			continue
		}
		algorithm := ""
		if k.key.Type == ssh.KeyAlgoRSA {
			algorithm = ssh.KeyAlgoRSASHA256
			if flags&agent.SignatureFlagRsaSha512 != 0 {
				algorithm = ssh.KeyAlgoRSASHA512
			}
		}
		signer, ok := k.signer.(ssh.AlgorithmSigner)
		if !ok {
			return nil, errors.New("the key cannot sign so")
		}
		return signer.SignWithAlgorithm(nil, data, algorithm)
	}
	return nil, errors.New("this agent does not hold that key")
}

// Extension implements agent.ExtendedAgent.
func (sshAgent) Extension(string, []byte) ([]byte, error) { return nil, agent.ErrExtensionUnsupported }

// Add implements agent.Agent.
func (sshAgent) Add(agent.AddedKey) error { return errReadOnly }

// Remove implements agent.Agent.
func (sshAgent) Remove(ssh.PublicKey) error { return errReadOnly }

// RemoveAll implements agent.Agent.
func (sshAgent) RemoveAll() error { return errReadOnly }

// Lock implements agent.Agent.
func (sshAgent) Lock([]byte) error { return errReadOnly }

// Unlock implements agent.Agent.
func (sshAgent) Unlock([]byte) error { return errReadOnly }

// Signers implements agent.Agent.
func (sshAgent) Signers() ([]ssh.Signer, error) { return nil, errReadOnly }

// serveAgent serves the agent's socket until ctx ends.
func (d *Daemon) serveAgent(ctx context.Context, l net.Listener) error {
	own := rpc.OwnListener(l)
	var calls sync.WaitGroup
	defer calls.Wait()
	stop := context.AfterFunc(ctx, func() { _ = own.Close() })
	defer stop()
	slots := make(chan struct{}, maxAgentConns)
	for {
		c, err := own.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		calls.Go(func() {
			defer func() { <-slots }()
			d.serveAgentConn(ctx, c)
		})
	}
}

func (d *Daemon) serveAgentConn(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_ = sshAgent{d.keys}.serve(c) // the end of the connection, or a request that cannot be read
}

// The protocol of ssh-agent(1), as far as it is served.
const (
	agentFailure = 5
	agentList    = 11
	agentSign    = 13

	// maxAgentFrame is OpenSSH's own limit.
	maxAgentFrame = 256 << 10
	// agentIdle is how long a connection may stay without a request. A login
	// sends one after the other.
	agentIdle = 2 * time.Minute
)

// serve answers requests until one cannot be read. What would bring a key or
// change something never reaches the parser.
func (a sshAgent) serve(c net.Conn) error {
	for {
		if err := c.SetDeadline(time.Now().Add(agentIdle)); err != nil {
			return err
		}
		frame, err := readFrame(c)
		if err != nil {
			return err
		}
		if kind := frame[4]; kind != agentList && kind != agentSign {
			if _, err := c.Write([]byte{0, 0, 0, 1, agentFailure}); err != nil {
				return err
			}
			continue
		}
		one := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(frame), c}
		if err := agent.ServeAgent(a, one); !errors.Is(err, io.EOF) {
			return err
		}
	}
}

// readFrame reads one request, with its length before it.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxAgentFrame {
		return nil, fmt.Errorf("read request to the ssh agent: %d bytes", n)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n))) // as it comes: a length is no reason to take memory
	if err == nil && len(body) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	return append(head[:], body...), err
}
