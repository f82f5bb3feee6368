package groups

import (
	"cmp"
	"regexp"
	"strings"
)

// ansibleSection is [web], [web:children] or [web:vars]. A host that begins with a range, as [01:04]-web, goes on behind the bracket.
var ansibleSection = regexp.MustCompile(`^\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?$`)

// ini reads the INI form.
func (a *ansible) ini(text string) error {
	in, kind := "ungrouped", "hosts"
	for number, line := range lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		var err error
		if m := ansibleSection.FindStringSubmatch(line); m != nil {
			in, kind = m[1], cmp.Or(m[2], "hosts")
			err = a.iniSection(in, kind, number)
		} else {
			err = a.iniLine(in, kind, line, number)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *ansible) iniSection(name, kind string, line int) error {
	switch kind {
	case "hosts", "children":
		_, err := a.group(name, line)
		return err
	case "vars": // the group may be defined later, but must be
		if a.groups[name] != nil {
			return nil
		}
		g, err := a.group(name, line)
		if err == nil {
			g.unknown = line
		}
		return err
	}
	return a.errorf(line, "there is no [%s:%s]: there is [%[1]s], [%[1]s:children] and [%[1]s:vars]", name, kind)
}

func (a *ansible) iniLine(in, kind, line string, number int) error {
	g := a.groups[in]
	if kind == "vars" { // a value goes to the end of the line
		key, value, equals := strings.Cut(line, "=")
		if !equals {
			return a.errorf(number, "expected NAME=VALUE, found %s", quote(line))
		}
		value = strings.TrimSpace(value)
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		return a.groupVariable(g, strings.TrimSpace(key), value, number)
	}
	words, err := shellWords(line)
	if err != nil {
		return a.errorf(number, "%w", err)
	}
	if kind == "children" {
		if len(words) != 1 {
			return a.errorf(number, "expected the name of a group, found %s", quote(line))
		}
		return a.child(g, words[0], number)
	}
	if len(words) == 0 || words[0] == "" {
		return a.errorf(number, "expected a host, found %s", quote(line))
	}
	var vars []Setting
	for _, word := range words[1:] {
		key, value, equals := strings.Cut(word, "=")
		if !equals {
			return a.errorf(number, "expected NAME=VALUE after the host, found %s", quote(word))
		}
		if vars, err = a.variable(vars, key, value, number); err != nil {
			return err
		}
	}
	return a.hostLine(in, words[0], vars, number)
}
