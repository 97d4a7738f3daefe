package noded

import (
	"path/filepath"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/noded/masterip"
	"rolekey/rpc"
)

// addressFile notes the cluster address while this node holds it. It is
// destroyed when the node leaves.
func (d *Daemon) addressFile() string { return addressFile(&d.cfg) }

func addressFile(c *Config) string { return filepath.Join(c.Paths.NodeDir(), addressNote) }

func (m *member) openAddress() error {
	var err error
	m.address, err = masterip.New(masterip.Config{
		Kernel: m.cfg.Kernel, File: addressFile(m.cfg), Look: m.wantAddress, Log: m.log.Named("address"),
		Tell: m.auditAddress,
	})
	return err
}

func (m *member) auditAddress(a cluster.MasterAddress, held bool) {
	act := audit.AddressReleased
	if held {
		act = audit.AddressTaken
	}
	m.audit.Write(audit.Event{Act: act, Target: a.Address.String(), After: audit.Values{"netdev": a.Netdev}})
}

// wantAddress is what map, roster and lease ask of this node. A stale node
// gives the address up under any policy: another may be master by now.
func (m *member) wantAddress() masterip.Want {
	v := m.keeper.View()
	left := m.keeper.Left()
	if left > 0 {
		m.heard.Store(true)
	}
	w := masterip.Want{Left: left, Heard: m.heard.Load()}
	if v.Map == nil || v.Roster == nil {
		return w
	}
	w.Master = !v.Map.Master.IsZero() && v.Map.Master == m.id.Node
	if s := v.Roster.Settings(); s != nil {
		w.Address = s.Address
	}
	return w
}

// stateOfAddress tells verify what became of the cluster address.
func (m *member) stateOfAddress(s *rpc.NodeState) {
	if got := m.address.Status(); got.Address != nil {
		s.MasterAddress = &rpc.AddressState{
			Address: got.Address.Address.String(), Netdev: got.Address.Netdev, Held: got.Held, Problem: got.Problem,
		}
	}
}
