package pki

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
)

// Whatever parses is canonical: it encodes to the same text.
func FuzzParseToken(f *testing.F) {
	for _, v := range tokenVectors(f) {
		f.Add(v.Text, false)
		f.Add(v.Text[:len(v.Text)-tokenSumChars], true)
	}
	f.Add("rk1.", true)
	f.Add("rk2.x", false)
	f.Fuzz(func(t *testing.T, text string, sum bool) {
		if sum { // let the fuzzer past the checksum
			text += tokenSum(text)
		}
		tok, err := ParseToken(text)
		if err != nil {
			if body := strings.Trim(text, whitespace); len(body) > 20 && strings.Contains(err.Error(), body[4:]) {
				t.Fatalf("the error quotes the string: %v", err)
			}
			return
		}
		if tok.Encode() != strings.Trim(text, whitespace) {
			t.Fatalf("%q encodes to %q", text, tok.Encode())
		}
		if err := tok.Fields().check(); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever parses carries a key that a certificate can be issued for.
func FuzzParseCSR(f *testing.F) {
	der, err := NewCSR(newKey(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	_, ed, err := GenerateSigningKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(must(NewCSR(ed))(f))
	ca := newTestCA(f)
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := ParseCSR(der)
		if err != nil {
			return
		}
		r := Request{Kind: KindServer, Node: testNode, Name: "n.example", PublicKey: csr.PublicKey}
		cert := issue(t, ca, r)
		if PinOf(cert) != csr.Pin {
			t.Fatal("the certificate has another key")
		}
	})
}

// Whatever is identified could have been written by Issue: issued again from
// what was read, it has the same identity.
func FuzzIdentify(f *testing.F) {
	ca := newTestCA(f)
	for _, kind := range allKinds {
		f.Add(issue(f, ca, request(f, kind)).Raw)
	}
	f.Add(ca.Cert.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		id, err := Identify(cert)
		if err != nil {
			return
		}
		again := issue(t, ca, Request{Kind: id.Kind, Node: id.Node, Name: id.Name, Addresses: id.Addresses, PublicKey: cert.PublicKey})
		if !bytes.Equal(again.RawSubjectPublicKeyInfo, cert.RawSubjectPublicKeyInfo) {
			t.Fatal("the key has two encodings")
		}
		id2, err := Identify(again)
		if err != nil || id2.Node != id.Node || id2.Kind != id.Kind || id2.Name != id.Name || id2.Pin != id.Pin {
			t.Fatalf("%+v is issued as %+v, %v", id, id2, err)
		}
	})
}
