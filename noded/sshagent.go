package noded

import (
	"context"
	"errors"
	"net"
	"sync"

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
	_ = agent.ServeAgent(sshAgent{d.keys}, c) // the end of the connection, or a request that cannot be read
}
