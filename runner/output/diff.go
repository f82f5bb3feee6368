package output

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

// Bounds of what is compared. Beyond them outputs are shown in full.
const (
	maxCompared  = 4 << 20 // bytes of one output
	maxCompares  = 1 << 30 // bytes of all pairs of outputs
	compareLines = 3       // around a difference
)

// comparison tells in what outputs differ from one of them. Lines are compared by what Normalize leaves of them, and shown as they are.
type comparison struct {
	*folded
	base   *group
	lines  [][]byte // nil: it is too large
	text   string   // of tokens
	label  string
	tokens map[string]int // of the lines of the base
	others map[string]int // of those of the other that the base does not have
	line   []byte
	parts  replacements // of no use here
	spent  int64
}

// unified is a difference, ready to be written.
type unified struct {
	from, to string
	a, b     [][]byte
	hunks    udiff.UnifiedDiff
}

// newComparison makes one with base.
func (out *folded) newComparison(base *group) *comparison {
	return &comparison{
		folded: out, base: base, tokens: map[string]int{}, others: map[string]int{},
		parts: make(replacements, partRegexps+len(out.Normalize.Regexps)),
	}
}

// with compares g, which is not the base. Instead of a difference it may return why there is none.
func (c *comparison) with(g *group) (diff *unified, why string, err error) {
	if g.end == c.base.end {
		return &unified{}, "the same output as " + c.name(), nil
	}
	c.spent += c.base.bytes + g.bytes
	switch {
	case c.base.bytes > maxCompared || g.bytes > maxCompared:
		return nil, "too large to be compared", nil
	case c.spent > maxCompares:
		return nil, "not compared, as there is too much of it", nil
	}
	if c.lines == nil {
		if c.lines, c.text, err = c.read(c.base, c.tokens); err != nil {
			return nil, "", err
		}
	}
	clear(c.others)
	lines, text, err := c.read(g, c.others)
	if err != nil {
		return nil, "", err
	}
	// The library sees a short token for each line: it then compares those, and counts lines in texts that are small.
	hunks, err := udiff.ToUnifiedDiff("", "", c.text, udiff.Lines(c.text, text), compareLines)
	if err != nil {
		return nil, "", fmt.Errorf("outputs could not be compared: %w", err)
	}
	if len(hunks.Hunks) == 0 {
		return &unified{}, "the same output as " + c.name() + " apart from what is not compared", nil
	}
	common := func(line udiff.Line) bool { return line.Kind == udiff.Equal }
	if len(hunks.Hunks) == 1 && !slices.ContainsFunc(hunks.Hunks[0].Lines, common) {
		return nil, "no line in common with " + c.name(), nil
	}
	return &unified{from: c.name(), to: g.label(), a: c.lines, b: lines, hunks: hunks}, "", nil
}

func (c *comparison) name() string {
	if c.label == "" {
		c.label = c.base.label()
	}
	return c.label
}

// read returns the lines of an output and its text in tokens, one a line. New tokens are put into the map.
func (c *comparison) read(g *group, tokens map[string]int) (lines [][]byte, text string, err error) {
	var whole bytes.Buffer
	whole.Grow(int(g.bytes))
	if err := c.store.write(&whole, g.end); err != nil {
		return nil, "", err
	}
	var b strings.Builder
	for line := range bytes.Lines(whole.Bytes()) {
		lines = append(lines, line)
		b.WriteString(strconv.FormatUint(uint64(c.token(g, line, tokens)), 36))
		b.WriteByte('\n')
	}
	return lines, b.String(), nil
}

// token is a number for the line, the same for all that are compared as equal.
func (c *comparison) token(g *group, line []byte, tokens map[string]int) int {
	if c.norm != nil {
		c.line = c.norm.appendLong(c.line[:0], line, g.names, c.parts)
		line = c.line
	}
	if n, known := c.tokens[string(line)]; known {
		return n
	}
	n, known := tokens[string(line)]
	if !known {
		n = len(c.tokens) + len(c.others)
		tokens[string(line)] = n
	}
	return n
}

// write writes it in the unified format. Errors are for the writer to remember.
func (u *unified) write(out Stream) {
	if len(u.hunks.Hunks) == 0 {
		return
	}
	var text, escaped []byte
	line := func(c Color, mark byte, of []byte) {
		text = append(append(text[:0], mark), of...)
		bare := text[len(text)-1] != '\n'
		if bare {
			text = append(text, '\n')
		}
		shown := text
		if out.Escape {
			escaped = appendEscaped(escaped[:0], text)
			shown = escaped
		}
		io.WriteString(out.W, out.Paint(c, string(shown[:len(shown)-1]))+"\n")
		if bare {
			io.WriteString(out.W, "\\ No newline at end of output\n")
		}
	}
	head := func(c Color, text string) {
		io.WriteString(out.W, out.Paint(c, text)+"\n")
	}
	head(Bold, "--- "+u.from)
	head(Bold, "+++ "+u.to)
	more := 0 // lines, up to the hunk: the library's own ToLine is wrong behind a hunk of several changes
	for _, h := range u.hunks.Hunks {
		a := h.FromLine - 1
		b := a + more
		fromA, fromB := a, b
		for _, l := range h.Lines {
			if l.Kind != udiff.Insert {
				a++
			}
			if l.Kind != udiff.Delete {
				b++
			}
		}
		more = b - a
		head(Cyan, fmt.Sprintf("@@ -%s +%s @@", span(fromA, a), span(fromB, b)))
		a, b = fromA, fromB
		for _, l := range h.Lines {
			switch l.Kind {
			case udiff.Delete:
				line(Red, '-', u.a[a])
				a++
			case udiff.Insert:
				line(Green, '+', u.b[b])
				b++
			default:
				line(NoColor, ' ', u.a[a])
				a++
				b++
			}
		}
	}
}

// span is the lines from one, counted from 0, up to another, as a hunk's head has them.
func span(from, to int) string {
	switch n := to - from; n {
	case 0:
		return fmt.Sprintf("%d,0", from)
	case 1:
		return strconv.Itoa(from + 1)
	default:
		return fmt.Sprintf("%d,%d", from+1, n)
	}
}
