package rapi

import (
	"fmt"
	"slices"
	"strings"

	"rolekey/cluster"
	"rolekey/masterd/state"
)

// maxUsersFile is how many lines of a users file are read.
const maxUsersFile = 10000

// ParseUsers reads Ganeti's file of users: lines "name password [options]",
// with the password in clear, as {cleartext}… or as {HA1}…, the scheme in any
// case, and options read and write. What cannot be taken over is told by line,
// without its password.
func ParseUsers(text []byte) (users []state.RAPIUser, problems []string) {
	seen := map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		u, err := parseUser(fields)
		if err == nil && seen[u.Name] {
			err = fmt.Errorf("user %s is listed twice", u.Name)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("line %d: %v", i+1, err))
			continue
		}
		seen[u.Name] = true
		users = append(users, u)
		if len(users) > state.MaxRAPIUsers || i > maxUsersFile {
			return nil, append(problems, fmt.Sprintf("more than %d users", state.MaxRAPIUsers))
		}
	}
	return users, problems
}

func parseUser(fields []string) (state.RAPIUser, error) {
	u := state.RAPIUser{Name: fields[0], Permission: cluster.PermissionRead}
	if err := state.CheckRAPIName(u.Name); err != nil {
		return u, err
	}
	if len(fields) < 2 || len(fields) > 3 {
		return u, fmt.Errorf("user %s: want name, password and perhaps options", u.Name)
	}
	if len(fields) == 3 {
		options := strings.Split(fields[2], ",")
		for _, o := range options {
			if o != "read" && o != "write" {
				return u, fmt.Errorf("user %s: option %.40q is not known; want read, write", u.Name, o)
			}
		}
		if slices.Contains(options, "write") {
			u.Permission = cluster.PermissionWrite
		}
	}
	var err error
	u.Hash, err = importHash(fields[1])
	if err != nil {
		return u, fmt.Errorf("user %s: %w", u.Name, err)
	}
	return u, nil
}

func importHash(password string) (cluster.Secret, error) {
	scheme, rest, found := strings.Cut(password, "}")
	if !strings.HasPrefix(password, "{") || !found {
		return HashPassword([]byte(password))
	}
	switch strings.ToLower(scheme[1:]) {
	case "cleartext":
		return HashPassword([]byte(rest))
	case "ha1":
		return HashHA1(rest)
	}
	return cluster.Secret{}, fmt.Errorf("the password scheme {%.20s} is not known", scheme[1:])
}
