package groups

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds a file and what a command prints: the longest list of hosts is well within it.
const maxText = 64 << 20

// readText returns a text file, with LF for CRLF. Its errors begin with the file's name, and the line where one shows that this is no text.
func readText(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", path, reason(err))
	case info.IsDir():
		return "", fmt.Errorf("%s: this is a directory; name a file", path)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s: this is no regular file, so reading it might never end", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, reason(err))
	}
	defer f.Close()
	var b bytes.Buffer
	b.Grow(int(min(info.Size(), maxText)) + bytes.MinRead) // so that a large file is copied once
	if _, err := b.ReadFrom(io.LimitReader(f, maxText+1)); err != nil {
		return "", fmt.Errorf("%s: %w", path, reason(err))
	}
	if b.Len() > maxText {
		return "", fmt.Errorf("%s: this file has more than %d bytes: does it hold groups?", path, maxText)
	}
	text := strings.TrimPrefix(b.String(), "\ufeff")
	if at, why := notText(text); why != "" {
		return "", fmt.Errorf("%s:%d: %s", path, 1+strings.Count(text[:at], "\n"), why)
	}
	return strings.ReplaceAll(text, "\r\n", "\n"), nil
}

// lines iterates over the lines of a text and their numbers, which begin with 1.
func lines(text string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		number := 0
		for line := range strings.SplitSeq(text, "\n") {
			if number++; !yield(number, line) {
				return
			}
		}
	}
}

// notText says where text stops being text, and why.
func notText(text string) (at int, why string) {
	if at := strings.IndexByte(text, 0); at >= 0 {
		return at, "there is a NUL byte here: groups are read from UTF-8 text"
	}
	if utf8.ValidString(text) {
		return 0, ""
	}
	for at, r := range text {
		if _, size := utf8.DecodeRuneInString(text[at:]); r == utf8.RuneError && size == 1 {
			return at, fmt.Sprintf("byte 0x%02x is not UTF-8 text", text[at])
		}
	}
	return 0, ""
}

// reason is an error of a file without the operation and the name.
func reason(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

// uncomment returns the line without its comment, which begins with a '#' at the begin of the line or after a blank, and the blanks around it.
func uncomment(line string) string {
	for at := 0; ; at++ {
		i := strings.IndexByte(line[at:], '#')
		if i < 0 {
			return strings.TrimSpace(line)
		}
		if at += i; at == 0 || line[at-1] == ' ' || line[at-1] == '\t' {
			return strings.TrimSpace(line[:at])
		}
	}
}

// quote is text for an error: quoted, and not long.
func quote(text string) string {
	const most = 60
	if runes := []rune(text[:min(len(text), 4*most+4)]); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return fmt.Sprintf("%q", text)
}

// beside is the path of a file that another one names.
func beside(file, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(filepath.Dir(file), name)
}

// validName reports whether name can stand after an @. Commands get it too, some of them within their text and as an argument, so it has no
// character that means something to a shell, and does not begin like an option.
func validName(name string) bool {
	return name != "" && name[0] != '-' && !strings.ContainsFunc(name, func(r rune) bool {
		return !inName(r) && !strings.ContainsRune("/+=", r)
	})
}

// inName reports whether r can be in the name of a host, as package hostlist has it.
func inName(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.'
	}
	return r != utf8.RuneError && unicode.In(r, unicode.L, unicode.M, unicode.Nd)
}

// maxName is how long a host's name can be: RFC 1035, 2.3.4.
const maxName = 253

// plain reports whether a host expression that is name means the host of that name, and nothing else.
func plain(name string) bool {
	if strings.Contains(name, ":") {
		addr, err := netip.ParseAddr(name)
		return err == nil && !strings.ContainsFunc(addr.Zone(), func(r rune) bool { return !inName(r) })
	}
	return name != "" && len(name) <= maxName && name[0] != '-' && name[0] != '.' && !strings.ContainsFunc(name, func(r rune) bool { return !inName(r) })
}
