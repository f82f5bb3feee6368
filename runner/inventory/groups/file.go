package groups

import (
	"fmt"
	"path/filepath"
	"strings"
)

// File is a file with a group a line, "NAME: EXPR", as ClusterShell's groups. A name may come again and adds hosts; what follows a '#' at
// the begin of a line or after a blank is a comment.
func File(path string) Source {
	return once(func() (*table, error) {
		text, err := readText(path)
		if err != nil {
			return nil, err
		}
		t := new(table)
		for i, line := range strings.Split(text, "\n") {
			line = uncomment(line)
			if line == "" {
				continue
			}
			name, hosts, colon := strings.Cut(line, ":")
			if name = strings.TrimSpace(name); !colon || !validName(name) {
				return nil, fmt.Errorf("%s:%d: expected GROUP: HOSTS, found %s", path, i+1, quote(line))
			}
			t.add(name, strings.TrimSpace(hosts))
		}
		return t, nil
	})
}

// uncomment returns the line without its comment and the blanks around it.
func uncomment(line string) string {
	for at := 0; ; at++ {
		i := strings.IndexByte(line[at:], '#')
		if i < 0 {
			return strings.TrimSpace(line)
		}
		if at += i; at == 0 || line[at-1] == ' ' || line[at-1] == '\t' {
			return strings.TrimSpace(line[:at])
		}
	}
}

// quote is text for an error: quoted, and not long.
func quote(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return fmt.Sprintf("%q", text)
}

// Genders is a file of genders(5): nodes and their attributes. An attribute is a group of all the nodes that have it, ATTR=VALUE one of those
// that have it with this value. Values with %n are different for each node and no groups. Sets are joined and cut by the operators of host
// expressions, as in @mgmt&@os=debian, and not by those of nodeattr -q.
func Genders(path string) Source {
	return once(func() (*table, error) {
		text, err := readText(path)
		if err != nil {
			return nil, err
		}
		t := new(table)
		for i, line := range strings.Split(text, "\n") {
			if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) == "" {
				continue
			}
			fail := func(format string, args ...any) (*table, error) {
				return nil, fmt.Errorf("%s:%d: %s", path, i+1, fmt.Sprintf(format, args...))
			}
			words := strings.Fields(line)
			nodes := words[0]
			t.all += nodes + "\n"
			if len(words) > 2 {
				return fail("expected nodes and attributes, with commas and no blanks in them, found %s", quote(strings.TrimSpace(line)))
			}
			if len(words) == 1 {
				continue
			}
			for attribute := range strings.SplitSeq(words[1], ",") {
				name, value, hasValue := strings.Cut(attribute, "=")
				if name == "" {
					return fail("there is an attribute without a name in %s", quote(words[1]))
				}
				t.add(name, nodes)
				if hasValue && !strings.Contains(strings.ReplaceAll(value, "%%", ""), "%n") {
					t.add(name+"="+strings.ReplaceAll(value, "%%", "%"), nodes)
				}
			}
		}
		return t, nil
	})
}

// beside is the path of a file that another one names.
func beside(file, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(file), name)
}
