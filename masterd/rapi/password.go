package rapi

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"rolekey/cluster"
)

// Realm is Ganeti's, which its {HA1} hashes include.
const Realm = "Ganeti Remote API"

const (
	maxPassword = 72 // bytes; bcrypt overlooks what follows
	minPassword = 8
	maxCost     = 14      // of a hash: a second of a processor for each login
	ha1Scheme   = "{HA1}" // before a bcrypt hash: it is of the HA1 hash in lower-case hex
)

// hashCost is bcrypt's. It is a variable for tests alone.
var hashCost = bcrypt.DefaultCost

// HashPassword returns what the cluster keeps of a password.
func HashPassword(password []byte) (cluster.Secret, error) {
	switch {
	case len(password) > maxPassword:
		return cluster.Secret{}, fmt.Errorf("password of %d bytes: bcrypt takes at most %d", len(password), maxPassword)
	case len(password) < minPassword:
		return cluster.Secret{}, fmt.Errorf("password of %d bytes: want at least %d", len(password), minPassword)
	case bytes.ContainsAny(password, "\x00\r\n"):
		return cluster.Secret{}, errors.New("password with a line end or a zero byte")
	}
	return hash("", password)
}

// HashHA1 returns what the cluster keeps of a user of Ganeti whose password is
// known by its HA1 hash (RFC 7616) alone.
func HashHA1(ha1 string) (cluster.Secret, error) {
	ha1 = strings.ToLower(ha1)
	if b, err := hex.DecodeString(ha1); err != nil || len(b) != md5.Size {
		return cluster.Secret{}, errors.New("HA1 hash: want 32 hexadecimal digits")
	}
	return hash(ha1Scheme, []byte(ha1))
}

func hash(scheme string, text []byte) (cluster.Secret, error) {
	h, err := bcrypt.GenerateFromPassword(text, hashCost)
	if err != nil {
		return cluster.Secret{}, fmt.Errorf("hash password: %w", err)
	}
	return cluster.NewSecret(append([]byte(scheme), h...)), nil
}

// CheckHash refuses what is no hash of this package.
func CheckHash(kept cluster.Secret) error {
	h := bytes.TrimPrefix(kept.Reveal(), []byte(ha1Scheme))
	cost, err := bcrypt.Cost(h)
	if err != nil || cost > maxCost {
		return fmt.Errorf("the password hash is not bcrypt's, or of a cost over %d", maxCost)
	}
	return nil
}

// fits compares a password with what is kept of it. The time that it takes
// does not depend on how much of the password is right.
func fits(kept cluster.Secret, user, password string) bool {
	h, text := kept.Reveal(), []byte(password)
	if rest, ok := bytes.CutPrefix(h, []byte(ha1Scheme)); ok {
		sum := md5.Sum([]byte(user + ":" + Realm + ":" + password))
		h, text = rest, []byte(hex.EncodeToString(sum[:]))
	}
	return bcrypt.CompareHashAndPassword(h, text) == nil
}
