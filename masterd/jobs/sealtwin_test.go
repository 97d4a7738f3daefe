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
