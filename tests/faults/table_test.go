package faults

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// proved is a fault that no ordinary user can put into a running daemon, or that
// another test has a better place for.
type proved struct {
	name, code, cure string
	file, test       string // below the repository, and a function, or the name of a case, in it
}

const verifyTest = "masterd/verify/verify_test.go"

var elsewhere = []proved{
	{"a line of the cluster was removed from ``authorized_keys``", "ENODESSH", byItself, verifyTest, "a key is not authorized"},
	{"a line of a former candidate in the cluster's block", "ENODESSH", byItself, verifyTest, "a stranger's key is authorized"},
	{"the cluster's lines in ``known_hosts`` are damaged", "ENODESSH", byItself, "noded/repair_test.go", "TestDiffers"},
	{"an old map was restored while noded was down", "ENODEMAP", byItself, verifyTest, "older map"},
	{"another map of the same version", "ENODEMAP", byRemedy, verifyTest, "another map of this version"},
	{"a node has heard no beacon", "ENODEMAP", byItself, verifyTest, "stale"},
	{"the SSH key of a candidate is gone", "ENODEKEY", byItself, verifyTest, "no private key on a candidate"},
	{"a candidate lost its keys", "ENODEKEY", byRepair, verifyTest, "no candidate keys on a candidate"},
	{"another certificate of the cluster's CA on a candidate", "ECLUSTERCLIENTCERT", byRepair, verifyTest, "client certificate not in the map"},
	{"two nodes with one certificate", "ECLUSTERCLIENTCERT", byRemedy, verifyTest, "client certificate of another candidate on a candidate"},
	{"a normal node with a candidate's certificate", "ECLUSTERCLIENTCERT", byRepair, verifyTest, "client certificate of another candidate on a normal node"},
	{"a server certificate that the roster does not pin", "ECLUSTERCERT", byRemedy, verifyTest, "foreign server certificate"},
	{"a certificate ends soon", "ECLUSTERCERT", byItself, verifyTest, "certificate ends very soon"},
	{"a clock is wrong", "ENODETIME", byRemedy, verifyTest, "clock ahead"},
	{"sshd would ignore the keys", "ENODESSH", byRemedy, verifyTest, "sshd ignores the file"},
	{"host keys or the port of a normal node's sshd changed", "ENODESSH", byItself, "tests/e2e/hostkeys_test.go", "TestMachinesHostKeyOfANormalNode"},
	{"host keys of a candidate changed", "ENODESSH", byRemedy, "tests/e2e/hostkeys_test.go", "TestMachinesHostKeyOfACandidate"},
	{"the master lacks the cluster address", "ENODENET", byItself, "masterd/verify/address_test.go", "master lacks it"},
	{"the candidate pool is too small", "ECLUSTERCFG", byRepair, verifyTest, "pool too small"},
	{"an admission string is open", "none: a notice", "none needed", "tests/faults/faults_test.go", "TestOpenString"},
}

// table renders the catalogue as it stands in tests/README.rst.
func table() string {
	var b strings.Builder
	b.WriteString(".. list-table::\n   :header-rows: 1\n\n   * - fault\n     - code\n     - put right by\n     - proved in\n")
	row := func(name, code, cure, where string) {
		fmt.Fprintf(&b, "   * - %s\n     - %s\n     - %s\n     - %s\n", name, code, cure, where)
	}
	for _, f := range catalogue {
		row(f.name, f.code, f.cure, "``tests/faults``")
	}
	for _, p := range elsewhere {
		row(p.name, p.code, p.cure, "``"+p.file+"``")
	}
	return b.String()
}

// TestTable: tests/README.rst has the catalogue, and what it names exists.
func TestTable(t *testing.T) {
	readme, err := os.ReadFile("../README.rst")
	if err != nil {
		t.Fatal(err)
	}
	if want := table(); !strings.Contains(string(readme), want) {
		t.Errorf("tests/README.rst lacks this table:\n%s", want)
	}
	for _, p := range elsewhere {
		b, err := os.ReadFile("../../" + p.file)
		if err != nil || !strings.Contains(string(b), p.test) {
			t.Errorf("%s: %s has no %q: %v", p.name, p.file, p.test, err)
		}
	}
}
