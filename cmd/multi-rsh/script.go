package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// maxScript is what a local script may have, since it crosses to every host.
const maxScript = 16 << 20

// script is a local one that is to be run on the hosts.
type script struct {
	text        []byte
	name        string   // its file is called so on the hosts
	interpreter []string // of its first line
	id          string   // follows it in the input: what the host has kept is the script, and not what came behind it
}

// readScript reads the file of --script, or standard input.
func readScript(name string, stdin io.Reader) (*script, error) {
	wrong := func(format string, args ...any) error {
		return usagef("--script %s: %s", name, fmt.Sprintf(format, args...))
	}
	var id [8]byte
	rand.Read(id[:]) // never fails
	s := &script{name: "script", id: hex.EncodeToString(id[:])}
	from := stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, wrong("%v", reason(err))
		}
		defer file.Close()
		from = file
		if base := filepath.Base(name); fileName.MatchString(base) {
			s.name = base
		}
	}
	var err error
	if s.text, err = io.ReadAll(io.LimitReader(from, maxScript+1)); err != nil {
		return nil, wrong("%v", reason(err))
	}
	switch {
	case len(s.text) == 0:
		return nil, wrong("it is empty")
	case len(s.text) > maxScript:
		return nil, wrong("it is larger than %d MiB; give its data as --input", maxScript>>20)
	}
	first, isScript := bytes.CutPrefix(s.text, []byte("#!"))
	if !isScript {
		if bytes.IndexByte(s.text[:min(len(s.text), 8<<10)], 0) >= 0 {
			return nil, wrong("this is no script but a program; copy it with --input FILE 'cat >prog; chmod +x prog'")
		}
		s.interpreter = []string{"/bin/sh"}
		return s, nil
	}
	first, _, _ = bytes.Cut(first, []byte("\n"))
	if bytes.HasSuffix(first, []byte("\r")) {
		return nil, wrong("its lines end with CR LF, which no interpreter has in its name; dos2unix mends that")
	}
	// As execve(2): a path, and what follows is one argument.
	path, argument := strings.Trim(string(first), " \t"), ""
	if i := strings.IndexAny(path, " \t"); i >= 0 {
		path, argument = path[:i], path[i:]
	}
	if path == "" || strings.IndexByte(string(first), 0) >= 0 {
		return nil, wrong("its first line names no interpreter; write #!/bin/sh there")
	}
	s.interpreter = []string{path}
	if argument = strings.Trim(argument, " \t"); argument != "" {
		s.interpreter = append(s.interpreter, argument)
	}
	return s, nil
}

// fileName is what a script may be called on the hosts.
var fileName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// command runs the script on a host, with what follows it in the input as its own: a file in a folder of its own, private to the user and removed
// at the end. Hosts may share that place, and even the numbers of their processes. Only SIGKILL leaves it there. Its interpreter is named, so that a /tmp without execution does no harm. dd takes exactly that many bytes
// of a pipe: only with fullblock does it wait for a block that comes in pieces, and one that does not know it has read nothing when it says so.
// The braces are doubled where the command is a template.
func (s *script) command(arguments []string, input, template bool) string {
	n := strconv.Itoa(len(s.text))
	stdin := ""
	if !input {
		stdin = " </dev/null"
	}
	words := `"$mr_1" `
	set := `mr_1=$1; shift; `
	if len(s.interpreter) > 1 {
		words, set = `"$mr_1" "$mr_2" `, `mr_1=$1; mr_2=$2; shift 2; `
	}
	// No quote, backslash, newline or ! within the one pair of quotes: csh and fish alter those.
	line := `exec /bin/sh -c '` + set + `mr_t=${TMPDIR:-/tmp}; mr_d=$(mktemp -d "$mr_t/multi-rsh-XXXXXXXX" 2>/dev/null) || ` +
		`{ mr_d=$mr_t/multi-rsh-` + s.id + `-$(uname -n)-$$; mkdir -m 700 "$mr_d"; } && { mr_end() { mr_s=${1:-$?}; trap - 0; rm -rf "$mr_d"; exit $mr_s; }; ` +
		`trap mr_end 0; trap "mr_end 129" 1; trap "mr_end 130" 2; trap "mr_end 143" 15; mr_f=$mr_d/` + s.name + `; ` +
		`{ dd bs=` + n + ` count=1 iflag=fullblock 2>/dev/null || dd ibs=1 obs=65536 count=` + n + ` 2>/dev/null; } >"$mr_f" && ` +
		`[ "$(($(wc -c <"$mr_f")))" = ` + n + ` ] && read -r mr_n && [ "$mr_n" = ` + s.id + ` ]; } || ` +
		`{ echo "multi-rsh: the script could not be kept in $mr_d" >&2; exit 126; }; ` +
		words + `"$mr_f" "$@"` + stdin + `; mr_end $?' sh ` + quoteWords(s.interpreter)
	if template {
		line = strings.NewReplacer("{", "{{", "}", "}}").Replace(line)
	}
	if len(arguments) > 0 {
		line += " " + quoteWords(arguments)
	}
	return line
}

// followed is the script and then the input, "" for none, as one stream.
func (s *script) followed(input string, stdin io.Reader) (io.ReadCloser, error) {
	head := io.MultiReader(bytes.NewReader(s.text), strings.NewReader(s.id+"\n"))
	if input == "" {
		return io.NopCloser(head), nil
	}
	if input == "-" {
		return io.NopCloser(io.MultiReader(head, stdin)), nil
	}
	file, err := os.Open(input)
	if err != nil {
		return nil, usagef("--input %s: %v", input, reason(err))
	}
	if info, err := file.Stat(); err == nil && info.IsDir() {
		file.Close()
		return nil, usagef("--input %s: this is a directory; name a file", input)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(head, file), file}, nil
}
