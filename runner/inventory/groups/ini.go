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

// Bounds on an INI file, far above what anybody writes.
const (
	maxINI      = 1 << 20
	maxSections = 10_000
)

// readINI reads what Python's configparser does: sections, "key: value" or "key = value" in them, values that go on in lines further in, comments
// of whole lines after '#' or ';', and [DEFAULT], whose values hold in each section that does not have its own. Keys are in lower case.
func readINI(path string) (ini, error) {
	text, err := readText(path)
	if err != nil {
		return nil, err
	}
	if len(text) > maxINI {
		return nil, fmt.Errorf("%s: this file has %d bytes, and a configuration has at most %d", path, len(text), maxINI)
	}
	var read ini
	var values map[string]string // of the section that is read
	places := map[string]string{}
	key, depth := "", 0 // of the last key: how far in it stands
	var value []string  // its lines
	end := func() {
		if key != "" {
			values[key] = strings.Join(value, "\n")
		}
		key = ""
	}
	for number, line := range lines(text) {
		place := fmt.Sprintf("%s:%d", path, number)
		word := strings.TrimSpace(line)
		if word == "" || word[0] == '#' || word[0] == ';' {
			continue
		}
		in := len(line) - len(strings.TrimLeftFunc(line, unicode.IsSpace))
		if key != "" && in > depth {
			value = append(value, word)
			continue
		}
		end()
		depth = in
		if word[0] == '[' {
			closed := strings.LastIndexByte(word, ']')
			if closed < 2 {
				return nil, fmt.Errorf("%s: expected [SECTION], found %s", place, quote(word))
			}
			name := word[1:closed]
			if before := places[name]; before != "" {
				return nil, fmt.Errorf("%s: the section [%s] is there twice, before at %s", place, name, before)
			}
			if len(read) == maxSections {
				return nil, fmt.Errorf("%s: with this line there are more than %d sections", place, maxSections)
			}
			places[name] = place
			values = map[string]string{}
			read = append(read, section{name, place, values})
			continue
		}
		at := strings.IndexAny(word, ":=")
		if at <= 0 {
			return nil, fmt.Errorf("%s: expected KEY: VALUE, found %s", place, quote(word))
		}
		if values == nil {
			return nil, fmt.Errorf("%s: %s stands before the first [SECTION]", place, quote(word))
		}
		key = strings.ToLower(strings.TrimSpace(word[:at]))
		if _, twice := values[key]; twice {
			return nil, fmt.Errorf("%s: %s is there twice in its section", place, key)
		}
		value = append(value[:0], strings.TrimSpace(word[at+1:]))
	}
	end()
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
