package rapi

import (
	_ "embed"
	"net/http"
	"sync"
)

// OpenAPI describes everything that is served.
//
//go:embed openapi.yaml
var OpenAPI []byte

var preparedOpenAPI = sync.OnceValue(func() prepared {
	p := prepareText(OpenAPI)
	p.kind = "application/yaml"
	return p
})

func openAPI(*http.Request) (any, error) { return preparedOpenAPI(), nil }
