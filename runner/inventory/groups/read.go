package groups

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"
)

// maxText bounds a file and what a command prints: the longest list of hosts is well within it.
const maxText = 64 << 20

// readText returns a text file. Its errors begin with the file's name, and the line where one shows that this is no text.
func readText(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", path, reason(err))
	case info.IsDir():
		return "", fmt.Errorf("%s: this is a directory; name a file", path)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s: this is no regular file, so reading it might never end", path)
	case info.Size() > maxText:
		return "", fmt.Errorf("%s: this file has %d bytes, and groups are read from at most %d", path, info.Size(), maxText)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, reason(err))
	}
	text := string(bytes.TrimPrefix(data, []byte("\ufeff")))
	if at, why := notText(text); why != "" {
		return "", fmt.Errorf("%s:%d: %s", path, 1+strings.Count(text[:at], "\n"), why)
	}
	return strings.ReplaceAll(text, "\r\n", "\n"), nil
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

// validName reports whether name can stand after an @. Commands get it too, some of them within their text, so it has no
// character that means something to a shell.
func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r >= utf8.RuneSelf || strings.ContainsRune("._-/+=", r))
	})
}
