package output

import (
	"encoding/binary"
	"unicode/utf8"
)

// appendEscaped appends src to dst with all that a terminal would obey shown as text instead. Control characters are written as cat -v
// does, ESC as ^[ and DEL as ^?; C1 controls and those that turn the direction of text as \u009b and \u202e; bytes that are not UTF-8 as
// \x9b. Tab and newline stay. The carriage return of a line's end, which shows nothing, is left out.
func appendEscaped(dst, src []byte) []byte {
	const hex = "0123456789abcdef"
	done := 0
	for i := 0; i < len(src); {
		for len(src)-i >= 8 && printable(binary.LittleEndian.Uint64(src[i:])) {
			i += 8
		}
		if i == len(src) {
			break
		}
		c := src[i]
		if c < utf8.RuneSelf {
			if visible[c] {
				i++
				continue
			}
			dst = append(dst, src[done:i]...)
			i++
			done = i
			if c != '\r' || i == len(src) || src[i] != '\n' {
				dst = append(dst, '^', c^0x40)
			}
			continue
		}
		r, size := utf8.DecodeRune(src[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(append(dst, src[done:i]...), '\\', 'x', hex[c>>4], hex[c&15])
			done = i + size
		} else if obeyed(r) {
			dst = append(append(dst, src[done:i]...), '\\', 'u', hex[r>>12], hex[r>>8&15], hex[r>>4&15], hex[r&15])
			done = i + size
		}
		i += size
	}
	return append(dst, src[done:]...)
}

// printable tells whether each of eight bytes is from the space to the tilde: none has its highest bit, nor gets it when the space is taken off
// it or one is added.
func printable(x uint64) bool {
	const each = 0x0101010101010101
	return (x|(x-each*' ')|(x+each))&(each*0x80) == 0
}

// visible are the ASCII characters that stay.
var visible = func() (t [utf8.RuneSelf]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != 0x7f || c == '\t' || c == '\n'
	}
	return t
}()

// obeyed tells whether a character that is not ASCII changes how others are shown: controls of C1 and, with what they do to the order
// of text, those of the bidirectional algorithm (Unicode Standard Annex 9).
func obeyed(r rune) bool {
	switch {
	case r < 0xa0:
		return true
	case r == 0x61c, r == 0x200e, r == 0x200f:
		return true
	}
	return 0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x2069
}

// harmless is text with all that a terminal would obey shown as text.
func harmless(text string) string { return string(appendEscaped(nil, []byte(text))) }
