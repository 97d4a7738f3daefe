package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
)

// place are the flags of a command that say where a node is.
type place struct {
	addresses  []string
	secondary  string
	parameters string
}

func (p *place) flags(f *pflag.FlagSet, address string) {
	f.StringArrayVar(&p.addresses, "address", nil, address)
	f.StringVarP(&p.secondary, "secondary-ip", "s", "", "the node's second address")
	f.StringVar(&p.parameters, "node-parameters", "", "parameters of the node: ssh_port=N")
}

// into checks what was given and puts it into a request.
func (p *place) into(m *wire.NodeModify) error {
	for _, text := range p.addresses {
		a, err := cluster.ParseAddr(text)
		if err != nil {
			return usage("%v", err)
		}
		m.Addresses = append(m.Addresses, a.String())
	}
	if p.secondary != "" {
		a, err := cluster.ParseAddr(p.secondary)
		if err != nil {
			return usage("%v", err)
		}
		m.SecondaryIP = new(a.String())
	}
	port, err := p.sshPort()
	if port != 0 {
		m.NDParams = map[string]any{"ssh_port": port}
	}
	return err
}

// sshPort reads --node-parameters; zero: none was given.
func (p *place) sshPort() (uint16, error) {
	if p.parameters == "" {
		return 0, nil
	}
	value, ok := strings.CutPrefix(p.parameters, "ssh_port=")
	port, err := strconv.ParseUint(value, 10, 16)
	if !ok || err != nil || port == 0 {
		return 0, usage("--node-parameters %s: want ssh_port=N, with a port from 1 to 65535", p.parameters)
	}
	return uint16(port), nil
}
