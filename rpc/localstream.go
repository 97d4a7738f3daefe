package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// aboutHeader says in JSON what a stream is.
const aboutHeader = "Rolekey-About"

// HandleLocalStream serves a call whose answer is no JSON. The handler returns
// what the stream is, and what writes it; its error then cuts the stream off.
func HandleLocalStream[T any](m *http.ServeMux, verb, path string, h func(ctx context.Context, req *T) (about any, write func(io.Writer) error, err error)) {
	m.HandleFunc(verb+" "+path, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, localBody)
		var req T
		if err := decodeBody(r, &req); err != nil {
			refuseLocal(w, r, err)
			return
		}
		about, write, err := h(context.WithValue(r.Context(), localKey{}, r), &req)
		if err != nil {
			refuseLocal(w, r, err)
			return
		}
		text, err := json.Marshal(about)
		if err != nil {
			refuseLocal(w, r, fmt.Errorf("encode answer: %w", err))
			return
		}
		w.Header().Set(aboutHeader, string(text))
		w.Header().Set("Content-Type", "application/octet-stream")
		if err := write(w); err != nil {
			panic(http.ErrAbortHandler) // the caller sees that the end is missing
		}
	})
}

// Stream makes a call that HandleLocalStream serves, and copies the answer.
func (c *LocalClient) Stream(ctx context.Context, verb, path string, req, about any, to io.Writer) error {
	text, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, verb, "http://local"+path, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("make local call: %w", err)
	}
	r.Header["Content-Type"] = contentJSON
	answer, err := c.http.Do(r)
	if err != nil {
		return unanswered(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return readRefusal(answer.StatusCode, answer.Body, "")
	}
	if err := json.Unmarshal([]byte(answer.Header.Get(aboutHeader)), about); err != nil {
		return fmt.Errorf("read local answer: %w", err)
	}
	if _, err := io.Copy(to, answer.Body); err != nil {
		return fmt.Errorf("read local answer: %w", err)
	}
	return nil
}
