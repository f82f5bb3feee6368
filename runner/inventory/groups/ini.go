package groups

import (
	"fmt"
	"maps"
	"strings"
	"unicode"
)

// section is a section of an INI file.
type section struct {
	name   string
	place  string // file:line
	values map[string]string
}

// ini is the sections of one INI file, or of several that go over each other.
type ini []section

// readINI reads what Python's configparser does: sections, "key: value" or "key = value" in them, values that go on in lines further in, comments
// of whole lines after '#' or ';', and [DEFAULT], whose values hold in each section that does not have its own. Keys are in lower case.
func readINI(path, text string) (ini, error) {
	var read ini
	var values map[string]string // of the section that is read
	key, depth := "", 0          // of the last key: how far in it stands
	for number, line := range lines(text) {
		fail := func(format string, args ...any) (ini, error) {
			return ini{}, fmt.Errorf("%s:%d: %s", path, number, fmt.Sprintf(format, args...))
		}
		word := strings.TrimSpace(line)
		if word == "" || word[0] == '#' || word[0] == ';' {
			continue
		}
		in := len(line) - len(strings.TrimLeftFunc(line, unicode.IsSpace))
		if key != "" && in > depth {
			values[key] += "\n" + word
			continue
		}
		depth = in
		if word[0] == '[' {
			closed := strings.LastIndexByte(word, ']')
			if closed < 2 {
				return fail("expected [SECTION], found %s", quote(word))
			}
			name := word[1:closed]
			if s := read.section(name); s != nil {
				return fail("the section [%s] is there twice, before at %s", name, s.place)
			}
			key, values = "", map[string]string{}
			read = append(read, section{name, fmt.Sprintf("%s:%d", path, number), values})
			continue
		}
		at := strings.IndexAny(word, ":=")
		if at <= 0 {
			return fail("expected KEY: VALUE, found %s", quote(word))
		}
		if values == nil {
			return fail("%s stands before the first [SECTION]", quote(word))
		}
		key = strings.ToLower(strings.TrimSpace(word[:at]))
		if _, twice := values[key]; twice {
			return fail("%s is there twice in its section", key)
		}
		values[key] = strings.TrimSpace(word[at+1:])
	}
	return read, nil
}

// section finds a section; nil: it is not there.
func (read ini) section(name string) *section {
	for i := range read {
		if read[i].name == name {
			return &read[i]
		}
	}
	return nil
}

// over lays a later file over read.
func (read ini) over(later ini) ini {
	for _, s := range later {
		before := read.section(s.name)
		if before == nil {
			read = append(read, s)
			continue
		}
		maps.Copy(before.values, s.values)
		before.place = s.place
	}
	return read
}

// settled are the sections, without [DEFAULT] and with what it says.
func (read ini) settled() ini {
	defaults := read.section("DEFAULT")
	if defaults == nil {
		return read
	}
	var rest ini
	for _, s := range read {
		if s.name != "DEFAULT" {
			values := maps.Clone(defaults.values)
			maps.Copy(values, s.values)
			rest = append(rest, section{s.name, s.place, values})
		}
	}
	return rest
}
