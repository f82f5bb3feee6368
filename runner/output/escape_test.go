package output

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestAppendEscaped(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"plain text\twith tab\n", "plain text\twith tab\n"},
		{"Grüße, 日本語 ☃\n", "Grüße, 日本語 ☃\n"},
		{"\x1b[31mred\x1b[0m", "^[[31mred^[[0m"},
		{"\x00\a\b\x7f", "^@^G^H^?"},
		{"dos\r\nprogress 10%\rprogress 20%\r", "dos\nprogress 10%^Mprogress 20%^M"},
		{"\r\r\n", "^M\n"},
		{"\u009b2J\u0085", `\u009b2J\u0085`},
		{"\x9b2J\xff\xc3", `\x9b2J\xff\xc3`},
		{"\xe2\x82", `\xe2\x82`},
		{"abc\u202edef\u202c \u2066x\u2069 \u200f", `abc\u202edef\u202c \u2066x\u2069 \u200f`},
		{"\ufffd", "\ufffd"},
		{"\xed\xa0\x80", `\xed\xa0\x80`},
	} {
		if got := string(appendEscaped([]byte("> "), []byte(tt.in))); got != "> "+tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, "> "+tt.want)
		}
	}
}

// Eight bytes are looked at in one go: each byte is seen, wherever it is and whatever is beside it.
func TestPrintable(t *testing.T) {
	for _, beside := range []byte{' ', 'a', '~'} {
		for at := range 8 {
			for c := range 256 {
				eight := bytes.Repeat([]byte{beside}, 8)
				eight[at] = byte(c)
				if got := printable(binary.LittleEndian.Uint64(eight)); got != (c >= ' ' && c <= '~') {
					t.Errorf("%q: %v", eight, got)
				}
			}
		}
	}
}

func FuzzAppendEscaped(f *testing.F) {
	f.Add([]byte("a\x1b[2J\r\n\u202e\xff\u009b"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := appendEscaped(nil, data)
		if !utf8.Valid(got) {
			t.Errorf("%q becomes %q, which is not UTF-8", data, got)
		}
		for _, r := range string(got) {
			if unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q becomes %q, with %U", data, got, r)
			}
		}
		if bytes.Count(got, []byte("\n")) != bytes.Count(data, []byte("\n")) {
			t.Errorf("%q becomes %q, with other lines", data, got)
		}
	})
}
