package verify

import (
	"slices"
	"strings"

	"rolekey/masterd/rapi/wire"
	"rolekey/masterd/roles"
)

// The error codes, Ganeti's where it has one for the matter.
const (
	CodeClusterConfig = "ECLUSTERCFG"
	CodeClientCert    = "ECLUSTERCLIENTCERT"
	CodeClusterCert   = "ECLUSTERCERT"
	CodeNodeRPC       = "ENODERPC"
	CodeNodeNet       = "ENODENET"
	CodeNodeSSH       = "ENODESSH"
	CodeNodeTime      = "ENODETIME"
	CodeNodeMap       = "ENODEMAP"  // Rolekey's own: the candidate map on a node
	CodeNodeKey       = "ENODEKEY"  // Rolekey's own: private keys on a node
	CodeNodeGate      = "ENODEGATE" // Rolekey's own: a node did not refuse what it must
	CodeNodeHooks     = "ENODEHOOKS"

	CodeClusterFileCheck = "ECLUSTERFILECHECK"
	CodeNodeFileCheck    = "ENODEFILECHECK"
	CodeNodeVersion      = "ENODEVERSION"
)

// Codes lists every code that a report can contain, the worst first.
func Codes() []string {
	return slices.Clone(worst)
}

// checkCodes refuses to ignore what there is not: a slip of the pen would make
// an error look like none. Ganeti's other codes are known, so that its scripts
// work unchanged.
func checkCodes(codes []string) error {
	for _, code := range codes {
		if !slices.Contains(wire.VerifyCodes, code) {
			return &roles.PrereqError{Class: roles.WrongInput, Msg: "invalid choice: '" + oneLine(code) + "' (choose from " + strings.Join(wire.VerifyCodes, ", ") + ")"}
		}
	}
	return nil
}

// worst orders the codes.
var worst = []string{
	CodeNodeGate, CodeNodeKey, CodeClientCert, CodeNodeSSH, CodeNodeMap, CodeClusterConfig, CodeNodeRPC, CodeClusterCert,
	CodeNodeTime, CodeNodeNet, CodeClusterFileCheck, CodeNodeFileCheck, CodeNodeHooks, CodeNodeVersion,
}
