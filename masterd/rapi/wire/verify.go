package wire

// Verify are the fields of the opcode that verifies the cluster.
type Verify struct {
	ErrorCodes   bool     `json:"error_codes"`
	IgnoreErrors []string `json:"ignore_errors"`
	Verbose      bool     `json:"verbose"`
	AllPairs     bool     `json:"all_pairs,omitempty"` // attempt all that must be refused
	Remedies     bool     `json:"remedies,omitempty"`  // say after each finding what to do
	Repair       bool     `json:"repair,omitempty"`    // put right what is safe to
	DryRun       bool     `json:"dry_run,omitempty"`   // only say what would be
}

// VerifyCodes are the codes that may be ignored: Ganeti's, of which reports
// contain those that concern Rolekey, and Rolekey's own.
var VerifyCodes = []string{
	"ECLUSTERCERT", "ECLUSTERCFG", "ECLUSTERCLIENTCERT", "ECLUSTERDANGLINGINST", "ECLUSTERDANGLINGNODES", "ECLUSTERFILECHECK",
	"EEXTAGS", "EGROUPDIFFERENTPVSIZE", "EINSTANCEBADNODE", "EINSTANCEDOWN", "EINSTANCEFAULTYDISK", "EINSTANCELAYOUT",
	"EINSTANCEMISSINGCFGPARAMETER", "EINSTANCEMISSINGDISK", "EINSTANCEPOLICY", "EINSTANCESPLITGROUPS", "EINSTANCEUNSUITABLENODE",
	"EINSTANCEWRONGNODE", "ENODEDRBD", "ENODEDRBDHELPER", "ENODEDRBDVERSION", "ENODEFILECHECK", "ENODEFILESTORAGEPATHS",
	"ENODEFILESTORAGEPATHUNUSABLE", "ENODEGATE", "ENODEGLUSTERSTORAGEPATHUNUSABLE", "ENODEHOOKS", "ENODEHV", "ENODEKEY", "ENODELVM",
	"ENODEMAP", "ENODEN1", "ENODENET", "ENODEOOBPATH", "ENODEORPHANINSTANCE", "ENODEORPHANLV", "ENODEOS", "ENODERPC", "ENODESETUP",
	"ENODESHAREDFILESTORAGEPATHUNUSABLE", "ENODESSH", "ENODETIME", "ENODEUSERSCRIPTS", "ENODEVERSION",
}
