package cli

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"

	"rolekey/cluster"
	"rolekey/masterd/rapi/wire"
	"rolekey/pki"
)

// maxPEM bounds what is read of a file with a certificate.
const maxPEM = 64 << 10

// ownRAPICertificate reads and checks the administrator's own certificate; nil:
// none is to be installed. Nothing has been changed when it fails.
func (a *app) ownRAPICertificate(f *renewFlags) (*wire.RAPICertificate, error) {
	if f.certFile == "" {
		return nil, nil
	}
	chain, key, err := readPEM(f.certFile)
	if err != nil {
		return nil, err
	}
	if f.keyFile != "" {
		_, own, err := readPEM(f.keyFile)
		switch {
		case err != nil:
			return nil, err
		case len(key) > 0:
			return nil, usage("%s holds a key already, so --rapi-key is one too many", f.certFile)
		}
		key = own
	}
	switch {
	case len(chain) == 0:
		return nil, usage("Unable to load X509 certificate from %s: it holds none in PEM", f.certFile)
	case len(key) == 0:
		return nil, usage("Unable to load X509 certificate from %s: its private key is missing; put it into the file, or name it with --rapi-key", f.certFile)
	}
	if _, err := pki.WebPair(chain, cluster.NewSecret(key), a.now()); err != nil {
		return nil, usage("Unable to load X509 certificate from %s: %v", f.certFile, err)
	}
	return &wire.RAPICertificate{Certificate: chain, Key: key}, nil
}

// readPEM sorts the blocks of a file into certificates and a key.
func readPEM(path string) (chain, key []byte, err error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, nil, usage("Unable to load X509 certificate from %s: %v", path, err)
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxPEM+1))
	switch {
	case err != nil:
		return nil, nil, usage("Unable to load X509 certificate from %s: %v", path, err)
	case len(text) > maxPEM:
		return nil, nil, usage("Unable to load X509 certificate from %s: it has over %d bytes", path, maxPEM)
	}
	var certs, keys bytes.Buffer
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return certs.Bytes(), keys.Bytes(), nil
		}
		into := &certs
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			into = &keys
		} else if block.Type != "CERTIFICATE" {
			continue // such as the parameters of a curve
		}
		if err := pem.Encode(into, block); err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
}
