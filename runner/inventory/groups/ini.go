package groups

import (
	"fmt"
	"slices"
	"strings"
)

// section is a section of an INI file.
type section struct {
	name   string
	place  string // file:line
	values map[string]string
}

// readINI reads what Python's configparser does: sections, "key: value" or "key = value" in them, lines that go on indented, comments after
// '#' or ';' at the begin of a line. Keys are in lower case.
func readINI(path, text string) ([]section, error) {
	var sections []section
	key := ""
	for i, line := range strings.Split(text, "\n") {
		fail := func(format string, args ...any) ([]section, error) {
			return nil, fmt.Errorf("%s:%d: %s", path, i+1, fmt.Sprintf(format, args...))
		}
		word := strings.TrimSpace(line)
		if word == "" || word[0] == '#' || word[0] == ';' {
			continue
		}
		if indented := line[0] == ' ' || line[0] == '\t'; indented && key != "" {
			sections[len(sections)-1].values[key] += "\n" + word
			continue
		}
		if word[0] == '[' {
			name, rest, closed := strings.Cut(word[1:], "]")
			if !closed || name == "" || rest != "" {
				return fail("expected [SECTION], found %s", quote(word))
			}
			if slices.ContainsFunc(sections, func(s section) bool { return s.name == name }) {
				return fail("the section [%s] is there twice", name)
			}
			sections, key = append(sections, section{name, fmt.Sprintf("%s:%d", path, i+1), map[string]string{}}), ""
			continue
		}
		at := strings.IndexAny(word, ":=")
		if at <= 0 {
			return fail("expected KEY: VALUE, found %s", quote(word))
		}
		if len(sections) == 0 {
			return fail("%s stands before the first [SECTION]", quote(word))
		}
		key = strings.ToLower(strings.TrimSpace(word[:at]))
		values := sections[len(sections)-1].values
		if _, twice := values[key]; twice {
			return fail("%s is there twice in [%s]", key, sections[len(sections)-1].name)
		}
		values[key] = strings.TrimSpace(word[at+1:])
	}
	return sections, nil
}
