package hostlist

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SyntaxError says what is wrong with an expression, and where. An exclusion that removes nothing is one too.
type SyntaxError struct {
	Expr   string // the whole expression
	Offset int    // byte offset into Expr of the place; len(Expr): its end
	Msg    string // what is wrong and what was expected
}

// Error is one line, without the caret.
func (e *SyntaxError) Error() string {
	line, _ := e.excerpt()
	return fmt.Sprintf("host expression %q, column %d: %s", line, utf8.RuneCountInString(e.Expr[:e.Offset])+1, e.Msg)
}

// Caret returns two lines without a final newline: the expression, or the part of a long one around the place, and a caret under the place.
// What a terminal would not print as it is, is replaced.
func (e *SyntaxError) Caret() string {
	line, column := e.excerpt()
	return line + "\n" + strings.Repeat(" ", column) + "^"
}

// excerpt returns the part of the expression to show and the terminal column of the place in it, from 0.
func (e *SyntaxError) excerpt() (line string, column int) {
	const before, after = 50, 24 // runes kept: all of it fits a terminal of 80 columns, narrow characters assumed
	head, tail := []rune(e.Expr[:e.Offset]), []rune(e.Expr[e.Offset:])
	var b strings.Builder
	if len(head) > before {
		b.WriteRune('…')
		column = 1
		head = head[len(head)-before:]
	}
	for _, r := range head {
		r = printable(r)
		b.WriteRune(r)
		column += columns(r)
	}
	cut := len(tail) > after
	if cut {
		tail = tail[:after]
	}
	for _, r := range tail {
		b.WriteRune(printable(r))
	}
	if cut {
		b.WriteRune('…')
	}
	return b.String(), column
}

func printable(r rune) rune {
	switch {
	case r == '\t' || r == '\n' || r == '\r':
		return ' '
	case !unicode.IsPrint(r):
		return utf8.RuneError
	}
	return r
}

// columns is how many terminal columns a printable rune takes.
func columns(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// wide are the blocks of which all or nearly all runes have East Asian width W or F (Unicode Standard Annex 11).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1100, Hi: 0x115f, Stride: 1}, // Hangul Jamo, leading consonants
		{Lo: 0x2e80, Hi: 0x303e, Stride: 1}, // CJK radicals and punctuation
		{Lo: 0x3041, Hi: 0x4dbf, Stride: 1}, // kana, CJK extension A
		{Lo: 0x4e00, Hi: 0xa4cf, Stride: 1}, // CJK, Yi
		{Lo: 0xac00, Hi: 0xd7a3, Stride: 1}, // Hangul
		{Lo: 0xf900, Hi: 0xfaff, Stride: 1}, // CJK compatibility
		{Lo: 0xfe30, Hi: 0xfe6f, Stride: 1},
		{Lo: 0xff01, Hi: 0xff60, Stride: 1}, // full-width forms
		{Lo: 0xffe0, Hi: 0xffe6, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x1f300, Hi: 0x1faff, Stride: 1}, // pictographs
		{Lo: 0x20000, Hi: 0x3fffd, Stride: 1}, // CJK extensions B and on
	},
}
