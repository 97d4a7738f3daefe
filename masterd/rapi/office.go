package rapi

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"rolekey/cluster"
	"rolekey/internal/audit"
	"rolekey/masterd/rapi/wire"
)

// failover hands the office of master to another candidate, as gnt-cluster
// master-failover --to does. It is no job: see docs/rapi.rst.
func (a *api) failover(r *http.Request) (any, error) {
	var body wire.Failover
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.To == "" || len(body.To) > 253 {
		return nil, badRequest("Required parameter 'to' is missing")
	}
	if err := a.b.Ready(); err != nil {
		return nil, err
	}
	done, err := a.b.Failover(r.Context(), body.To, audit.Caller{Actor: actor(r), Remote: r.RemoteAddr, RequestID: requestID(r)})
	if err != nil {
		return nil, err
	}
	out := wire.FailoverDone{Master: done.Master, Previous: done.Previous, MapEpoch: done.Version.Epoch, MapVersion: done.Version.Version}
	out.Steps = append([]string{}, done.Steps...)
	return out, nil
}

// defaultTail is how many lines of the audit log are told unless asked otherwise.
const defaultTail = 100

// audit tells the end of this candidate's audit log.
func (a *api) audit(r *http.Request) (any, error) {
	q := r.URL.Query()
	n, err := strconv.Atoi(cmp.Or(q.Get("lines"), strconv.Itoa(defaultTail)))
	if err != nil || n < 1 || n > audit.MaxTail {
		return nil, badRequest("Invalid value for parameter 'lines'")
	}
	var since time.Time
	if text := q.Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			return nil, badRequest("Invalid value for parameter 'since'")
		}
	}
	out := wire.Audit{Node: a.b.Self(), Lines: []wire.AuditLine{}}
	lines, more, err := a.b.Audit(n, since)
	if err != nil {
		return nil, err
	}
	out.Lines, out.More = append(out.Lines, lines...), more
	return out, nil
}

// masterURL is where a master serves RAPI; "": it is not known. Clients are told
// it and not sent there: a redirect would have them show their password to
// whoever answers.
func masterURL(b Backend, master string) string {
	s, err := b.State()
	if err != nil || master == "" {
		return ""
	}
	n := s.NodeByName(cluster.Name(master))
	if n == nil {
		return ""
	}
	return fmt.Sprintf("https://%s:%d", n.Name, n.Ports.RAPI)
}
