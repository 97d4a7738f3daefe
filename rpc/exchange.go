package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"rolekey/cluster"
)

// outgoing is a call on its way out; it may be sent several times.
type outgoing struct {
	method *Method
	path   string
	query  string
	body   []byte
	stream io.Reader // instead of body; sent once
	raw    bool
	stamp  Stamp
	id     string
	resp   any
}

func newOutgoing(ctx context.Context, m *Method, arg string, req, resp any) (*outgoing, error) {
	out := &outgoing{method: m, path: m.Path, id: requestIDOf(ctx), resp: resp}
	if err := out.setArg(arg); err != nil {
		return nil, err
	}
	switch v := req.(type) {
	case nil:
	case []byte:
		out.body, out.raw = v, true
	case io.Reader:
		out.stream, out.raw = v, true
	default:
		var err error
		if out.body, err = encode(v); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	if int64(len(out.body)) > m.MaxBody {
		return nil, errTooLarge(m.MaxBody)
	}
	return out, nil
}

func encode(req any) ([]byte, error) {
	if d, ok := req.(MapDelivery); ok {
		return d.encode()
	}
	return json.Marshal(req)
}

func (o *outgoing) setArg(arg string) error {
	if name := o.method.variable(); name != "" {
		if arg == "" || strings.Trim(arg, argChars) != "" {
			return fmt.Errorf("bad argument %q", arg)
		}
		o.path = strings.Replace(o.path, "{"+name+"}", arg, 1)
		return nil
	}
	if arg != "" && o.method.Query == "" {
		return fmt.Errorf("unwanted argument %q", arg)
	}
	if arg != "" {
		o.query = url.Values{o.method.Query: {arg}}.Encode()
	}
	return nil
}

const argChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// repeatable reports whether the call can be sent again.
func (o *outgoing) repeatable() bool { return o.stream == nil }

func (o *outgoing) request(ctx context.Context, host string) *http.Request {
	r := &http.Request{
		Method: o.method.Verb, Host: host,
		URL:   &url.URL{Scheme: "https", Host: host, Path: o.path, RawQuery: o.query},
		Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{RequestIDHeader: {o.id}},
	}
	switch {
	case o.stream != nil:
		// HTTP closes a body whose call has ended, so that no read hangs.
		body, ok := o.stream.(io.ReadCloser)
		if !ok {
			body = io.NopCloser(o.stream)
		}
		r.Body, r.ContentLength = body, -1
	case len(o.body) > 0:
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(o.body)), int64(len(o.body))
	}
	if r.Body != nil {
		r.Header["Content-Type"] = contentJSON
		if o.raw {
			r.Header["Content-Type"] = contentRaw
		}
	}
	if o.method.Mutating {
		r.Header[StampHeader] = []string{o.stamp.String()}
	}
	return r.WithContext(ctx)
}

// exchange sends the call and takes the answer. Answered says that the server
// did answer, be it with a refusal.
func (o *outgoing) exchange(ctx context.Context, via http.RoundTripper, host, node string) (answered bool, err error) {
	answer, err := via.RoundTrip(o.request(ctx, host))
	if err != nil {
		return false, fmt.Errorf("call %s: %w", o.method.Name, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		err = o.decode(answer.Body)
	} else {
		err = readRefusal(answer.StatusCode, answer.Body, node)
	}
	var coded *cluster.Error
	if err != nil && !errors.As(err, &coded) {
		return false, fmt.Errorf("call %s: read answer: %w", o.method.Name, err)
	}
	if coded != nil && coded.Node == "" {
		coded.Node = node
	}
	return true, err
}

func (o *outgoing) decode(body io.Reader) error {
	limit := o.method.maxReply()
	bounded := &io.LimitedReader{R: body, N: limit + 1}
	if w, ok := o.resp.(io.Writer); ok {
		_, err := io.Copy(w, bounded)
		return tooLong(bounded, limit, err)
	}
	text, err := io.ReadAll(bounded)
	if err := tooLong(bounded, limit, err); err != nil {
		return err
	}
	switch v := o.resp.(type) {
	case nil:
		return nil
	case *[]byte:
		*v = text
		return nil
	}
	// Fields that a newer server added are no reason to fail.
	if err := json.Unmarshal(text, o.resp); err != nil {
		return cluster.Errorf(cluster.CodeBadFormat, "call %s: answer: %v", o.method.Name, err)
	}
	return nil
}

func tooLong(r *io.LimitedReader, limit int64, err error) error {
	if err == nil && r.N <= 0 {
		return cluster.Errorf(cluster.CodeTooLarge, "the answer is larger than %d bytes", limit)
	}
	return err
}
