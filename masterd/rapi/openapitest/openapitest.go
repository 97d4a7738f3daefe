// Package openapitest holds answers of RAPI against openapi.yaml, which describes
// them. A Checker may be used concurrently.
package openapitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"rolekey/masterd/rapi"
)

// Checker knows the document.
type Checker struct {
	Doc    *openapi3.T
	router routers.Router
}

// New reads the document, which must be sound in itself.
var New = sync.OnceValues(func() (*Checker, error) {
	doc, err := openapi3.NewLoader().LoadFromData(rapi.OpenAPI)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, fmt.Errorf("check openapi.yaml: %w", err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, fmt.Errorf("check the paths of openapi.yaml: %w", err)
	}
	return &Checker{doc, router}, nil
})

// Operations lists all: method and path.
func (c *Checker) Operations() []string {
	var out []string
	for path, item := range c.Doc.Paths.Map() {
		for verb := range item.Operations() {
			out = append(out, verb+" "+path)
		}
	}
	slices.Sort(out)
	return out
}

// Operation names the one that a request is for; "": none.
func (c *Checker) Operation(r *http.Request) string {
	route, _, err := c.router.FindRoute(r)
	if err != nil {
		return ""
	}
	return route.Method + " " + route.Path
}

// Check returns what an answer, or a request that was taken, has that the document
// does not say. A path that the document does not have must have been refused.
func (c *Checker) Check(r *http.Request, body []byte, status int, header http.Header, answer []byte) error {
	route, params, err := c.router.FindRoute(r)
	if err != nil {
		return c.refused(status, answer, err)
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, MultiError: true}
	options.WithCustomSchemaErrorFunc(func(e *openapi3.SchemaError) string { return fmt.Sprintf("%v: %s", e.JSONPointer(), e.Reason) })
	asked := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route, Options: options}
	if status == http.StatusOK {
		err = openapi3filter.ValidateRequest(r.Context(), asked)
	}
	told := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: asked, Status: status, Header: header, Options: options, Body: io.NopCloser(bytes.NewReader(answer)),
	}
	return errors.Join(err, openapi3filter.ValidateResponse(r.Context(), told))
}

// refused checks the answer to a request that the document does not know.
func (c *Checker) refused(status int, answer []byte, why error) error {
	if status < 400 {
		return fmt.Errorf("the document does not have it (%w), and the answer is %d", why, status)
	}
	var body any
	if err := json.Unmarshal(answer, &body); err != nil {
		return fmt.Errorf("read the refusal: %w", err)
	}
	return c.Doc.Components.Schemas["Error"].Value.VisitJSON(body)
}
