// Package monitor serves /metrics, /healthz and /readyz of a daemon.
//
// Whoever is on the machine sees all; from elsewhere only what anybody may ask
// the daemon itself (GET /v1/health). Nothing is counted here: each scrape asks
// the daemon how things are. The server is bounded in all respects, and a port
// that is taken ends no daemon: what enforces revocations must not depend on
// what watches it.
//
// All functions may be used concurrently.
package monitor
