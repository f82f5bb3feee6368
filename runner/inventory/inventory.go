// Package inventory turns what the user names, in hosts files and on the command line, into the hosts of a run.
//
//	hosts file ──Read──► Inventory ──Hosts──► transport.Host, one at a time, for the runner
//	-w, arguments ─Add──►    │  ▲               Name, and Port, User, Transport of its line or else the defaults
//	-x ──────────Exclude─────┘  └ one hostlist: each host once, in the order of first appearance
//
// # The hosts file
//
//	line     = [ hosts { setting } ] [ comment ] .
//	hosts    = an expression of package hostlist, which may have blanks in it .
//	setting  = blank ( "transport=" | "user=" | "port=" ) value .
//	comment  = "#" at the beginning of the line or after a blank, and all that follows .
//
// It is UTF-8 with or without a byte order mark; lines end with LF or CRLF, the last one with either or nothing. A file
// that is no such text is refused at the first line that shows it, however large the file is.
//
// A host that several lines name keeps the settings of the first. Lines that set different things for one host contradict
// each other, and the file is refused. Hosts of the command line bring no settings: where the file has some, they hold.
package inventory

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"multirsh/runner/hostlist"
	"multirsh/transport"
)

// Bounds on a hosts file, so that a wrong file is an error and not an endless wait. The longest possible list of hosts,
// a name a line, is well within them.
const (
	maxLine = 1 << 20
	maxFile = 512 << 20
)

// Inventory is the hosts of a run. The zero value has none.
type Inventory struct {
	list  hostlist.List
	name  string // of the file
	lines []line // by tag in list
	mixed bool   // not all lines of the file have the same settings
}

// line is where hosts come from: a line of the hosts file, or an expression of the command line, which is no line and sets nothing.
type line struct {
	number int
	set    settings
}

// place is how errors name a line.
func (inv *Inventory) place(number int) string { return fmt.Sprintf("%s:%d", inv.name, number) }

type settings struct {
	transport, user string
	port            uint16
}

func (s settings) String() string {
	var words []string
	if s.transport != "" {
		words = append(words, "transport="+s.transport)
	}
	if s.user != "" {
		words = append(words, "user="+s.user)
	}
	if s.port != 0 {
		words = append(words, "port="+strconv.Itoa(int(s.port)))
	}
	if words == nil {
		return "no settings"
	}
	return strings.Join(words, " ")
}

// Read reads a hosts file from r, to its end. The name is for errors, which begin "NAME:LINE: " and wrap a
// *hostlist.SyntaxError where an expression is at fault. Transports are the names that transport= may have. A file without
// hosts is an error.
func Read(r io.Reader, name string, transports []string) (*Inventory, error) {
	inv := &Inventory{name: name}
	b := bufio.NewReaderSize(r, maxLine)
	read := 0
	for number := 1; ; number++ {
		fail := func(err error) (*Inventory, error) { return nil, fmt.Errorf("%s: %w", inv.place(number), err) }
		text, err := b.ReadSlice('\n')
		if number == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		read += len(text)
		switch {
		case bytes.IndexByte(text, 0) >= 0:
			return fail(errors.New("there is a NUL byte here: a hosts file is UTF-8 text"))
		case errors.Is(err, bufio.ErrBufferFull):
			return fail(fmt.Errorf("this line is longer than %d bytes: give each group of hosts a line of its own", maxLine))
		case read > maxFile:
			return fail(fmt.Errorf("the file is longer than %d bytes: is this a hosts file?", maxFile))
		case err != nil && err != io.EOF:
			return fail(err)
		}
		text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
		if lerr := inv.line(number, string(text), transports); lerr != nil {
			return fail(lerr)
		}
		if err == io.EOF {
			if inv.Len() == 0 {
				return fail(errors.New("the file ends here and has named no host"))
			}
			return inv, nil
		}
	}
}

// line adds the hosts of one line.
func (inv *Inventory) line(number int, text string, transports []string) error {
	expr, words := cut(text)
	if expr == "" && len(words) == 0 {
		return nil
	}
	if expr == "" {
		return fmt.Errorf("%s stands without hosts: write them before it, on the same line", words[0])
	}
	if i := strings.IndexByte(expr, '\r'); i >= 0 {
		return errors.New("there is a carriage return inside this line: end lines with LF or CRLF")
	}
	set, err := parseSettings(words, transports)
	if err != nil {
		return err
	}
	hosts, err := hostlist.Hosts(expr)
	if err != nil {
		return err
	}
	if hosts.Len() == 0 {
		return fmt.Errorf("%s excludes all the hosts that it names", expr)
	}
	if len(inv.lines) > 0 && set != inv.lines[0].set {
		inv.mixed = true
	}
	if inv.mixed {
		for name, tag := range inv.list.Overlap(hosts) {
			if before := inv.lines[tag]; before.set != set {
				return fmt.Errorf("%s has %s here, but %s at %s: let one line set it", name, set, before.set, inv.place(before.number))
			}
		}
	}
	return inv.add(hosts, line{number, set})
}

func (inv *Inventory) add(hosts *hostlist.List, from line) error {
	inv.lines = append(inv.lines, from)
	return inv.list.AddTagged(hosts, len(inv.lines)-1)
}

// cut takes a line apart: the expression without blanks around it, and the words from the first that has a '='.
func cut(text string) (expr string, settings []string) {
	isBlank := func(c byte) bool { return c == ' ' || c == '\t' }
	hosts := -1 // where they end
	for i := 0; i < len(text); {
		if isBlank(text[i]) {
			i++
			continue
		}
		if text[i] == '#' {
			text = text[:i]
			break
		}
		start := i
		for i < len(text) && !isBlank(text[i]) {
			i++
		}
		if word := text[start:i]; hosts >= 0 || strings.Contains(word, "=") {
			if hosts < 0 {
				hosts = start
			}
			settings = append(settings, word)
		}
	}
	if hosts < 0 {
		hosts = len(text)
	}
	return strings.Trim(text[:hosts], " \t"), settings
}

func parseSettings(words, transports []string) (settings, error) {
	var set settings
	seen := map[string]bool{}
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return set, fmt.Errorf("%q stands after a setting: hosts come first, then settings such as user=ops", word)
		}
		if seen[key] {
			return set, fmt.Errorf("%s= is set twice on this line", key)
		}
		seen[key] = true
		switch key {
		case "transport":
			if !slices.Contains(transports, value) {
				return set, fmt.Errorf("there is no transport %q: there is %s", value, strings.Join(transports, ", "))
			}
			set.transport = value
		case "user":
			if value == "" || value[0] == '-' || strings.ContainsFunc(value, notInUser) {
				return set, fmt.Errorf("user=%q is no user name: expected letters, digits and punctuation, not beginning with '-'", value)
			}
			set.user = value
		case "port":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil || n == 0 {
				return set, fmt.Errorf("port=%q is no TCP port: expected a number from 1 to 65535", value)
			}
			set.port = uint16(n)
		default:
			return set, fmt.Errorf("there is no setting %q: there is transport=, user=, port=", key)
		}
	}
	return set, nil
}

// notInUser reports characters that no user name has, on any system: those that shells and protocols give a meaning.
func notInUser(r rune) bool {
	return r == unicode.ReplacementChar || !unicode.IsPrint(r) || strings.ContainsRune("\"'`$&|;<>()*?[]{}!/", r)
}

// Add adds the hosts of expressions of the command line. They come after those that are there already, and set nothing:
// what a hosts file sets for one of them holds. The error is a *hostlist.SyntaxError, or says that there are too many hosts.
func (inv *Inventory) Add(exprs ...string) error {
	for _, expr := range exprs {
		hosts, err := hostlist.Hosts(expr)
		if err != nil {
			return err
		}
		if err := inv.add(hosts, line{}); err != nil {
			return err
		}
	}
	return nil
}

// Exclude removes the hosts of all the expressions. Each item of them must name a host of the inventory, else nothing is
// removed; the error is a *hostlist.SyntaxError and names the near miss.
func (inv *Inventory) Exclude(exprs ...string) error { return inv.list.Exclude(exprs...) }

// Len is the number of hosts.
func (inv *Inventory) Len() int { return inv.list.Len() }

// Hosts iterates over the hosts, each made when its turn comes. Port, User and Transport of defaults are for the hosts
// whose line does not set them.
func (inv *Inventory) Hosts(defaults transport.Host) iter.Seq[transport.Host] {
	return func(yield func(transport.Host) bool) {
		for name, tag := range inv.list.Tagged() {
			set := inv.lines[tag].set
			h := transport.Host{Name: name, Port: set.port, User: set.user, Transport: set.transport}
			if h.Port == 0 {
				h.Port = defaults.Port
			}
			if h.User == "" {
				h.User = defaults.User
			}
			if h.Transport == "" {
				h.Transport = defaults.Transport
			}
			if !yield(h) {
				return
			}
		}
	}
}
