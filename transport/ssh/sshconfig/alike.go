package sshconfig

import (
	"maps"
	"slices"
	"strings"
)

// Alike reports whether the way to log in is the same for all hosts, whatever their names, but for those names that it returns, each of which
// has a Host line that names it. Then For need not be asked about each of the others to know the keys, agents and jump hosts of them all.
//
// It is not where other patterns than "*" stand in a Host line, where a Match looks at the name, or where there is a name in a path or in a
// ProxyJump. Of a ProxyCommand it matters only that there is one. A host that ProxyJump leads to is like the others, but has no settings.
func (c *Config) Alike() (but []string, ok bool) {
	a := &likeness{apart: map[string]bool{}, again: c.final}
	if !a.file(c.options) || slices.ContainsFunc(c.files, func(f *file) bool { return !a.file(f) }) {
		return nil, false
	}
	if a.again && len(a.apart) > 0 { // Host lines are compared with a second name, too
		return nil, false
	}
	return slices.Sorted(maps.Keys(a.apart)), true
}

// likeness is what is known of files that tell hosts apart by nothing but plain names.
type likeness struct {
	apart map[string]bool
	again bool // files may be gone through a second time, with another name
}

// file takes in a file; false: it tells hosts apart by more than plain names.
func (a *likeness) file(f *file) bool {
	for i := range f.blocks {
		b := &f.blocks[i]
		all := b.condition != onHost // may hold for hosts that no line names
		for _, pattern := range b.hosts {
			switch name := strings.TrimPrefix(pattern, "!"); {
			case pattern == "*":
				all = true
			case name == "" || isPattern(name):
				return false
			default:
				a.apart[name] = true
			}
		}
		if !all {
			continue
		}
		if slices.ContainsFunc(b.criteria, criterion.byName) || slices.ContainsFunc(b.lines, func(d *directive) bool { return !a.line(d) }) {
			return false
		}
	}
	return true
}

// byName is whether a criterion may hold for one name and not for another.
func (c criterion) byName() bool {
	switch c.kind {
	case matchHost, matchOriginalHost:
		return true
	case matchExec:
		return nameTokens(c.arg)
	}
	return false
}

// line takes in a line that may hold for hosts that no line names; false: it does not mean the same to all of them.
func (a *likeness) line(d *directive) bool {
	if d.word == nil {
		return true
	}
	switch d.word.slot {
	case slotInclude:
		return !slices.ContainsFunc(d.files, func(f *file) bool { return !a.file(f) })
	case slotCanonicalize:
		a.again = true
	case slotProxy:
		return d.word.name == "ProxyCommand" || !nameTokens(d.rest)
	case slotIdentityFile, slotCertificateFile, slotIdentityAgent:
		return !slices.ContainsFunc(d.args, nameTokens)
	}
	return true
}

// nameTokens reports whether text has a token that depends on the name: the others are ours.
func nameTokens(text string) bool {
	for {
		_, after, found := strings.Cut(text, "%")
		if !found || after == "" {
			return false
		}
		if !strings.ContainsRune("%diLlpru", rune(after[0])) {
			return true
		}
		text = after[1:]
	}
}
