package groups

import (
	"fmt"
	"strings"
)

// shellWords splits a line as Python's shlex.split does: at blanks, with the quotes and the backslash of a shell, and with comments at any '#' outside of
// quotes.
func shellWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	began, quoted := false, byte(0)
	end := func() {
		if began {
			words = append(words, word.String())
		}
		word.Reset()
		began = false
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted != '\'':
			if i++; i == len(line) {
				return nil, fmt.Errorf("there is nothing after the backslash at the end of the line")
			}
			if quoted == '"' && line[i] != '"' && line[i] != '\\' {
				word.WriteByte('\\')
			}
			began = true
			word.WriteByte(line[i])
		case quoted != 0:
			if c == quoted {
				quoted = 0
			} else {
				word.WriteByte(c)
			}
		case c == '"' || c == '\'':
			quoted, began = c, true
		case c == '#':
			end()
			return words, nil
		case c == ' ' || c == '\t' || c == '\r':
			end()
		default:
			began = true
			word.WriteByte(c)
		}
	}
	if quoted != 0 {
		return nil, fmt.Errorf("the quote %c is never closed", quoted)
	}
	end()
	return words, nil
}
