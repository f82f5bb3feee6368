package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"multirsh/runner/hostlist"
)

// maxNames is how many bytes of host names are read from standard input: twice the longest list of ordinary names.
const maxNames = 512 << 20

// written is what standard input says: one host expression, whose items stand on any number of lines. A '#' at the beginning of
// a line, after a blank or after a comma makes the rest of the line a comment.
type written struct {
	text   string // without the comments, and the blanks at its end
	folded int    // so much of it are names that were folded; the rest is as it was
	line   int    // on which the rest begins
}

// readExpression reads all as it is.
func readExpression(r io.Reader) (*written, error) {
	var text strings.Builder
	comments := commentless{}
	for chunk, err := range chunks(r, maxNames) {
		if err != nil {
			return nil, err
		}
		comments.strip(chunk, &text)
	}
	return &written{text: strings.TrimRight(text.String(), blanks), line: 1}, nil
}

// readFolded is for where the order and the number of the names do not matter: names are folded as they are read, so that a
// million of them are never there at once, up to the first item that is more than a name.
func readFolded(r io.Reader) (*written, error) {
	var (
		names    = scanned{line: 1}
		more     bool // than names
		comments commentless
		rest     strings.Builder
		failed   error
	)
	folded := hostlist.Fold(func(yield func(string) bool) {
		for chunk, err := range chunks(r, maxNames) {
			if err != nil {
				failed = err
				return
			}
			if !more {
				if chunk, more = names.take(chunk, yield); !more {
					continue
				}
			}
			comments.strip(chunk, &rest)
		}
	})
	if failed != nil {
		return nil, failed
	}
	switch {
	case folded == "" || !more:
	case names.comma: // it stands before what is no name, and an empty item must stay one
		folded += ","
	default:
		folded += " "
	}
	return &written{folded + strings.TrimRight(rest.String(), blanks), len(folded), names.line}, nil
}

// plain reports whether all of it are names that were folded.
func (w *written) plain() bool { return w.folded == len(w.text) }

// place says on which line it is what err, about an expression in which w begins at a place, has found in w.
func (w *written) place(err error, expr string, at int) error {
	syntax := (*hostlist.SyntaxError)(nil)
	if !errors.As(err, &syntax) || syntax.Expr != expr {
		return err
	}
	offset := syntax.Offset - at
	if offset < w.folded || offset > len(w.text) {
		return err
	}
	line := w.line + strings.Count(w.text[w.folded:offset], "\n")
	begin := max(w.folded, strings.LastIndexByte(w.text[:offset], '\n')+1)
	text, _, _ := strings.Cut(w.text[begin:], "\n")
	return fmt.Errorf("standard input, line %d: %w", line, &hostlist.SyntaxError{Expr: text, Offset: offset - begin, Msg: syntax.Msg})
}

// chunks gives the text of r in pieces that end at the end of a line, or of a word where a line is long. A piece is
// the caller's to keep; the last one may be empty. More than limit bytes are refused.
func chunks(r io.Reader, limit int) func(yield func(string, error) bool) {
	return func(yield func(string, error) bool) {
		const size = 1 << 18
		buffer, held, total := make([]byte, size), 0, 0
		for {
			if held == len(buffer) { // a word as long as this is no name, but that is not for us to say
				buffer = append(buffer, make([]byte, len(buffer))...)
			}
			n, err := r.Read(buffer[held:])
			held += n
			if total += n; total > limit {
				yield("", usagef("standard input has more than %d MB; that is no list of hosts", limit>>20))
				return
			}
			if err != nil && err != io.EOF {
				yield("", fmt.Errorf("standard input cannot be read: %v", reason(err)))
				return
			}
			end := held
			if err == nil {
				if held < len(buffer) {
					continue
				}
				if end = bytes.LastIndexByte(buffer, '\n') + 1; end == 0 {
					end = bytes.LastIndexAny(buffer, " \t") + 1
				}
				if end == 0 {
					continue
				}
			}
			if !yield(string(buffer[:end]), nil) || err != nil {
				return
			}
			held = copy(buffer, buffer[end:held])
		}
	}
}

// commentless takes the comments out of a text that comes in chunks.
type commentless struct{ inside bool }

func (c *commentless) strip(chunk string, into *strings.Builder) {
	before := byte('\n') // chunks end with a blank or a line's end, and what follows a comma begins one
	start := 0
	for i := 0; i < len(chunk); i++ {
		b := chunk[i]
		switch {
		case c.inside && b == '\n':
			c.inside, start = false, i
		case !c.inside && b == '#' && (isBlank(before) || before == ','):
			into.WriteString(chunk[start:i])
			c.inside = true
		}
		before = b
	}
	if !c.inside {
		into.WriteString(chunk[start:])
	}
}

// scanned is where a scan of names is, between two chunks.
type scanned struct {
	line           int
	comma, comment bool
}

// take yields the names of a chunk, up to an item that is more than a name. It gives back what begins there.
func (s *scanned) take(chunk string, yield func(string) bool) (rest string, more bool) {
	defer func() { s.line += strings.Count(chunk[:len(chunk)-len(rest)], "\n") }()
	apart := true // i is after a blank or a comma: a comment may begin
	for i := 0; i < len(chunk); {
		b := chunk[i]
		switch {
		case s.comment:
			end := strings.IndexByte(chunk[i:], '\n')
			if end < 0 {
				return "", false
			}
			s.comment = false
			i += end
			continue
		case isBlank(b):
			apart = true
			i++
			continue
		case b == '#' && apart:
			s.comment = true
			continue
		}
		end := i
		for end < len(chunk) && nameBytes[chunk[end]] {
			end++
		}
		whole := end == len(chunk) || isBlank(chunk[end]) || chunk[end] == ','
		if end == i || !whole || end-i > maxName || b == '-' || b == '.' {
			return chunk[i:], true
		}
		if !yield(chunk[i:end]) {
			return chunk[end:], true
		}
		i, s.comma, apart = end, false, false
		for i < len(chunk) && isBlank(chunk[i]) { // a comma belongs to the name before it, however far away
			i, apart = i+1, true
		}
		if i < len(chunk) && chunk[i] == ',' {
			i, s.comma, apart = i+1, true, true
		}
	}
	return "", false
}

// maxName is the longest name that a host can have (RFC 1035, 2.3.4).
const maxName = 253

const blanks = " \t\r\n"

func isBlank(b byte) bool { return b == ' ' || b == '\t' || b == '\n' || b == '\r' }

// nameBytes are those of which ordinary names consist. There are others; package hostlist knows.
var nameBytes = func() (set [256]bool) {
	for _, b := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") {
		set[b] = true
	}
	return set
}()
