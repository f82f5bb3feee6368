package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// table is a table of a TOML file, as the file has it: in its order, and with the lines, which the library keeps to itself and
// without which a person cannot be told what to correct.
type table struct {
	line    int
	entries []*entry
}

// entry is what stands under a key: a value, or tables, of which [[key]] can make several.
type entry struct {
	key    string
	line   int
	value  any // string, int64, float64, bool, a date, or []any of them; nil where there are tables
	tables []*table
	many   bool // an array of tables, [[key]]
}

// readTable reads a TOML file. The error is one sentence and begins with name:line.
//
// The library reads it twice: whole, for all that TOML asks of a file, and then statement by statement, for the lines.
func readTable(text, name string) (*table, error) {
	var whole map[string]any
	if _, err := toml.Decode(text, &whole); err != nil {
		if syntax := (toml.ParseError{}); errors.As(err, &syntax) {
			return nil, fmt.Errorf("%s:%d: %s", name, syntax.Position.Line, syntax.Message)
		}
		return nil, fmt.Errorf("%s: %v", name, err)
	}
	root := &table{line: 1}
	current := root
	for line, statement := range statements(strings.TrimPrefix(text, "\ufeff")) {
		var content map[string]any
		if _, err := toml.Decode(statement, &content); err != nil {
			return nil, fmt.Errorf("%s:%d: %v", name, line, err)
		}
		if isHeader := statement[0] == '['; isHeader {
			current = root.put(line, content)
		} else {
			current.put(line, content)
		}
	}
	return root, nil
}

// statements are those of a valid TOML file, each with the line it begins on, without the blank and the comment lines before.
func statements(text string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		for line := 1; text != ""; {
			n := statementEnd(text)
			statement := strings.TrimLeft(text[:n], " \t\r\n")
			if statement != "" && statement[0] != '#' && !yield(line, statement) {
				return
			}
			line += strings.Count(text[:n], "\n")
			text = text[n:]
		}
	}
}

// statementEnd is how long the statement, or the empty line, is with which text begins: up to and with the first end of line that
// is in no string and in no bracket.
func statementEnd(text string) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '#':
			if end := strings.IndexByte(text[i:], '\n'); end >= 0 {
				i += end - 1
			} else {
				i = len(text)
			}
		case '"', '\'':
			i += stringLen(text[i:]) - 1
		case '\n':
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(text)
}

// stringLen is how long the string is with which text begins, quotes included.
func stringLen(text string) int {
	quote := text[:1]
	long := strings.HasPrefix(text, quote+quote+quote)
	i := 1
	if long {
		i = 3
	}
	for ; i < len(text); i++ {
		switch {
		case text[i] == '\\' && quote == `"`:
			i++
		case text[i] != quote[0]:
		case !long:
			return i + 1
		case strings.HasPrefix(text[i:], quote+quote+quote):
			// Up to two quotes of the string's own may stand before the three that end it.
			for i += 3; i < len(text) && text[i] == quote[0]; i++ {
			}
			return i
		}
	}
	return len(text)
}

// put adds content, which stands on line, and returns the last table that it names: where what follows a header belongs.
func (t *table) put(line int, content map[string]any) *table {
	last := t
	keys := make([]string, 0, len(content))
	for key := range content {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		e := t.at(key, line)
		switch value := content[key].(type) {
		case map[string]any:
			if len(e.tables) == 0 {
				e.tables = append(e.tables, &table{line: line})
			}
			last = e.tables[len(e.tables)-1].put(line, value)
		case []map[string]any:
			for _, content := range value {
				last = e.another(line, content)
			}
		case []any:
			if len(value) == 0 || slices.ContainsFunc(value, func(v any) bool { _, is := v.(map[string]any); return !is }) {
				e.value = value
				break
			}
			for _, content := range value {
				last = e.another(line, content.(map[string]any))
			}
		default:
			e.value = value
		}
	}
	return last
}

// another adds one table to an array of them.
func (e *entry) another(line int, content map[string]any) *table {
	e.many = true
	e.tables = append(e.tables, &table{line: line})
	return e.tables[len(e.tables)-1].put(line, content)
}

// at is the entry under key, made where there is none.
func (t *table) at(key string, line int) *entry {
	for _, e := range t.entries {
		if e.key == key {
			return e
		}
	}
	e := &entry{key: key, line: line}
	t.entries = append(t.entries, e)
	return e
}
