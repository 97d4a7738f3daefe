package monitor

import (
	"time"

	"rolekey/cluster"
	"rolekey/internal/buildinfo"
)

// What both daemons tell.
var (
	buildInfo   = Gauge("rolekey_build_info", "1; the label is the version of the program.", "version")
	features    = Gauge("rolekey_features", "Highest feature level that the program knows.")
	mapEpoch    = Gauge("rolekey_map_epoch", "Epoch of the candidate map in force; 0: none.")
	mapVersion  = Gauge("rolekey_map_version", "Version of the candidate map in force; 0: none.")
	mapFresh    = Gauge("rolekey_map_fresh", "Whether the map is fresh.")
	mapAge      = Gauge("rolekey_map_age_seconds", "Age of the newest signed word that the map is current.")
	mapForks    = Gauge("rolekey_map_forks", "Proofs of an attack that are kept.")
	refusals    = Counter("rolekey_rpc_refusals_total", "Calls refused, by the code of the reason.", "reason")
	certificate = Gauge("rolekey_certificate_expiry_timestamp_seconds", "When a certificate in use ends.", "kind")
	auditLost   = Counter("rolekey_audit_lines_lost_total", "Lines of the audit log that could not be written.")
)

var (
	publicDescs = []Desc{mapEpoch, mapVersion, mapFresh}
	commonDescs = []Desc{buildInfo, features, mapAge, mapForks, refusals, certificate, auditLost}
)

// Common is what both daemons know. The map's part is left out while there is
// none.
type Common struct {
	Version      cluster.Version
	Fresh        bool
	Age          time.Duration
	Forks        int
	Refusals     map[string]int64
	Certificates map[string]time.Time // when each kind ends
	AuditLost    int64
}

// public is what GET /v1/health tells everybody.
func (c *Common) public(add Add) {
	add(mapEpoch, float64(c.Version.Epoch))
	add(mapVersion, float64(c.Version.Version))
	add(mapFresh, Bool(c.Fresh))
}

func (c *Common) local(add Add) {
	add(buildInfo, 1, buildinfo.Version())
	add(features, cluster.FeatureLevel)
	add(auditLost, float64(c.AuditLost))
	for reason, n := range c.Refusals {
		add(refusals, float64(n), reason)
	}
	for kind, end := range c.Certificates {
		add(certificate, float64(end.Unix()), kind)
	}
	add(mapForks, float64(c.Forks))
	if !c.Version.IsZero() {
		add(mapAge, c.Age.Seconds())
	}
}
