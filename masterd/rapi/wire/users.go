package wire

import (
	"time"

	"rolekey/cluster"
)

// User is a user of the remote API.
type User struct {
	Name       string             `json:"name"`
	Permission cluster.Permission `json:"permission"`
	Changed    time.Time          `json:"changed"`
}

// UserSet is the body of a request to add or change a user. Hash is of the
// password, as rapi.HashPassword or rapi.HashHA1 makes it.
type UserSet struct {
	Permission cluster.Permission `json:"permission"`
	Hash       []byte             `json:"hash,omitempty"` // empty: the password stays
}

// Administrator uses the remote API with a client certificate.
type Administrator struct {
	Name       string             `json:"name"`
	Permission cluster.Permission `json:"permission"`
	Digest     cluster.Digest     `json:"digest"` // SHA-256 of the DER certificate
	NotAfter   time.Time          `json:"not_after"`
	Changed    time.Time          `json:"changed"`
}

// AdministratorSet is the body of a request for an administrator's certificate.
type AdministratorSet struct {
	Permission cluster.Permission `json:"permission"`
	CSR        []byte             `json:"csr"` // PKCS#10, DER
	Days       int                `json:"days"`
}

// AdministratorCert is the certificate of an administrator.
type AdministratorCert struct {
	Administrator
	Certificate []byte `json:"certificate"` // DER
	CA          []byte `json:"ca"`          // DER, by which RAPI's servers are verified
}
