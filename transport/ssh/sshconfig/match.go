package sshconfig

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// A criterion is one word of a Match line, with its argument.
type criterion struct {
	kind     matchKind
	negated  bool
	arg      string
	networks []network // of localnetwork
}

type matchKind uint8

const (
	matchAll matchKind = iota
	matchCanonical
	matchFinal
	matchHost
	matchOriginalHost
	matchUser
	matchLocalUser
	matchLocalNetwork
	matchTagged
	matchSessionType
	matchVersion
	matchCommand
	matchExec
)

var matchKinds = map[string]matchKind{
	"all": matchAll, "canonical": matchCanonical, "final": matchFinal, "host": matchHost, "originalhost": matchOriginalHost,
	"user": matchUser, "localuser": matchLocalUser, "localnetwork": matchLocalNetwork, "tagged": matchTagged,
	"sessiontype": matchSessionType, "version": matchVersion, "command": matchCommand, "exec": matchExec,
}

// program is what Match version is compared with: this is no OpenSSH.
const program = "multi-rsh"

// parseMatch reads a Match line. An argument follows its word behind a space or one '='.
func parseMatch(d *directive) ([]criterion, error) {
	var criteria []criterion
	args := d.args
	for len(args) > 0 {
		name, arg, assigned := strings.Cut(args[0], "=")
		args = args[1:]
		var c criterion
		name, c.negated = strings.CutPrefix(name, "!")
		var ok bool
		if c.kind, ok = matchKinds[strings.ToLower(name)]; !ok {
			return nil, fmt.Errorf("%q is no criterion that ssh has", name)
		}
		if c.kind <= matchFinal {
			if assigned {
				return nil, fmt.Errorf("%s takes no argument", name)
			}
			if c.kind == matchAll && (len(args) > 0 || len(criteria) > 1) {
				return nil, errors.New("all stands alone, or behind one other criterion")
			}
			criteria = append(criteria, c)
			continue
		}
		if !assigned && len(args) > 0 {
			arg, assigned = strings.CutPrefix(args[0], "=")
			args = args[1:]
		}
		if assigned && arg == "" && len(args) > 0 { // "host = x"
			arg, args = args[0], args[1:]
		}
		if arg == "" && c.kind != matchTagged && c.kind != matchCommand {
			return nil, fmt.Errorf("%s says nothing: add what it is to be", name)
		}
		c.arg = arg
		if c.kind == matchLocalNetwork {
			var err error
			if c.networks, err = parseNetworks(arg); err != nil {
				return nil, err
			}
		}
		criteria = append(criteria, c)
	}
	if len(criteria) == 0 {
		return nil, errors.New("it says nothing: \"Match all\" is for every host")
	}
	return criteria, nil
}

// matches is whether all criteria of a Match line hold.
func (e *evaluation) matches(b *block) (bool, error) {
	for i := range b.criteria {
		c := &b.criteria[i]
		holds, err := e.holds(c)
		if err != nil {
			return false, b.at.errorf("Match: %w", err)
		}
		if holds == c.negated || c.kind == matchCommand {
			return false, nil
		}
	}
	return true, nil
}

// holds is whether one criterion does, before its negation.
func (e *evaluation) holds(c *criterion) (bool, error) {
	switch c.kind {
	case matchAll:
		return true, nil
	case matchCanonical, matchFinal: // the same to ssh: the second pass
		return e.final, nil
	case matchHost:
		host, err := e.hostName()
		return matchList(strings.ToLower(host), c.arg, true), err
	case matchOriginalHost:
		return matchList(strings.ToLower(e.target.Host), c.arg, true), nil
	case matchUser:
		return matchList(e.user(), c.arg, false), nil
	case matchLocalUser:
		return matchList(e.c.localUser, c.arg, false), nil
	case matchLocalNetwork:
		for _, addr := range e.c.addresses() {
			if matchNetworks(addr, c.networks) {
				return true, nil
			}
		}
		return false, nil
	case matchTagged:
		tag := ""
		if d := e.values[slotTag]; d != nil {
			tag = d.args[0]
		}
		return tag == c.arg || tag != "" && matchList(tag, c.arg, false), nil
	case matchSessionType: // every session of ours runs a command
		return matchList("exec", c.arg, false), nil
	case matchVersion:
		return matchList(program, c.arg, false), nil
	case matchCommand: // settings are those of a host, whatever it is to run
		e.ignore("Match command")
		return false, nil
	default:
		host, err := e.hostName()
		if err != nil {
			return false, err
		}
		tokens := e.tokens(host)
		if alias := e.values[slotHostKeyAlias]; alias == nil {
			tokens.alias = host
		} else {
			tokens.alias = alias.args[0]
		}
		command, err := expand(c.arg, percents, allTokens, &tokens)
		if err != nil {
			return false, err
		}
		return e.c.execs.run(e.ctx, command)
	}
}

// isPattern is whether a pattern of a Host line is more than a name.
func isPattern(s string) bool { return s[0] == '!' || strings.ContainsAny(s, "*?") }

// match is whether all of s is as a pattern of ssh_config(5) says: '*' is anything, '?' one byte.
func match(s, pattern string) bool {
	star, mark := -1, 0 // the last '*', and how far it reaches
	i, p := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			i++
			p++
		case star >= 0:
			mark++
			i, p = mark, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchHosts is whether the patterns of a Host line name host: at least one does, and none that begins with '!'.
func matchHosts(host string, patterns []string) bool {
	matched := false
	for _, pattern := range patterns {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if match(host, pattern) {
			if negated {
				return false
			}
			matched = true
		}
	}
	return matched
}

// matchList is the same for patterns with commas between them. With fold they are made lower case.
func matchList(s, list string, fold bool) bool {
	if fold {
		list = strings.ToLower(list)
	}
	return matchHosts(s, strings.Split(list, ","))
}

// ignores is whether the list of an IgnoreUnknown names a keyword.
func ignores(list, name string) bool { return matchList(strings.ToLower(name), list, true) }

// A network is one part of the list of Match localnetwork.
type network struct {
	prefix  netip.Prefix
	negated bool
}

func parseNetworks(list string) ([]network, error) {
	var networks []network
	for part := range strings.SplitSeq(list, ",") {
		text, negated := strings.CutPrefix(part, "!")
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			prefix, err = addr.Prefix(addr.BitLen())
		}
		if err != nil || prefix != prefix.Masked() {
			return nil, fmt.Errorf("%q is no network: write it as 192.0.2.0/24 or 2001:db8::/32, without bits set behind its length", part)
		}
		networks = append(networks, network{prefix, negated})
	}
	return networks, nil
}

func matchNetworks(addr netip.Addr, networks []network) bool {
	matched := false
	for _, n := range networks {
		if n.prefix.Contains(addr.WithZone("")) {
			if n.negated {
				return false
			}
			matched = true
		}
	}
	return matched
}
