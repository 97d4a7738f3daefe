package rpc

import "rolekey/cluster"

// Kinds of certificates of a node, as in CertificateRequest.
const (
	CertServer    = "server"
	CertIdentity  = "identity"
	CertCandidate = "candidate"
)

// CertPrepareRequest asks a node for requests for its next certificates, of new
// keys that it uses once it is told to install them. Asking again gives the same
// keys. Without kinds it only asks what the node goes by.
type CertPrepareRequest struct {
	Incarnation uint64   `json:"incarnation"`
	Kinds       []string `json:"kinds"`
}

// CertPrepareReply tells what the node goes by, and what was asked for.
type CertPrepareReply struct {
	Requests []CertRequest    `json:"requests"`
	Roots    []cluster.Digest `json:"roots"`  // SHA-256 of the authorities that it trusts
	Roster   cluster.Digest   `json:"roster"` // that it goes by; zero: none
}

// CertRequest asks for one certificate. Used is what the certificate in use is
// known by: the pin of its key, or of a candidate's certificate the digest.
type CertRequest struct {
	Kind string         `json:"kind"`
	CSR  []byte         `json:"csr"` // PKCS#10, DER
	Used cluster.Digest `json:"used"`
}

// CertInstallRequest has a node use certificates that were issued for keys which
// it prepared. It does not before its own map and roster list them.
type CertInstallRequest struct {
	Incarnation  uint64          `json:"incarnation"`
	Certificates []InstalledCert `json:"certificates"`
}

// InstalledCert is one of them.
type InstalledCert struct {
	Kind        string `json:"kind"`
	Certificate []byte `json:"certificate"` // DER
}

// CertInstallReply lists the digests of the certificates in use, in the order of
// the request.
type CertInstallReply struct {
	Used []cluster.Digest `json:"used"`
}
