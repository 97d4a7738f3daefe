package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"rolekey/cluster"
)

// Every one of the eight points of small order, and a second spelling of a
// point, are refused: anybody could sign under such a key.
func TestEd25519WeakKeys(t *testing.T) {
	for _, s := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	} {
		if CheckPublicKey(ed25519.PublicKey(must(hex.DecodeString(s))(t))) == nil {
			t.Errorf("%s accepted", s)
		}
	}
	// The field's prime is 2^255-19, so 0 to 18 have a second spelling.
	for low := byte(0xed); low != 0; low++ {
		key := append([]byte{low}, bytes.Repeat([]byte{0xff}, 31)...)
		for _, sign := range []byte{0x7f, 0xff} {
			key[31] = sign
			if CheckPublicKey(ed25519.PublicKey(key)) == nil {
				t.Errorf("%x accepted", key)
			}
		}
	}
	pub, _, err := GenerateSigningKey()
	if err != nil || CheckPublicKey(pub) != nil {
		t.Error("a sound key refused")
	}
}

// offCurve returns a P-256 key whose point is not on the curve.
func offCurve(t *testing.T) *ecdsa.PublicKey {
	k, _ := newKey(t).Public().(*ecdsa.PublicKey)
	bent := *k
	//lint:ignore SA1019 the deprecated field is what makes a bad key
	bent.Y = new(big.Int).Xor(k.Y, big.NewInt(1))
	return &bent
}

func TestKeyPEM(t *testing.T) {
	key := newKey(t)
	text := must(EncodeKey(key))(t)
	again := must(ParseKey(text))(t)
	if !samePublic(again, key.Public()) {
		t.Error("another key came out")
	}
	for _, bad := range [][]byte{nil, []byte("x"), append(bytes.Clone(text.Reveal()), 'x'), EncodeCert([]byte("x")), text.Reveal()[:60]} {
		if _, err := ParseKey(cluster.NewSecret(bad)); !errors.Is(err, errBadKey) {
			t.Errorf("error %v is not errBadKey", err)
		}
	}
	cert := newTestCA(t).Cert
	one := EncodeCert(cert.Raw)
	if _, err := ParseCert(append(bytes.Clone(one), one...)); err == nil {
		t.Error("two certificates accepted as one")
	}
	if _, err := ParseCert(append(bytes.Clone(one), text.Reveal()...)); err == nil {
		t.Error("a private key beside a certificate accepted")
	}
	if _, err := ParseRoots(bytes.Repeat(one, maxRoots+1)); err == nil {
		t.Error("too many roots accepted")
	}
	if _, err := ParseRoots(nil); err == nil {
		t.Error("no roots accepted")
	}
}

func TestCSR(t *testing.T) {
	_, ed, err := GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{newKey(t), ed} {
		der := must(NewCSR(key))(t)
		csr := must(ParseCSR(der))(t)
		if csr.Pin != must(PinOfKey(key.Public()))(t) {
			t.Error("another key came out")
		}
		broken := bytes.Clone(der)
		broken[len(broken)-1] ^= 1
		if _, err := ParseCSR(broken); err == nil {
			t.Error("broken signature accepted")
		}
		_, err = ParseCSR(append(bytes.Clone(der), 0))
		wantCode(t, err, cluster.CodeBadFormat)
	}
	_, err = ParseCSR(make([]byte, maxCSR+1))
	wantCode(t, err, cluster.CodeTooLarge)
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey))(t)
	_, err = ParseCSR(der)
	wantCode(t, err, cluster.CodeBadFormat)
	if _, err := NewCSR(rsaKey); err == nil {
		t.Error("made a request for an RSA key")
	}
}

func TestCSRWithForeignSignature(t *testing.T) {
	key, other := newKey(t), newKey(t)
	der := must(NewCSR(key))(t)
	mine := must(x509.MarshalPKIXPublicKey(key.Public()))(t)
	theirs := must(x509.MarshalPKIXPublicKey(other.Public()))(t)
	forged := bytes.Replace(der, mine, theirs, 1)
	if bytes.Equal(forged, der) {
		t.Fatal("nothing was replaced")
	}
	_, err := ParseCSR(forged)
	wantCode(t, err, cluster.CodeBadSignature)
}

func TestG6NothingPrintsKeys(t *testing.T) {
	ca := newTestCA(t)
	_, priv, err := GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	ca.key = hide(priv) // a slice, which fmt prints in full
	pair := Pair{Cert: ca.Cert, key: hide(priv)}
	decimal, hexa := fmt.Sprintf("%d %d %d", priv[0], priv[1], priv[2]), hex.EncodeToString(priv[:8])
	shows := func(text string) bool { return strings.Contains(text, decimal) || strings.Contains(text, hexa) }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, v := range []any{ca, *ca, pair, &pair, []any{ca, pair}} {
			text := fmt.Sprintf(verb, v)
			if shows(text) || !strings.Contains(text, "[redacted]") {
				t.Errorf("%s of %T prints %.100s", verb, v, text)
			}
		}
		// No method is called on an unexported field.
		inside := fmt.Sprintf(verb, struct {
			ca   CA
			pair Pair
		}{*ca, pair})
		if shows(inside) {
			t.Errorf("%s prints a key in an unexported field", verb)
		}
	}
	if (Pair{}).Key() != nil {
		t.Error("the zero pair has a key")
	}
}
