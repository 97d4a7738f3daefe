package query

import (
	"strings"
	"time"

	"rolekey/masterd/rapi/wire"
)

// Nodes is what can be listed of nodes.
var Nodes = newTable(append(nodeFields, ganetiNodeFields...))

type node = wire.Node

var nodeFields = []Field[node]{
	{Name: "uuid", Title: "UUID", Doc: "UUID, stable for ever", Cell: always(func(n node) any { return n.UUID })},
	{Name: "name", Title: "Node", Doc: "Full name", Cell: nodeName},
	{Name: "role", Title: "Role", Doc: "Role in a word; in a filter also Ganeti's letter M, C, R, D or O", Cell: nodeRole, Wire: func(n node) any { return n.Role }},
	{Name: "address", Title: "Address", Doc: "First address", Cell: always(func(n node) any { return n.PIP })},
	{Name: "master_candidate", Title: "MasterC", Kind: KindBool, Doc: "Whether it is a candidate (the master is one)", Cell: always(func(n node) any { return n.MasterCandidate })},
	{Name: "drained", Title: "Drained", Kind: KindBool, Doc: "Whether it is drained", Cell: always(func(n node) any { return n.Drained })},
	{Name: "offline", Title: "Offline", Kind: KindBool, Doc: "Whether it is set offline", Cell: always(func(n node) any { return n.Offline })},
	{Name: "master_capable", Title: "MasterCapable", Kind: KindBool, Doc: "Whether it may become a candidate", Cell: always(func(n node) any { return n.MasterCapable })},
	{Name: "vm_capable", Title: "VMCapable", Kind: KindBool, Doc: "Whether it may host instances", Cell: always(func(n node) any { return n.VMCapable })},
	{Name: "voter", Title: "Voter", Kind: KindBool, Doc: "Whether it votes and signs maps", Cell: always(func(n node) any { return n.Voter })},
	{Name: "map_version", Title: "MapVersion", Kind: KindNumber, Doc: "Version of the map that it last confirmed to the master", Cell: confirmed(func(n node) any { return n.MapVersion })},
	{Name: "map_epoch", Title: "MapEpoch", Kind: KindNumber, Doc: "Epoch of the map that it last confirmed to the master", Cell: confirmed(func(n node) any { return n.MapEpoch })},
	{Name: "addresses", Title: "Addresses", Kind: KindList, Doc: "All addresses", Cell: nodeAddresses},
	{Name: "fresh", Title: "Fresh", Kind: KindBool, Doc: "Whether its map is fresh, as far as the master knows", Cell: heard(func(n node) any { return n.Fresh })},
	{Name: "reachable", Title: "Reachable", Kind: KindBool, Doc: "Whether it answered the master's last call", Cell: heard(func(n node) any { return n.Reachable })},
	{Name: "joined", Title: "Joined", Kind: KindBool, Doc: "Whether it has used its identity certificate", Cell: always(func(n node) any { return n.Joined })},
	{Name: "incarnation", Title: "Incarnation", Kind: KindNumber, Doc: "How often it was admitted", Cell: always(func(n node) any { return n.Incarnation })},
	{Name: "pip", Title: "PrimaryIP", Doc: "First address, by Ganeti's name", Cell: always(func(n node) any { return n.PIP })},
	{Name: "sip", Title: "SecondaryIP", Doc: "Secondary address, by Ganeti's name", Cell: always(func(n node) any { return n.SIP })},
	{Name: "master", Title: "IsMaster", Kind: KindBool, Doc: "Whether it is the master", Cell: always(func(n node) any { return n.Role == "M" })},
	{Name: "tags", Title: "Tags", Kind: KindList, Doc: "Tags", Cell: always(func(n node) any { return n.Tags })},
	{Name: "serial_no", Title: "SerialNo", Kind: KindNumber, Doc: "How often its record was changed", Cell: always(func(n node) any { return n.SerialNo })},
	{Name: "ctime", Title: "CTime", Kind: KindTime, Doc: "When it was added", Cell: always(func(n node) any { return seconds(n.CTime) }), Wire: func(n node) any { return n.CTime }},
	{Name: "mtime", Title: "MTime", Kind: KindTime, Doc: "When its record was last changed", Cell: always(func(n node) any { return seconds(n.MTime) }), Wire: func(n node) any { return n.MTime }},
	{Name: "ndparams", Title: "NodeParameters", Kind: KindOther, Doc: "Node parameters", Cell: always(func(n node) any { return n.NDParams })},
	{Name: "ndp/ssh_port", Title: "SSHPort", Kind: KindNumber, Doc: "Port of its sshd", Cell: always(func(n node) any { return n.Ports.SSH })},
}

// ganetiNodeFields exist so that scripts written for Ganeti find them.
var ganetiNodeFields = []Field[node]{
	never[node]("group", "Group", KindText, "Node group"),
	never[node]("group.uuid", "GroupUUID", KindText, "UUID of the node group"),
	never[node]("powered", "Powered", KindBool, "Whether it is thought to be powered on"),
	never[node]("custom_ndparams", "CustomNodeParameters", KindOther, "Node parameters of its own"),
	never[node]("pinst_cnt", "Pinst", KindNumber, "Number of instances that have it as primary"),
	never[node]("sinst_cnt", "Sinst", KindNumber, "Number of instances that have it as secondary"),
	never[node]("pinst_list", "PriInstances", KindList, "Instances that have it as primary"),
	never[node]("sinst_list", "SecInstances", KindList, "Instances that have it as secondary"),
	never[node]("hv_state", "HypervisorState", KindOther, "State of the hypervisor"),
	never[node]("disk_state", "DiskState", KindOther, "State of the disks"),
	never[node]("bootid", "BootID", KindText, "Identity of the last boot"),
	never[node]("cnodes", "CNodes", KindNumber, "Number of NUMA domains"),
	never[node]("cnos", "CNOs", KindNumber, "Number of processors of the system"),
	never[node]("csockets", "CSockets", KindNumber, "Number of processor sockets"),
	never[node]("ctotal", "CTotal", KindNumber, "Number of processors"),
	never[node]("dfree", "DFree", KindNumber, "Free disk space for instances"),
	never[node]("dtotal", "DTotal", KindNumber, "Disk space for instances"),
	never[node]("mfree", "MFree", KindNumber, "Free memory for instances"),
	never[node]("mnode", "MNode", KindNumber, "Memory of the system itself"),
	never[node]("mtotal", "MTotal", KindNumber, "Memory"),
	never[node]("spfree", "SpFree", KindNumber, "Free spindles"),
	never[node]("sptotal", "SpTotal", KindNumber, "Spindles"),
}

// nodeName is also equal to its first labels.
func nodeName(n node) Cell {
	c := Cell{Value: string(n.Name)}
	for i, r := range string(n.Name) {
		if r == '.' {
			c.Also = append(c.Also, string(n.Name[:i]))
		}
	}
	return c
}

func nodeRole(n node) Cell { return Cell{Value: n.RoleName, Also: []string{n.Role}} }

func nodeAddresses(n node) Cell {
	list := make([]string, len(n.Addresses))
	for i, a := range n.Addresses {
		list[i] = a.String()
	}
	return Cell{Value: list, Text: strings.Join(list, ",")}
}

// silence is the status of what a node has not told the master.
func silence(n node) Status {
	switch {
	case n.MapVersion > 0:
		return StatusNormal
	case n.Offline:
		return StatusOffline
	}
	return StatusNoData
}

// confirmed is 0 in JSON while nothing is known.
func confirmed(value func(node) any) func(node) Cell {
	return func(n node) Cell { return Cell{Status: silence(n), Value: value(n)} }
}

// heard is null in JSON while nothing is known.
func heard(value func(node) any) func(node) Cell {
	return func(n node) Cell {
		if status := silence(n); status != StatusNormal {
			return Cell{Status: status}
		}
		return Cell{Value: value(n)}
	}
}

// seconds reads Ganeti's form of a time that is not a job's.
func seconds(s float64) time.Time { return time.UnixMilli(int64(s * 1000)).UTC() }
