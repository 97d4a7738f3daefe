package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"rolekey/internal/paths"
	"rolekey/masterd/rapi/openapitest"
)

// TestOpenAPIOfACluster: what real daemons answer is as openapi.yaml describes it.
func TestOpenAPIOfACluster(t *testing.T) {
	w := rested(t)
	check, err := openapitest.New()
	w.must(err)
	at := paths.Layout{Root: w.node(w.master()).Root}
	dial := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return paths.DialUnix(ctx, at.MasterdSock()) }}
	defer dial.CloseIdleConnections()
	ask := func(verb, path, body string, status int) string {
		r, err := http.NewRequestWithContext(w.ctx, verb, "http://masterd"+path, strings.NewReader(body))
		w.must(err)
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		resp, err := dial.RoundTrip(r)
		w.must(err)
		defer resp.Body.Close()
		var text bytes.Buffer
		_, err = io.Copy(&text, resp.Body)
		w.must(err)
		if resp.StatusCode != status {
			t.Errorf("%s %s: status %d: %s", verb, path, resp.StatusCode, text.String())
		}
		if err := check.Check(r, []byte(body), resp.StatusCode, resp.Header, text.Bytes()); err != nil {
			t.Errorf("%s %s, answered with %.300s: %v", verb, path, text.String(), err)
		}
		return strings.TrimSpace(text.String())
	}
	for _, path := range []string{
		"/", "/2", "/version", "/2/features", "/2/openapi.yaml", "/2/info", "/2/queue", "/2/nodes", "/2/nodes?bulk=1", "/2/tags", "/2/map", "/2/jobs",
		"/2/jobs?bulk=1", "/2/jobs/1", "/2/jobs/999999", "/2/audit?lines=1000", "/2/admissions", "/2/users", "/2/administrators",
		"/2/query/node?fields=name,role,master_capable,pip,tags,map_version", "/2/query/node/fields", "/2/query/job/fields",
	} {
		ask("GET", path, "", 200)
	}
	for _, n := range w.nodes() {
		for _, what := range []string{"", "/role", "/tags", "/state", "/details"} {
			ask("GET", "/2/nodes/"+n.Name+what, "", 200)
		}
	}
	for _, c := range [][3]string{
		{"PUT", "/2/nodes/node5.example/role", `"drained"`},
		{"PUT", "/2/nodes/node5.example/role", `"regular"`},
		{"POST", "/2/nodes/node4.example/modify", `{"master_candidate":true}`},
		{"PUT", "/2/nodes/node4.example/role?dry-run=1", `"regular"`},
		{"PUT", "/2/nodes/node4.example/role", `"regular"`},
		{"PUT", "/2/nodes/node5.example/tags?tag=blue", ""},
		{"DELETE", "/2/nodes/node5.example/tags?tag=blue", ""},
		{"POST", "/2/verify", ""},
	} {
		job := ask(c[0], c[1], c[2], 200)
		wait := `{"fields":["status","opresult"],"previous_job_info":null,"previous_log_serial":null}`
		ask("GET", "/2/jobs/"+job+"/wait", wait, 200)
		w.until("the job has ended", func(context.Context) error {
			if text := ask("GET", "/2/jobs/"+job, "", 200); !strings.Contains(text, `"status":"success"`) {
				return fmt.Errorf("job %s: %s", job, text)
			}
			return nil
		})
	}
	ask("PUT", "/2/query/job", `{"fields":["id","status","summary","ops","opresult","oplog","start_ts"],"qfilter":["=","status","success"]}`, 200)
	made := ask("POST", "/2/admissions", `{"name":"node9.example"}`, 200)
	ask("GET", "/2/admissions", "", 200)
	_, id, _ := strings.Cut(made, `"admission":{"id":"`)
	ask("DELETE", "/2/admissions/"+id[:36], "", 200)
	ask("GET", "/2/nodes/nosuch", "", 404)
	ask("GET", "/2/instances", "", 501)
	w.clean()
}
