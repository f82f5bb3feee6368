package output

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"multirsh/runner/hostlist"
	"multirsh/transport"
)

// Normalize says in what outputs may differ and be folded all the same. Regexps are applied first, in their order, then the rest to what they
// have left. All of it is about what is compared: what is shown is some host's own text.
type Normalize struct {
	Host bool // the host's own name, in full or up to the first dot, and its address; in any case
	IP   bool // addresses, IPv4 and IPv6
	Time bool // dates and times of day, in the forms of RFC 3339, RFC 1123, date(1), syslog, ls(1) and web servers' logs
	Num  bool // runs of digits, with a fraction or without, and hexadecimal ones behind 0x

	Regexps []*Regexp
}

// the parts of Normalize by name. Regexps follow them where parts are counted.
var normalizable = []struct {
	name string
	on   func(*Normalize) *bool
}{
	{"host", func(n *Normalize) *bool { return &n.Host }},
	{"ip", func(n *Normalize) *bool { return &n.IP }},
	{"time", func(n *Normalize) *bool { return &n.Time }},
	{"num", func(n *Normalize) *bool { return &n.Num }},
}

const (
	partHost = iota
	partIP
	partTime
	partNum
	partRegexps // the first of them
)

// A mark stands for what a part has replaced: byte 0, which is rare in text, and the part's letter.
var markOf = [...]string{partHost: "\x00h", partIP: "\x00i", partTime: "\x00t", partNum: "\x00n"}

// SyntaxError says what is wrong with an option's value, and where.
type SyntaxError struct {
	Text   string // the whole value
	Offset int    // in bytes, of the place; len(Text): its end
	Msg    string
}

// Error is one line, without the caret.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%q, column %d: %s", e.Text, utf8.RuneCountInString(e.Text[:e.Offset])+1, e.Msg)
}

// Caret returns two lines without a final newline: the value, or the part of a long one around the place, and a caret under the place.
func (e *SyntaxError) Caret() string {
	return (&hostlist.SyntaxError{Expr: e.Text, Offset: e.Offset}).Caret()
}

// ParseNormalize reads a list of host, num, time and ip with commas between. Its errors are *SyntaxError.
func ParseNormalize(text string) (Normalize, error) {
	var n Normalize
	at := 0
words:
	for word := range strings.SplitSeq(text, ",") {
		name := strings.TrimSpace(word)
		for _, part := range normalizable {
			if name == part.name {
				*part.on(&n) = true
				at += len(word) + 1
				continue words
			}
		}
		at += strings.Index(word, name)
		if name == "" {
			return n, &SyntaxError{text, at, "host, num, time or ip is expected here"}
		}
		return n, &SyntaxError{text, at, fmt.Sprintf("there is no %q; host, num, time and ip can be disregarded", name)}
	}
	return n, nil
}

// Regexp is a substitution as of sed(1), within a line.
type Regexp struct {
	text   string
	re     *regexp.Regexp
	with   []replacement
	global bool
}

// replacement is a piece of what is put in: text, or if that is empty what a group has matched; group 0 is all.
type replacement struct {
	text  string
	group int
}

// String is the substitution as it was given.
func (r *Regexp) String() string { return r.text }

// ParseRegexp reads s/REGEXP/REPLACEMENT/FLAGS, with any other character in place of the slash. The syntax of REGEXP is Go's (RE2, which is
// that of egrep and perl without look-around and back-references); the slash is written \/ in it, and is then no operator. In REPLACEMENT &
// is what was matched, \1 to \9 are groups, \t is a tab, and a backslash takes the meaning from &, itself and the slash. FLAGS are g, for
// all matches of a line and not the first, and i, for any case. Errors are *SyntaxError.
func ParseRegexp(text string) (*Regexp, error) {
	fail := func(at int, format string, args ...any) (*Regexp, error) {
		return nil, &SyntaxError{text, at, fmt.Sprintf(format, args...)}
	}
	if !utf8.ValidString(text) {
		return fail(0, "this is not UTF-8")
	}
	if i := strings.IndexAny(text, "\n\x00"); i >= 0 {
		return fail(i, "a substitution is within one line")
	}
	if !strings.HasPrefix(text, "s") {
		return fail(0, "a substitution is expected, as in s/[0-9]+ ms/N ms/g")
	}
	delim, width := utf8.DecodeRuneInString(text[1:])
	switch {
	case width == 0:
		return fail(1, "a slash is expected here, as in s/[0-9]+ ms/N ms/g, or another character in its place")
	case delim == '\\':
		return fail(1, "a backslash cannot stand in place of the slash")
	}
	pattern := 1 + width
	patternEnd := closing(text, pattern, delim, true)
	if patternEnd < 0 {
		patternEnd = closing(text, pattern, delim, false) // a bracket is not closed: that is said below
	}
	if patternEnd < 0 {
		return fail(len(text), "%c is expected, and then what is to be put in", delim)
	}
	with := patternEnd + width
	withEnd := closing(text, with, delim, false)
	if withEnd < 0 {
		return fail(len(text), "%c is expected at the end", delim)
	}

	r := &Regexp{text: text}
	mode := ""
	for i, flag := range text[withEnd+width:] {
		switch flag {
		case 'g':
			r.global = true
		case 'i':
			mode = "(?i)"
		default:
			return fail(withEnd+width+i, "there is no flag %q: g is for all matches of a line, i for any case", flag)
		}
	}
	if patternEnd == pattern {
		return fail(pattern, "a regular expression is expected here")
	}
	literal := string(delim)
	source := strings.ReplaceAll(text[pattern:patternEnd], `\`+literal, "\x00")
	source = strings.ReplaceAll(source, "\x00", regexp.QuoteMeta(literal))
	var err error
	if r.re, err = regexp.Compile(mode + source); err != nil {
		at, why := pattern, err.Error()
		if bad := (*syntax.Error)(nil); errors.As(err, &bad) {
			why = bad.Code.String()
			if i := strings.Index(text[pattern:patternEnd], bad.Expr); i >= 0 {
				at += i
			}
		}
		return fail(at, "%s", why)
	}
	return r, r.parseReplacement(with, withEnd, literal)
}

// closing is the index of the next delimiter from i on that has no backslash before it and, in a pattern, does not stand in brackets.
func closing(text string, i int, delim rune, brackets bool) int {
	open := -1 // where the contents of a bracket begin
	for i < len(text) {
		r, width := utf8.DecodeRuneInString(text[i:])
		switch rest := text[i:]; {
		case r == '\\':
			_, next := utf8.DecodeRuneInString(rest[width:])
			width += next
		case open >= 0:
			if class := strings.Index(rest, ":]"); strings.HasPrefix(rest, "[:") && class > 0 {
				width = class + len(":]")
			} else if r == ']' && i > open {
				open = -1
			}
		case r == delim:
			return i
		case r == '[' && brackets:
			if strings.HasPrefix(rest, "[^") {
				width++
			}
			open = i + width
		}
		i += width
	}
	return -1
}

func (r *Regexp) parseReplacement(i, end int, delim string) error {
	var text []byte
	group := func(n int) {
		if len(text) > 0 {
			r.with = append(r.with, replacement{text: string(text)})
			text = nil
		}
		r.with = append(r.with, replacement{group: n})
	}
	for ; i < end; i++ {
		switch c := r.text[i]; {
		case c == '&' && delim != "&":
			group(0)
		case c != '\\':
			text = append(text, c)
		case strings.HasPrefix(r.text[i+1:], delim):
			text = append(text, delim...)
			i += len(delim)
		default:
			i++
			switch c := r.text[i]; {
			case c == '&' || c == '\\':
				text = append(text, c)
			case c == 't':
				text = append(text, '\t')
			case '1' <= c && c <= '9':
				n := int(c - '0')
				if n > r.re.NumSubexp() {
					return &SyntaxError{r.text, i - 1, fmt.Sprintf("the regular expression has no group %d", n)}
				}
				group(n)
			default:
				return &SyntaxError{r.text, i - 1, `after a backslash one of 1 to 9, &, t, \ and ` + delim + " is expected"}
			}
		}
	}
	if len(text) > 0 {
		r.with = append(r.with, replacement{text: string(text)})
	}
	return nil
}

// apply appends the line with the substitution done to dst, and gives what it replaces to replaced.
func (r *Regexp) apply(dst, line []byte, replaced func([]byte)) []byte {
	limit := 1
	if r.global {
		limit = -1
	}
	done := 0
	for _, m := range r.re.FindAllSubmatchIndex(line, limit) {
		dst = append(dst, line[done:m[0]]...)
		for _, w := range r.with {
			if w.text != "" {
				dst = append(dst, w.text...)
			} else if from := m[2*w.group]; from >= 0 {
				dst = append(dst, line[from:m[2*w.group+1]]...)
			}
		}
		replaced(line[m[0]:m[1]])
		done = m[1]
	}
	return append(dst, line[done:]...)
}

// marks tells whether there are marks to set, any whether there is anything to disregard at all.
func (n *Normalize) marks() bool { return n.Host || n.IP || n.Time || n.Num }
func (n *Normalize) any() bool   { return n.marks() || len(n.Regexps) > 0 }

// name is what the part is called for the user.
func (n *Normalize) name(part int) string {
	if part < partRegexps {
		return normalizable[part].name
	}
	return n.Regexps[part-partRegexps].String()
}

// normalizer applies a Normalize to the lines of hosts.
type normalizer struct {
	*Normalize
	one, two []byte
	wake     [256]bool // bytes that something may begin with, the names of hosts aside
}

func newNormalizer(n *Normalize) *normalizer {
	x := &normalizer{Normalize: n}
	for c := range x.wake {
		b := byte(c)
		x.wake[c] = isDigit(b) && (n.IP || n.Time || n.Num) || n.IP && (isHex(b) || b == ':') || n.Time && strings.IndexByte("JFMASONDTW", b) >= 0
	}
	return x
}

// replacements are hashes of what the parts have replaced in an output, to tell in what others differ.
type replacements []uint64

// note adds a text to the hash (FNV-1a) of the part.
func (r replacements) note(part int, text []byte) {
	h := r[part]
	for _, c := range text {
		h = (h ^ uint64(c)) * 1099511628211
	}
	r[part] = (h ^ 0xff) * 1099511628211
}

// differing is the set of parts of which not the same was replaced.
func (r replacements) differing(o replacements) (set uint64) {
	for part := range r {
		if r[part] != o[part] {
			set |= bit(part)
		}
	}
	return set
}

// hostNames are what Normalize.Host looks for, the longest first.
func hostNames(h *transport.Host) []string {
	var names []string
	short, _, _ := strings.Cut(h.Name, ".")
	if _, err := netip.ParseAddr(h.Name); err == nil {
		short = "" // of an address it would be any number
	}
	for _, name := range []string{h.Name, h.Addr, short} {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// appendLine appends the line to dst, with all that is disregarded replaced.
func (x *normalizer) appendLine(dst, whole []byte, names []string, r replacements) []byte {
	line := bytes.TrimSuffix(whole, []byte("\n"))
	newline := whole[len(line):]
	for i, re := range x.Regexps {
		x.one = re.apply(x.one[:0], line, func(text []byte) { r.note(partRegexps+i, text) })
		x.one, x.two = x.two, x.one
		line = x.two
	}
	if x.marks() {
		dst = x.replace(dst, line, names, r)
	} else {
		dst = append(dst, line...)
	}
	return append(dst, newline...)
}

// appendLong does so with a line of any length, in the pieces that Fold sees of it.
func (x *normalizer) appendLong(dst, line []byte, names []string, r replacements) []byte {
	for len(line) > 0 {
		n := min(len(line), maxHeld)
		dst = x.appendLine(dst, line[:n], names, r)
		line = line[n:]
	}
	return dst
}

// replace appends the line to dst, with marks.
func (x *normalizer) replace(dst, line []byte, names []string, r replacements) []byte {
	done := 0
	for i := 0; i < len(line); {
		atWord := i == 0 || !isWord(line[i-1])
		part, n := -1, 0
		if x.Host && atWord && isWord(line[i]) || x.wake[line[i]] {
			part, n = x.match(line, i, atWord, names)
		}
		if n == 0 {
			i++
			continue
		}
		dst = append(append(dst, line[done:i]...), markOf[part]...)
		r.note(part, line[i:i+n])
		i += n
		done = i
	}
	return append(dst, line[done:]...)
}

// match finds what begins at line[i]: the part and the length, which is 0 for nothing.
func (x *normalizer) match(line []byte, i int, atWord bool, names []string) (part, n int) {
	rest := line[i:]
	if x.Host && atWord && (i == 0 || line[i-1] != '-') {
		for _, name := range names {
			if n := len(name); n <= len(rest) && equalFold(rest[:n], name) && (n == len(rest) || !isWord(rest[n]) && rest[n] != '-') {
				return partHost, n
			}
		}
	}
	if x.IP && atWord && (i == 0 || line[i-1] != '.') {
		if n := matchIP(rest); n > 0 {
			return partIP, n
		}
	}
	if x.Time && atWord {
		if n := matchTime(rest); n > 0 {
			return partTime, n
		}
	}
	if x.Num && isDigit(rest[0]) {
		return partNum, matchNum(rest)
	}
	return 0, 0
}

// equalFold compares in any case, of ASCII as names of hosts are.
func equalFold(b []byte, name string) bool {
	for i, c := range b {
		d := name[i]
		if c != d && (c|0x20 != d|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isHex(c byte) bool   { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }
func isWord(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' || c >= utf8.RuneSelf
}

func digits(b []byte) int {
	n := 0
	for n < len(b) && isDigit(b[n]) {
		n++
	}
	return n
}

func matchNum(b []byte) int {
	if len(b) > 2 && b[0] == '0' && b[1]|0x20 == 'x' && isHex(b[2]) {
		n := 3
		for n < len(b) && isHex(b[n]) {
			n++
		}
		return n
	}
	n := digits(b)
	if n+1 < len(b) && b[n] == '.' && isDigit(b[n+1]) {
		n += 1 + digits(b[n+1:])
	}
	return n
}

// matchIP is the length of the address that b begins with. A version with four numbers looks like one too.
func matchIP(b []byte) int {
	n, colons, dots := 0, 0, 0
	for n < len(b) && n < len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")+1 {
		switch c := b[n]; {
		case c == ':':
			colons++
		case c == '.':
			dots++
		case !isHex(c):
			goto end
		}
		n++
	}
end:
	if n < len(b) && isWord(b[n]) {
		return 0
	}
	if colons >= 2 {
		for n := n; n > 1 && colons >= 2; n-- { // the last may be a sentence's
			if addr, err := netip.ParseAddr(string(b[:n])); err == nil && addr.Is6() {
				return n
			}
			if b[n-1] != ':' && b[n-1] != '.' {
				break
			}
		}
	}
	if dots < 3 {
		return 0
	}
	n = 0
	for octet := range 4 {
		if octet > 0 {
			if n >= len(b) || b[n] != '.' {
				return 0
			}
			n++
		}
		d := digits(b[n:])
		if d == 0 || d > 3 || d == 3 && string(b[n:n+3]) > "255" {
			return 0
		}
		n += d
	}
	if n < len(b) && (isWord(b[n]) || b[n] == '.' && n+1 < len(b) && isDigit(b[n+1])) {
		return 0
	}
	return n
}

// matchTime is the length of the date, time of day or both that b begins with. What it begins like tells which form it may have.
func matchTime(b []byte) int {
	b = b[:min(len(b), maxTime)]
	var form *regexp.Regexp
	switch n := digits(b); {
	case n == len(b):
	case n == 0:
		if len(b) > 3 && strings.Contains("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec Mon Tue Wed Thu Fri Sat Sun", string(b[:3])) {
			form = timeForms.words
		}
	case n <= 2 && b[n] == ':':
		form = timeForms.clock
	case n <= 2 && (b[n] == '/' || b[n] == '-' || b[n] == ' '):
		form = timeForms.day
	case n == 4 && (b[n] == '-' || b[n] == '/'), n == 8 && b[n] == 'T':
		form = timeForms.digits
	}
	if form == nil {
		return 0
	}
	m := form.FindIndex(b)
	if m == nil || m[1]+1 < len(b) && b[m[1]] == ':' && isDigit(b[m[1]+1]) {
		return 0
	}
	return m[1]
}

// maxTime is more than any of the forms takes.
const maxTime = 64

var timeForms = struct{ clock, day, words, digits *regexp.Regexp }{
	clock:  timeForm(`CLOCK`),
	day:    timeForm(`DAY[/-]MONTH[/-]YEAR(?:[: ]CLOCK|\b)|DAY +MONTH(?:(?:,? +YEAR\b)?,? +CLOCK|,? +YEAR\b)`),
	words:  timeForm(`(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +)?(?:MONTH +DAY\b|DAY +MONTH)(?:,? +YEAR\b)?(?:,? +CLOCK)?(?: +YEAR\b)?`),
	digits: timeForm(`\d{4}[-/](?:0[1-9]|1[0-2])[-/]DAY(?:[T ]CLOCK|\b)|\d{8}T\d{6}Z?\b`),
}

func timeForm(form string) *regexp.Regexp {
	return regexp.MustCompile(`^(?:` + strings.NewReplacer(
		"CLOCK", `(?:[01]?\d|2[0-3]):[0-5]\d(?::(?:[0-5]\d|60)(?:[.,]\d+)?)?(?:Z\b| ?[AaPp][Mm]\b|\b)(?: ?[+-]\d\d:?\d\d\b| (?:UTC|GMT|MSK|[A-Z]{1,4}T)\b)?`,
		"DAY", `(?:0?[1-9]|[12]\d|3[01])`,
		"MONTH", `(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b`,
		"YEAR", `(?:19|20|21)\d\d`,
	).Replace(form) + `)`)
}

// list is the parts of the set in words.
func (n *Normalize) list(set uint64) string {
	var names []string
	for part := range partRegexps + len(n.Regexps) {
		if set&bit(part) != 0 {
			names = append(names, n.name(part))
		}
	}
	if last := len(names) - 1; last > 0 {
		return strings.Join(names[:last], ", ") + " and " + names[last]
	}
	return strings.Join(names, "")
}

// bit is the part in a set of them. What comes after the 64th shares its bit.
func bit(part int) uint64 { return 1 << min(part, 63) }
