package sshconfig

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
)

// The %-tokens that keywords take, beside %%. See TOKENS in ssh_config(5).
const (
	allTokens   = "CdhijklLnpru" // most
	hostTokens  = "h"            // HostName
	proxyTokens = "hnpr"         // ProxyCommand and ProxyJump
)

// tokens are what the %-tokens stand for.
type tokens struct {
	c          *Config
	host       string // %h
	original   string // %n
	user, port string // %r, %p
	alias      string // %k
	jump       string // %j
}

func (t *tokens) value(token byte) string {
	switch token {
	case 'C':
		sum := sha1.Sum([]byte(t.c.localHost + t.host + t.port + t.user + t.jump))
		return hex.EncodeToString(sum[:])
	case 'd':
		return t.c.home
	case 'h':
		return t.host
	case 'i':
		return t.c.uid
	case 'j':
		return t.jump
	case 'k':
		return t.alias
	case 'l':
		return t.c.localHost
	case 'L':
		short, _, _ := strings.Cut(t.c.localHost, ".")
		return short
	case 'n':
		return t.original
	case 'p':
		return t.port
	case 'r':
		return t.user
	default: // 'u'
		return t.c.localUser
	}
}

// What an argument may hold beside plain text.
type expansion uint8

const (
	percents  expansion = 1 << iota // %-tokens, and %% for a %
	variables                       // ${NAME}
)

// expand replaces what kinds names: the tokens among allowed, with the values of t, and variables of the environment. All are
// replaced at once: what a value holds stays as it is.
func expand(s string, kinds expansion, allowed string, t *tokens) (string, error) {
	if !strings.ContainsAny(s, "%$") {
		return s, nil
	}
	var out strings.Builder
	for s != "" {
		switch {
		case kinds&variables != 0 && strings.HasPrefix(s, "${"):
			name, rest, closed := strings.Cut(s[2:], "}")
			if !closed || name == "" {
				return "", fmt.Errorf("%q is not ${NAME}", s)
			}
			value, ok := os.LookupEnv(name)
			if !ok {
				return "", fmt.Errorf("${%s} is not in the environment: set it, or write its value", name)
			}
			out.WriteString(value)
			s = rest
		case kinds&percents == 0 || s[0] != '%':
			out.WriteByte(s[0])
			s = s[1:]
		case strings.HasPrefix(s, "%%"):
			out.WriteByte('%')
			s = s[2:]
		case len(s) == 1:
			return "", errors.New("it ends with a %: write %% for one")
		case strings.IndexByte(allowed, s[1]) < 0:
			return "", fmt.Errorf("%q is no token here: write %%%% for a %%", s[:2])
		default:
			out.WriteString(t.value(s[1]))
			s = s[2:]
		}
	}
	return out.String(), nil
}

// splitTilde cuts a leading ~ or ~user off a path and says which directory it is; rest begins with a slash or is empty.
func splitTilde(path, home string) (dir, rest string, err error) {
	if path == "" || path[0] != '~' {
		return "", path, nil
	}
	name, rest := path[1:], ""
	if slash := strings.IndexByte(name, '/'); slash >= 0 {
		name, rest = name[:slash], name[slash:]
	}
	if name == "" {
		return home, rest, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return "", "", fmt.Errorf("~%s: there is no such user: write the path out", name)
	}
	return u.HomeDir, rest, nil
}

// path expands ~ at the beginning of a path, then tokens and variables in the rest of it.
func (t *tokens) path(s string, kinds expansion) (string, error) {
	dir, rest, err := splitTilde(s, t.c.home)
	if err != nil {
		return "", err
	}
	rest, err = expand(rest, kinds, allTokens, t)
	return dir + rest, err
}
