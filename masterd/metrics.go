package masterd

import (
	"errors"
	"time"

	"rolekey/cluster"
	"rolekey/internal/monitor"
	"rolekey/masterd/consensus"
	"rolekey/masterd/state"
	"rolekey/pki"
)

// What masterd tells beside what both daemons do. All but the first only while
// the node is a candidate.
var (
	metricCandidate = monitor.Gauge("rolekey_candidate", "Whether masterd takes part as a candidate.")
	metricMaster    = monitor.Gauge("rolekey_master", "Whether this node is the master in office.")
	metricRaftState = monitor.Gauge("rolekey_raft_state", "1 for the state that raft is in.", "state")
	metricTerm      = monitor.Gauge("rolekey_raft_term", "Raft's term.")
	metricLast      = monitor.Gauge("rolekey_raft_last_index", "Newest entry of the log.")
	metricCommit    = monitor.Gauge("rolekey_raft_commit_index", "Newest entry known to be committed.")
	metricApplied   = monitor.Gauge("rolekey_raft_applied_index", "Newest entry applied.")
	metricVoters    = monitor.Gauge("rolekey_raft_voters", "Voters in raft's configuration.")
	metricLeader    = monitor.Gauge("rolekey_raft_leader_known", "Whether raft has a leader, as far as is known here.")
	metricLevel     = monitor.Gauge("rolekey_feature_level", "Feature level of the cluster.")
	metricNodes     = monitor.Gauge("rolekey_nodes", "Nodes, by role.", "role")
	metricUnacked   = monitor.Gauge("rolekey_nodes_unacknowledged", "On the master: nodes, but for offline ones, that have not confirmed the newest map.")
	metricJobs      = monitor.Gauge("rolekey_jobs", "Jobs that are kept, by status.", "status")
)

var metricDescs = []monitor.Desc{
	metricCandidate, metricMaster, metricRaftState, metricTerm, metricLast, metricCommit, metricApplied, metricVoters, metricLeader,
	metricLevel, metricNodes, metricUnacked, metricJobs,
}

// newMonitor makes the endpoint for those who watch this daemon.
func (d *Daemon) newMonitor() (*monitor.Server, error) {
	return monitor.New(monitor.Config{
		Addr: d.cfg.MetricsAddress, Common: d.common, Descs: metricDescs, Collect: d.collect, Ready: d.ready, Log: d.log.Named("monitor"),
	})
}

func (d *Daemon) common() monitor.Common {
	c := monitor.Common{AuditLost: d.audit.Lost(), Certificates: map[string]time.Time{}}
	if s := d.standing(); s != nil {
		c.Version, c.Fresh, c.Forks = s.keeper.View().At(), s.keeper.Fresh(), s.keeper.Forks()
		c.Age = s.keeper.Lease().Age(d.cfg.Clocks())
	}
	if held := d.vault.certificate(); held != nil {
		noteExpiry(c.Certificates, "candidate", held.Certificate[0])
	}
	if m, err := d.running(); err == nil {
		c.Refusals = m.server.Refusals()
		if st := m.node.State(); st.Founded() {
			noteExpiry(c.Certificates, "ca", st.CA.Cert)
		}
	}
	return c
}

func (d *Daemon) collect(add monitor.Add) {
	m, err := d.running()
	add(metricCandidate, monitor.Bool(err == nil))
	if err != nil {
		return
	}
	raft := m.node.Stats()
	for _, s := range consensus.States {
		add(metricRaftState, monitor.Bool(s == raft.State), s)
	}
	add(metricTerm, float64(raft.Term))
	add(metricLast, float64(raft.LastIndex))
	add(metricCommit, float64(raft.CommitIndex))
	add(metricApplied, float64(raft.AppliedIndex))
	add(metricVoters, float64(raft.Voters))
	add(metricLeader, monitor.Bool(raft.Leader))
	st, l := m.node.State(), m.office.holder()
	add(metricMaster, monitor.Bool(l != nil))
	if !st.Founded() {
		return
	}
	collectState(add, st)
	if l != nil {
		add(metricUnacked, float64(l.unacknowledged(st)))
	}
}

func collectState(add monitor.Add, st *state.State) {
	add(metricLevel, float64(st.FeatureLevel))
	roles := map[cluster.Role]int{}
	for id, n := range st.Nodes {
		roles[n.Flags.Role(id == st.Master)]++
	}
	for r := range cluster.RoleOffline + 1 {
		add(metricNodes, float64(roles[r]), r.String())
	}
	jobs := map[state.JobStatus]int{}
	for _, j := range st.Jobs {
		jobs[j.Status]++
	}
	for _, s := range state.JobStatuses() {
		add(metricJobs, float64(jobs[s]), string(s))
	}
}

// unacknowledged counts the nodes that have not confirmed that they follow the
// newest map.
func (l *leader) unacknowledged(st *state.State) int {
	at, n := l.held().At(), 0
	for id, node := range st.Nodes {
		if c := l.push.reach.of(id); !node.Flags.Offline && (at.Newer(c.ack.Version) || !c.enforces()) {
			n++
		}
	}
	return n
}

// ready tells why this daemon cannot do its part; one that idles can.
func (d *Daemon) ready() error {
	d.mu.Lock()
	m, problem, self := d.member, d.problem, d.self
	d.mu.Unlock()
	switch {
	case m == nil && problem != nil:
		return problem
	case m == nil && self != nil && self.keeper.View().Map.Candidate(self.node) != nil:
		return errors.New("the candidate is starting")
	case m == nil:
		return nil
	case m.node.Leader() == "":
		return cluster.Errorf(cluster.CodeNoQuorum, "raft has no leader")
	case !m.node.State().Founded():
		return cluster.Errorf(cluster.CodeUnavailable, "the cluster's state is not here yet")
	}
	return nil
}

// noteExpiry notes when a certificate ends, if it is one.
func noteExpiry(ends map[string]time.Time, kind string, der []byte) {
	if cert, err := pki.ParseCertDER(der); err == nil {
		ends[kind] = cert.NotAfter
	}
}
