// Package pki makes and checks the cluster's certificates, admission strings
// and proofs of possession. Formats are specified in docs/admission.rst.
//
// It guarantees:
//   - a certificate says only what its issuer wrote; of a certificate request
//     the public key alone is used (RFC 2986, RFC 5280);
//   - a certificate is good for one kind of use, and Identify and VerifyChain
//     refuse every other;
//   - an admission string with a typing error is refused, and no error or
//     formatted value contains a secret part of it;
//   - every signature is over a transcript of its own domain (RFC 8032, RFC
//     8446 §7.5), so none can be used for another purpose;
//   - a pair of certificate and key on disk is whole after a crash at any
//     instant.
//
// A certificate alone opens nothing: who may do what is decided by the pins of
// the candidate map and roster, in package rpc.
//
// Everything but Files is pure and safe for concurrent use, except that a
// Table must have one owner. The methods of one Files must not run at the same
// time; the daemon that owns the pair serialises them.
package pki
