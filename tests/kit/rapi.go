package kit

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"

	"rolekey/internal/lab"
	"rolekey/internal/paths"
)

// RAPI speaks to a node's masterd on its socket, as the commands do, without
// the time that it takes to start a program.
type RAPI struct {
	http           http.Client
	base           string
	user, password string
}

// NewRAPI makes a client of the masterd of a node.
func NewRAPI(n lab.Node) *RAPI {
	at := paths.Layout{Root: n.Root}
	return &RAPI{base: "http://masterd", http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return paths.DialUnix(ctx, at.MasterdSock()) },
	}}}
}

// NewRemoteRAPI makes a client over HTTPS that, like Ganeti's by default,
// verifies nothing.
func NewRemoteRAPI(host, user, password string) *RAPI {
	return &RAPI{base: "https://" + host, user: user, password: password, http: http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}}
}

// Close closes the connections.
func (r *RAPI) Close() { r.http.CloseIdleConnections() }

// Call makes a call; a refusal is an error. out may be nil.
func (r *RAPI) Call(ctx context.Context, verb, path string, in, out any) error {
	text, err := encode(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, verb, r.base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if len(text) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.user != "" {
		req.SetBasicAuth(r.user, r.password)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	a, err := readAnswer(resp)
	switch {
	case err != nil:
		return err
	case !a.OK():
		return fmt.Errorf("%s %s: %d: %s", verb, path, a.Status, a.Message)
	case out == nil:
		return nil
	}
	return json.Unmarshal(a.Body, out)
}

// Modify submits a change of a node's flags and returns the job's number.
func (r *RAPI) Modify(ctx context.Context, node string, flags map[string]bool) (job int64, err error) {
	err = r.Call(ctx, http.MethodPost, "/2/nodes/"+node+"/modify", flags, &job)
	return job, err
}

// Done returns nil when a job has ended well.
func (r *RAPI) Done(ctx context.Context, job int64) error {
	var j struct {
		Status string `json:"status"`
	}
	if err := r.Call(ctx, http.MethodGet, fmt.Sprintf("/2/jobs/%d", job), nil, &j); err != nil {
		return err
	}
	if j.Status != "success" {
		return fmt.Errorf("job %d: %s", job, j.Status)
	}
	return nil
}

// Wait waits until a job has ended, and returns nil when it has ended well.
func (r *RAPI) Wait(ctx context.Context, job int64) error {
	ask := map[string]any{"fields": []string{"status"}, "previous_job_info": []string{}, "previous_log_serial": nil}
	for {
		var news *struct {
			Info []string `json:"job_info"`
		}
		if err := r.Call(ctx, http.MethodGet, fmt.Sprintf("/2/jobs/%d/wait", job), ask, &news); err != nil {
			return err
		}
		if news == nil {
			continue // nothing has changed for long
		}
		ask["previous_job_info"], ask["previous_log_serial"] = news.Info, int64(1<<62)
		switch news.Info[0] {
		case "success":
			return nil
		case "error", "canceled":
			return fmt.Errorf("job %d: %s", job, news.Info[0])
		}
	}
}

// Everywhere returns nil when a job says that its change is in force on all of
// so many nodes.
func (r *RAPI) Everywhere(ctx context.Context, job int64, nodes int) error {
	var j struct {
		Progress []struct {
			Text string `json:"text"`
		} `json:"progress"`
	}
	if err := r.Call(ctx, http.MethodGet, fmt.Sprintf("/2/jobs/%d", job), nil, &j); err != nil {
		return err
	}
	want := fmt.Sprintf("effective on %d of %d nodes", nodes, nodes)
	if len(j.Progress) == 0 || j.Progress[0].Text != want {
		return fmt.Errorf("job %d says %v, want %q", job, j.Progress, want)
	}
	return nil
}
