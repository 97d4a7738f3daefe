package noded

import (
	"time"

	"rolekey/candmap/gossip"
	"rolekey/cluster"
	"rolekey/internal/monitor"
)

// What noded tells beside what both daemons do.
var (
	metricMember    = monitor.Gauge("rolekey_node_member", "Whether the node serves a cluster.")
	metricCandidate = monitor.Gauge("rolekey_node_candidate", "Whether the map names the node as a candidate.")
	metricMaster    = monitor.Gauge("rolekey_node_master", "Whether the map names the node as the master.")
	metricAddress   = monitor.Gauge("rolekey_node_holds_cluster_address", "Whether the node holds the cluster address.")
	metricAddressNo = monitor.Gauge("rolekey_node_cluster_address_problem", "Whether the cluster address is not as it should be on this node.")
	metricLease     = monitor.Gauge("rolekey_map_lease_seconds", "Lease of the map in force.")
	metricSkew      = monitor.Gauge("rolekey_clock_skew_seconds", "How far the clock is ahead of the signers'.")
	metricSSH       = monitor.Gauge("rolekey_ssh_expiry_timestamp_seconds", "Until when sshd honours the authorized keys; 0: none.")
	metricReceived  = monitor.Counter("rolekey_gossip_received_total", "Announcements received.")
	metricNews      = monitor.Counter("rolekey_gossip_news_total", "Announcements that were news, and passed on.")
	metricDropped   = monitor.Counter("rolekey_gossip_dropped_total", "What gossip did not take, by reason.", "reason")
)

var metricDescs = []monitor.Desc{
	metricMember, metricCandidate, metricMaster, metricAddress, metricAddressNo, metricLease, metricSkew, metricSSH, metricReceived, metricNews, metricDropped,
}

// newMonitor makes the endpoint for those who watch this daemon.
func (d *Daemon) newMonitor() (*monitor.Server, error) {
	return monitor.New(monitor.Config{
		Addr: d.cfg.MetricsAddress, Common: d.common, Descs: metricDescs, Collect: d.collect, Ready: d.ready, Log: d.log.Named("monitor"),
	})
}

func (d *Daemon) common() monitor.Common {
	c := monitor.Common{AuditLost: d.audit.Lost()}
	m := d.current()
	if m == nil {
		return c
	}
	c.Version, c.Fresh, c.Forks = m.keeper.View().At(), m.keeper.Fresh(), m.keeper.Forks()
	c.Age = m.keeper.Lease().Age(m.cfg.clocks()())
	c.Refusals, c.Certificates = m.server.Refusals(), map[string]time.Time{}
	for name, kind := range map[string]string{serverPair: "server", identityPair: "identity"} {
		if id, err := m.certs[name].identity(); err == nil {
			c.Certificates[kind] = id.NotAfter
		}
	}
	return c
}

func (d *Daemon) collect(add monitor.Add) {
	m := d.current()
	add(metricMember, monitor.Bool(m != nil))
	if m == nil {
		return
	}
	v := m.keeper.View()
	add(metricCandidate, monitor.Bool(m.candidate(v)))
	add(metricMaster, monitor.Bool(v.Map != nil && v.Map.Master == m.id.Node))
	address := m.address.Status()
	add(metricAddress, monitor.Bool(address.Held))
	add(metricAddressNo, monitor.Bool(address.Problem != ""))
	add(metricSkew, m.keeper.Lease().Skew(m.cfg.clocks()()).Seconds())
	if v.Map != nil {
		add(metricLease, v.Map.Lease().Seconds())
	}
	var until int64
	if t := m.ssh.expires(); !t.IsZero() {
		until = t.Unix()
	}
	add(metricSSH, float64(until))
	collectGossip(add, m.gossip.Stats())
}

func collectGossip(add monitor.Add, s gossip.Stats) {
	add(metricReceived, float64(s.Received))
	add(metricNews, float64(s.News))
	for reason, n := range map[string]uint64{
		"malformed": s.Malformed, "unproven": s.Unproven, "forked": s.Forked, "no_map": s.NoMap, "old": s.Old, "unread": s.Dropped,
		"too_large": s.TooLarge, "stranger": s.Strangers, "stream": s.Streams, "packet": s.Packets, "refused": s.Refused,
	} {
		add(metricDropped, float64(n), reason)
	}
}

// ready tells why this node does not gate calls by a complete and fresh map.
func (d *Daemon) ready() error {
	d.mu.Lock()
	m, problem := d.member, d.problem
	d.mu.Unlock()
	switch {
	case m == nil && problem != nil:
		return problem
	case m == nil:
		return cluster.Errorf(cluster.CodeNoMap, "this node is in no cluster")
	}
	v := m.keeper.View()
	switch {
	case v.Map == nil:
		return cluster.Errorf(cluster.CodeNoMap, "this node holds no map")
	case !m.keeper.Fresh():
		return cluster.Errorf(cluster.CodeMapStale, "map %s is stale", v.At())
	case !v.Complete():
		return cluster.Errorf(cluster.CodeNoMap, "the roster of map %s is not complete", v.At())
	case m.self() == nil:
		return cluster.Errorf(cluster.CodeNotInRoster, "the cluster no longer lists this node")
	}
	return nil
}
