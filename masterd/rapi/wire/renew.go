package wire

import "time"

// Renew is the body of a request to replace keys and certificates.
type Renew struct {
	ClusterCertificate bool    `json:"new_cluster_certificate,omitempty"`
	NodeCertificates   bool    `json:"new_node_certificates,omitempty"`
	SigningKeys        bool    `json:"new_signing_keys,omitempty"`
	GossipKey          bool    `json:"new_gossip_key,omitempty"`
	SSHKeys            bool    `json:"new_ssh_keys,omitempty"`
	RAPICertificate    bool    `json:"new_rapi_certificate,omitempty"`
	Node               string  `json:"node_name,omitempty"` // "": all
	SSHKeyType         *string `json:"ssh_key_type,omitempty"`
	SSHKeyBits         *int    `json:"ssh_key_bits,omitempty"`
}

// Any reports whether anything is to be replaced.
func (r Renew) Any() bool {
	return r.ClusterCertificate || r.NodeCertificates || r.SigningKeys || r.GossipKey || r.SSHKeys || r.RAPICertificate
}

// RAPICertificate is the body of a request to install a certificate of the
// administrator's own. Both are PEM; the chain begins with the certificate.
type RAPICertificate struct {
	Certificate []byte `json:"certificate"`
	Key         []byte `json:"key"`
}

// Renewals tells what renewals have left to be done. The master does it by itself
// when the nodes answer.
type Renewals struct {
	Behind      []RenewBehind `json:"behind"`
	Authorities int           `json:"authorities"` // that are trusted: two while one is changed
}

// RenewBehind is a node that renewals have not reached.
type RenewBehind struct {
	Node         string     `json:"node"`
	Certificates *time.Time `json:"certificates_before"` // of before then are to be replaced; null: none
	Signing      bool       `json:"signing_key"`         // is to be replaced
}
