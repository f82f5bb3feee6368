package sshconfig

import (
	"slices"
	"strings"
)

// Alike reports whether the way to log in is the same for all hosts, whatever their names: no Host line but for "*", no Match that looks at the
// name, and no name in a path or a proxy. Then For need not be asked about each of them to know the keys, agents and jump hosts of them all.
func (c *Config) Alike() bool {
	return c.options.alike() && allAlike(c.files)
}

func allAlike(files []*file) bool {
	return !slices.ContainsFunc(files, func(f *file) bool { return !f.alike() })
}

func (f *file) alike() bool {
	for i := range f.blocks {
		b := &f.blocks[i]
		if b.condition == onHost && !slices.Equal(b.hosts, []string{"*"}) || slices.ContainsFunc(b.criteria, criterion.byName) {
			return false
		}
		if slices.ContainsFunc(b.lines, func(d *directive) bool { return !d.alike() }) {
			return false
		}
	}
	return true
}

// byName is whether a criterion may hold for one name and not for another.
func (c criterion) byName() bool {
	switch c.kind {
	case matchHost, matchOriginalHost, matchExec:
		return true
	}
	return false
}

// alike is whether a line that holds means the same to all hosts, as far as logging in goes.
func (d *directive) alike() bool {
	if d.word == nil {
		return true
	}
	switch d.word.slot {
	case slotInclude:
		return allAlike(d.files)
	case slotIdentityFile, slotCertificateFile, slotIdentityAgent, slotProxy:
		for _, text := range append([]string{d.rest}, d.args...) {
			if nameTokens(text) {
				return false
			}
		}
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
