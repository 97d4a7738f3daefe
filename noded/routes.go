package noded

import (
	"net/http"

	"rolekey/internal/audit"
	"rolekey/rpc"
)

// routes registers all methods of noded.
func (m *member) routes() {
	m.server.Handle(rpc.MethodVersion, m.serveVersion)
	m.server.Handle(rpc.MethodHealth, m.serveHealth)
	m.server.Handle(rpc.MethodMapPut, m.putMap)
	m.server.Handle(rpc.MethodBeaconPut, m.putBeacon)
	m.server.Handle(rpc.MethodMapGet, m.getMap)
	m.server.Handle(rpc.MethodRosterGet, m.getRoster)
	m.server.Handle(rpc.MethodState, m.serveState)
	m.server.Handle(rpc.MethodFacts, m.serveFacts)
	m.server.Handle(rpc.MethodKeyCreate, m.createKey)
	m.server.Handle(rpc.MethodKeyDestroy, m.destroyKey)
	m.server.Handle(rpc.MethodCertPrepare, m.prepareCerts)
	m.server.Handle(rpc.MethodCertInstall, m.installCerts)
	m.server.Handle(rpc.MethodRepair, m.repair)
	m.server.Handle(rpc.MethodHooks, m.runHooks)
	m.server.Handle(rpc.MethodSSHProbe, m.probeSSH)
	m.server.Handle(rpc.MethodSSHSettle, m.settleSSH)
	m.server.Handle(rpc.MethodProbe, m.serveProbe)
}

// localRoutes are the calls on noded's socket, for local root and masterd.
func (d *Daemon) localRoutes() http.Handler {
	mux := http.NewServeMux()
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalInit, audited(d, audit.ClusterInit, d.serveInit))
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalJoin, audited(d, audit.ClusterJoin, d.serveJoin))
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalLeave, audited(d, audit.ClusterLeave, d.serveLeave))
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalTrust, audited(d, audit.MapTrusted, d.serveTrust))
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalEvict, audited(d, audit.Evict, d.serveEvict))
	rpc.HandleLocal(mux, http.MethodGet, rpc.LocalEvict, d.serveEvicted)
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalRecover, d.serveRecover)
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalRestore, d.serveRestore)
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalPeers, d.servePeers)
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalSSH, d.serveSSHWay)
	rpc.HandleLocal(mux, http.MethodPost, rpc.LocalAuthorizedKeys, d.serveAuthorizedKeys)
	rpc.HandleLocal(mux, http.MethodGet, rpc.LocalStatus, d.serveStatus)
	rpc.HandleLocal(mux, http.MethodGet, rpc.LocalView, d.serveView)
	return mux
}
