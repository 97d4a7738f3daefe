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

const (
	verifyTest = "masterd/verify/verify_test.go"
	faultsTest = "tests/faults/faults_test.go"
)

var elsewhere = []proved{
	{"host keys or the port of a normal node's sshd changed", "ENODESSH", byItself, "tests/e2e/hostkeys_test.go", "TestMachinesHostKeyOfANormalNode"},
	{"an old map was restored while noded was down", "ENODEMAP", byItself, faultsTest, "an old map was restored"},
	{"ssh's configuration was changed", "ENODESSH", byItself, faultsTest, "ssh's configuration is not"},
	{"others may write to root's ``.ssh``", "ENODESSH", byItself, faultsTest, "others may write to root's .ssh"},
	{"an older roster than the map names", "ENODEMAP", byItself, verifyTest, "older roster"},
	{"a node serves, and has another map, lease or policy", "ENODEMAP", byRepair, verifyTest, "other policy"},
	{"a certificate of a node, or the CA's, ends soon", "ECLUSTERCERT", byItself, verifyTest, "certificate ends very soon"},
	{"a candidate's own certificate ends soon", "ECLUSTERCLIENTCERT", byItself, "masterd/verify/renewal_test.go", "TestRenewalIsWatched"},
	{"a clock is wrong: no namespace has a clock of its own", "ENODETIME", byRemedy, verifyTest, "clock ahead"},
	{"a node does not refuse what it must: it takes another noded", "ENODEGATE", byRemedy, "masterd/verify/probes_test.go", "TestG1RefusalsAreProven"},
	{"raft's voters are not the map's", "ECLUSTERCFG", byItself, "masterd/verify/facts_test.go", "TestVotersDiffer"},
	{"a node runs another release", "ENODEVERSION", byRemedy, "masterd/verify/facts_test.go", "TestSoftwareDiffers"},
	{"the master lacks the cluster address", "ENODENET", byItself, "masterd/verify/address_test.go", "master lacks it"},
	{"an admission string is open", "none: a notice", "none needed", faultsTest, "TestOpenString"},
}

// table renders the catalogue as it stands in tests/README.rst.
func table() string {
	var b strings.Builder
	b.WriteString(".. list-table::\n   :header-rows: 1\n\n   * - fault\n     - code\n     - put right by\n     - proved in\n")
	row := func(name, code, cure, where string) {
		fmt.Fprintf(&b, "   * - %s\n     - %s\n     - %s\n     - %s\n", name, code, cure, where)
	}
	for _, f := range catalogue {
		row(f.name, f.says[0].code, f.cure, "``tests/faults``")
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
