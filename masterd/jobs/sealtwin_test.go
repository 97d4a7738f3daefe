package jobs

import (
	"rolekey/rpc"
	"rolekey/sshkeys"
)

// The machine of the tests opens sealed keys as a node does.

func (m *machine) recipient() []byte {
	if m.seals == nil {
		r, err := sshkeys.NewRecipient()
		if err != nil {
			panic(err)
		}
		m.seals = r
	}
	return m.seals.Public()
}

func (m *machine) open(o *rpc.SSHKeyOrder, c sshkeys.SealContext) error {
	c.Key = *o.Shared
	_, err := m.seals.Open(o.Sealed.Sealed, c)
	return err
}

// hooked runs a test's hook before a call, and tells whether the master dies at
// it. Calls are made at once, and hooks count them.
func (w *world) hooked(hook func(string), what string, number int) (dies, after bool) {
	if !w.waits {
		w.hooking.Lock()
		defer w.hooking.Unlock()
	}
	if hook != nil {
		hook(what)
	}
	return number == w.dieAt, w.after
}

// made is how many calls have been made; for hooks, which run beside calls.
func (w *world) made() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}
