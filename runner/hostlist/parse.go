package hostlist

import (
	"fmt"
	"math/big"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the most bytes of a name (RFC 1035, 2.3.4).
const maxName = 253

// maxGroups is the most groups that one item may name.
const maxGroups = 100_000

// Expr is an expression that has been read. It may be evaluated many times, by any number of goroutines.
type Expr struct {
	text  string
	terms []term
}

// term is an item with the operator before it, or a run of plain names with commas or blanks between them.
type term struct {
	op       op
	off, end int       // where it stands
	entries  []entry   // names and ranges, in which names may be there twice
	names    bool      // it is plain names
	ref      *outside  // else: what it refers to
	target   *reaching // what it says besides names
}

// outside is what an item refers to: exactly one of groups, file and match.
type outside struct {
	groups []GroupRef
	file   string
	match  func(name []byte) bool
	filter bool // match is of a regular expression, which filters what stands before it wherever it stands
}

// reaching is what an item says about how its hosts are reached.
type reaching struct {
	transport, user string
	port            uint16
}

// Parse reads an expression; see the package comment for the grammar. Its error is a *SyntaxError.
func Parse(text string) (*Expr, error) {
	p := &parser{expr: text}
	p.blanks()
	for o, more := union, true; more; {
		err := p.item(o)
		if err == nil {
			o, more, err = p.separator()
		}
		if err != nil {
			return nil, err
		}
	}
	p.endRun()
	return &Expr{text, p.terms}, nil
}

type parser struct {
	expr  string
	pos   int
	terms []term
	run   builder // the names of the last term, if it is plain names
}

func (p *parser) fail(off int, format string, args ...any) *SyntaxError {
	return &SyntaxError{Expr: p.expr, Offset: off, Msg: fmt.Sprintf(format, args...)}
}

// peek returns the next byte, 0 at the end. (A real NUL is refused wherever it stands.)
func (p *parser) peek() byte {
	if p.pos < len(p.expr) {
		return p.expr[p.pos]
	}
	return 0
}

func (p *parser) end() bool { return p.pos == len(p.expr) }

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// endsItem reports whether c stands after an item and not in one.
func endsItem(c byte) bool { return isBlank(c) || c == ',' || c == '!' || c == '&' || c == '^' }

// blanks skips blanks and reports whether there were any.
func (p *parser) blanks() bool {
	start := p.pos
	for isBlank(p.peek()) {
		p.pos++
	}
	return p.pos > start
}

// separator reads what stands between two items and says whether an item follows, and what it does.
func (p *parser) separator() (o op, more bool, err error) {
	blanks := p.blanks()
	comma := p.peek() == ','
	if comma {
		p.pos++
		blanks = p.blanks() || blanks
	}
	if p.end() {
		return union, false, nil
	}
	switch c := p.peek(); {
	case c == '!' && blanks, c == '&' && blanks && !comma:
		return 0, false, p.noBlanks(c)
	case c == '!':
		o = difference
	case comma: // whatever it is, it begins an item
		return union, true, nil
	case c == '&':
		o = intersection
	case c == '^' && !blanks:
		o = symmetric
	default:
		return union, true, nil
	}
	p.pos++
	if isBlank(p.peek()) {
		return 0, false, p.noBlanks(p.expr[p.pos-1])
	}
	return o, true, nil
}

func (p *parser) noBlanks(c byte) error {
	return p.fail(p.pos, "'%c' takes no blanks around it: write a%cb", c, c)
}

// signs are how operators are written.
var signs = [...]string{union: ",", difference: "!", intersection: "&", symmetric: "^"}

// item reads one item, which does o.
func (p *parser) item(o op) error {
	if o == union && p.plain() {
		return nil
	}
	p.endRun()
	start := p.pos
	sign := signs[o]
	if o == union && p.peek() == '-' {
		if len(p.terms) == 0 {
			return p.fail(start, "'-' excludes from the hosts before it: expected a host name first")
		}
		p.pos++
		o, sign = difference, "-"
	}
	t := term{op: o, off: p.pos}
	var err error
	switch c := p.peek(); {
	case p.end() && o == union:
		return p.fail(p.pos, "expected a host name, found nothing")
	case p.end() || isBlank(c):
		return p.fail(p.pos, "expected a host after '%s'", sign)
	case c == ',':
		return p.fail(p.pos, "empty item: expected a host name, found ','")
	case c == '!':
		return p.fail(p.pos, "'!' excludes from the hosts before it: expected a host name first")
	case c == '&':
		return p.fail(p.pos, "'&' keeps some of the hosts before it: expected a host name first")
	case c == '-':
		return p.fail(p.pos, "a host name does not begin with '-'")
	case c == '/':
		err = p.regexp(&t)
	case c == '^':
		err = p.file(&t)
	default:
		err = p.host(&t)
	}
	if err != nil {
		return err
	}
	if !p.end() && !endsItem(p.peek()) {
		return p.stray()
	}
	if t.target != nil && o != union {
		return p.fail(t.off, "a target says how a host is reached, and '%s' only chooses: leave out transport, user and port", sign)
	}
	t.end = p.pos
	p.terms = append(p.terms, t)
	return nil
}

// plain reads a name and nothing else, which is what most items of long lists are.
func (p *parser) plain() bool {
	i := p.pos
	for i < len(p.expr) && isPlain[p.expr[i]] {
		i++
	}
	if i == p.pos || i-p.pos > maxName || p.expr[p.pos] == '-' || p.expr[p.pos] == '.' || i < len(p.expr) && !endsItem(p.expr[i]) {
		return false
	}
	n := len(p.terms) - 1
	if n < 0 || !p.terms[n].names {
		p.terms = append(p.terms, term{off: p.pos, names: true})
		n++
	}
	p.run.add(p.expr[p.pos:i], int32(n))
	p.terms[n].end = i
	p.pos = i
	return true
}

// endRun ends a run of plain names.
func (p *parser) endRun() {
	if n := len(p.terms) - 1; n >= 0 && p.terms[n].names && p.terms[n].entries == nil {
		p.terms[n].entries = p.run.entries
		p.run = builder{}
	}
}

// isPlain are the ASCII characters of names.
var isPlain = func() (is [256]bool) {
	for c := range rune(utf8.RuneSelf) {
		is[c] = inName(c)
	}
	return is
}()

// inName reports whether a name may have r in it. Letters of all scripts are let through: it is for the resolver to know them.
func inName(r rune) bool {
	switch {
	case r == utf8.RuneError:
		return false
	case r < utf8.RuneSelf:
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.'
	}
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd)
}

// regexp reads /re/.
func (p *parser) regexp(t *term) error {
	var re strings.Builder
	start := p.pos
	p.pos++
	for {
		switch c := p.peek(); {
		case p.end():
			return p.fail(start, "this regular expression is never closed: expected '/'")
		case c == '\\' && strings.HasPrefix(p.expr[p.pos:], `\/`):
			p.pos++
			re.WriteByte('/')
		case c == '\\' && p.pos+1 < len(p.expr):
			p.pos++
			re.WriteString(p.expr[p.pos-1 : p.pos+1])
		case c == '/':
			return p.compile(t, start, re.String())
		default:
			re.WriteByte(c)
		}
		p.pos++
	}
}

// compile makes the filter of the regular expression that ends here.
func (p *parser) compile(t *term, start int, text string) error {
	raw := p.expr[start+1 : p.pos]
	p.pos++
	switch {
	case raw == "":
		return p.fail(start, "empty regular expression: expected something between the slashes")
	case t.op == symmetric:
		return p.fail(start, "a regular expression filters the hosts before it: write ',' or '!' instead of '^'")
	case !p.end() && !endsItem(p.peek()):
		return p.fail(p.pos, "the regular expression ends at the '/' before this: expected ',' or a blank (a file is written ^/path, a slash in the expression \\/)")
	}
	re, err := regexp.Compile(text)
	if err != nil {
		off, msg := start+1, err.Error()
		if se, ok := err.(*syntax.Error); ok {
			msg = se.Code.String()
			if i := strings.Index(raw, se.Expr); i >= 0 && se.Expr != "" {
				off += i
				msg += ": " + strings.ToValidUTF8(se.Expr, string(utf8.RuneError))
			}
		}
		return p.fail(off, "bad regular expression: %s", msg)
	}
	t.ref = &outside{match: re.Match, filter: true}
	return nil
}

// file reads ^FILE.
func (p *parser) file(t *term) error {
	p.pos++
	start := p.pos
	for !p.end() && !endsItem(p.peek()) {
		r, n := utf8.DecodeRuneInString(p.expr[p.pos:])
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return p.fail(p.pos, "expected the name of a file, found %s", p.found())
		}
		p.pos += n
	}
	if p.pos == start {
		return p.fail(start, "expected the name of a file after '^'")
	}
	t.ref = &outside{file: p.expr[start:p.pos]}
	return nil
}

// host reads [transport:][user@]EXPR[:port].
func (p *parser) host(t *term) error {
	to, err := p.reaching()
	if err != nil {
		return err
	}
	switch word := p.word(); {
	case word == "":
		return p.fail(p.pos, "expected a host name after '%c'", p.expr[p.pos-1])
	case word[0] == '@':
		err = p.group(t)
	default:
		var is bool
		if is, err = p.address(t, word); !is {
			err = p.pattern(t)
		}
	}
	if err == nil && p.peek() == ':' {
		to.port, err = p.port()
	}
	if to.transport != "" || to.user != "" || to.port != 0 {
		t.target = &to
	}
	return err
}

func (p *parser) noIPv6() error {
	return p.fail(p.pos, "two colons stand only in an IPv6 address such as fe80::1%%eth0, and this is none")
}

// word returns the text up to what ends the item. Brackets may hold commas.
func (p *parser) word() string {
	inside := false
	for i := p.pos; i < len(p.expr); i++ {
		switch c := p.expr[i]; {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case isBlank(c) || !inside && endsItem(c):
			return p.expr[p.pos:i]
		}
	}
	return p.expr[p.pos:]
}

// reaching reads [transport:][user@].
func (p *parser) reaching() (reaching, error) {
	var to reaching
	word := p.word()
	if _, _, ok := ipv6(word); ok || word == "" || word[0] == '@' {
		return to, nil
	}
	if before, after, ok := strings.Cut(word, ":"); ok && before != "" && isWord(before) && !isPort(after) {
		if _, _, ok := ipv6(after); !ok && after[0] == ':' {
			p.pos += len(before)
			return to, p.noIPv6()
		}
		to.transport = before
		p.pos += len(before) + 1
		word = after
	}
	if before, _, ok := strings.Cut(word, "@"); ok && before != "" && !strings.ContainsAny(before, "[]") {
		for i, r := range before {
			if !inName(r) && r != '\\' && r != '+' && (r != '$' || i == 0 || i+1 < len(before)) || i == 0 && r == '-' {
				return to, p.fail(p.pos+i, "'%c' cannot be part of a user name before '@'", r)
			}
		}
		to.user = before
		p.pos += len(before) + 1
	}
	return to, nil
}

// isWord reports whether text can be the name of a transport.
func isWord(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf || r == '.' || !inName(r) }) < 0
}

// isPort reports whether text, which stands after a colon, is meant to be a port.
func isPort(text string) bool {
	return text == "" || strings.Trim(text, "0123456789") == ""
}

// port reads :port.
func (p *parser) port() (uint16, error) {
	p.pos++
	start := p.pos
	for isDigit(p.peek()) {
		p.pos++
	}
	n, err := strconv.ParseUint(p.expr[start:p.pos], 10, 16)
	if err != nil || n == 0 || !p.end() && !endsItem(p.peek()) {
		return 0, p.fail(start, "expected a port after ':', a number from 1 to 65535")
	}
	return uint16(n), nil
}

// A piece of an item: text, or numbers in brackets, or a wildcard.
type piece struct {
	text  string
	spans []span
	wild  byte // '*' or '?'
}

// pattern reads a name that may have brackets and wildcards in it.
func (p *parser) pattern(t *term) error {
	start := p.pos
	if c := p.peek(); c == '.' || c == '-' {
		return p.fail(start, "a host name does not begin with '%c'", c)
	}
	pieces, err := p.pieces(p.nameRune, "*?")
	switch {
	case err != nil:
		return err
	case strings.HasPrefix(p.expr[p.pos:], "::"):
		return p.noIPv6()
	case pieces == nil:
		return p.fail(p.pos, "expected a host name, found %s", p.found())
	}
	for _, pc := range pieces {
		if pc.wild != 0 {
			t.ref = &outside{match: glob(pieces).match}
			return nil
		}
	}
	if n := combinations(pieces); n.Cmp(big.NewInt(MaxHosts)) > 0 {
		return p.fail(start, "this names %s hosts, and at most %d are possible", n, MaxHosts)
	}
	e, longest, err := p.tree(pieces, start)
	if err != nil {
		return err
	}
	if longest > maxName {
		return p.fail(start, "this name is %d bytes long, and host names have at most %d", longest, maxName)
	}
	t.entries = []entry{e}
	return nil
}

// pieces reads text, brackets and those wildcards that may stand here, up to a ':' or '/' or the end of the item. It leaves
// characters to next, which takes one or fails.
func (p *parser) pieces(next func() error, wildcards string) ([]piece, error) {
	var pieces []piece
	text := p.pos
	flush := func() {
		if p.pos > text {
			pieces = append(pieces, piece{text: p.expr[text:p.pos]})
		}
	}
	for !p.end() {
		switch c := p.peek(); {
		case endsItem(c) || c == ':':
			flush()
			return pieces, nil
		case c == '[':
			flush()
			spans, err := p.set()
			if err != nil {
				return nil, err
			}
			pieces = append(pieces, piece{spans: spans})
			text = p.pos
		case strings.IndexByte(wildcards, c) >= 0:
			flush()
			pieces = append(pieces, piece{wild: c})
			p.pos++
			text = p.pos
		case c == '/' && wildcards != "": // a name, and no group
			flush()
			return pieces, nil
		default:
			if err := next(); err != nil {
				return nil, err
			}
		}
	}
	flush()
	return pieces, nil
}

// combinations is how many texts pieces make, which fits no machine word when a finger has slipped.
func combinations(pieces []piece) *big.Int {
	n := big.NewInt(1)
	for _, pc := range pieces {
		if pc.spans == nil {
			continue
		}
		sum := new(big.Int)
		for _, s := range pc.spans {
			sum.Add(sum, new(big.Int).SetUint64(uint64(s.count())))
		}
		n.Mul(n, sum)
	}
	return n
}

// tree makes the names of pieces, which begin at start, and says how long the longest is.
func (p *parser) tree(pieces []piece, start int) (e entry, longest int, err error) {
	var shape strings.Builder
	var axes [][]span
	var digits []piece // the run of digits that is being read
	endDigits := func() {
		width, varies, text := 0, false, ""
		for _, pc := range digits {
			most := len(pc.text)
			for _, s := range pc.spans {
				most = max(most, s.lo.width())
				varies = varies || len(pc.spans) > 1 || s.lo != s.hi
			}
			if pc.spans != nil {
				text += string(pc.spans[0].lo.append(nil))
			}
			text += pc.text
			width += most
		}
		longest += width
		switch {
		case len(digits) == 0:
		case width > maxDigits && varies:
			err = p.fail(start, "a number that varies has at most %d digits, with the digits beside its brackets, and one here has %d", maxDigits, width)
		case width > maxDigits:
			shape.WriteString(text)
		default:
			var axis []span
			for i, pc := range digits {
				spans := pc.spans
				if spans == nil {
					v, _ := strconv.ParseUint(pc.text, 10, 64)
					spans = []span{point(makeCoord(v, len(pc.text)))}
				}
				if i == 0 {
					axis = spans
				} else {
					axis = beside(axis, spans)
				}
			}
			axes = append(axes, axis)
			shape.WriteString(gap)
		}
		digits = digits[:0]
	}
	for _, pc := range pieces {
		if pc.spans != nil {
			digits = append(digits, pc)
			continue
		}
		for rest := pc.text; rest != ""; {
			n := 0
			for n < len(rest) && isDigit(rest[n]) {
				n++
			}
			if n > 0 {
				digits = append(digits, piece{text: rest[:n]})
				rest = rest[n:]
				continue
			}
			for n < len(rest) && !isDigit(rest[n]) {
				n++
			}
			endDigits()
			shape.WriteString(rest[:n])
			longest += n
			rest = rest[n:]
		}
	}
	if endDigits(); err != nil {
		return entry{}, 0, err
	}
	return entry{shape: shape.String(), root: product(axes)}, longest, nil
}

// nameRune reads one character of a name.
func (p *parser) nameRune() error {
	r, n := utf8.DecodeRuneInString(p.expr[p.pos:])
	if !inName(r) {
		return p.stray()
	}
	p.pos += n
	return nil
}

// stray is the error for what cannot stand here.
func (p *parser) stray() error {
	r, n := utf8.DecodeRuneInString(p.expr[p.pos:])
	switch {
	case r == utf8.RuneError && n == 1:
		return p.fail(p.pos, "byte 0x%02x is not UTF-8 text", p.expr[p.pos])
	case r == ']':
		return p.fail(p.pos, "']' without a '[' before it")
	case r == '%':
		return p.fail(p.pos, "'%%' stands only in an IPv6 address such as fe80::1%%eth0, and this is none")
	case r == '/':
		return p.fail(p.pos, "'/' stands here only after an IPv4 address, as in 10.1.0.0/28: a regular expression begins an item")
	case r == '@':
		return p.fail(p.pos, "'@' stands only before a group or after a user name")
	case r == '[':
		return p.fail(p.pos, "brackets cannot stand here")
	case unicode.IsPrint(r):
		return p.fail(p.pos, "'%c' cannot be part of a host name: expected letters, digits, '-', '_', '.' or '['", r)
	}
	return p.fail(p.pos, "the character %U cannot be part of a host name", r)
}

// group reads @group or @source:group.
func (p *parser) group(t *term) error {
	p.pos++
	start := p.pos
	source := ""
	for {
		if p.peek() == '*' {
			p.pos++
			if !p.end() && !endsItem(p.peek()) && p.peek() != ':' {
				return p.loneStar(p.pos - 1)
			}
			t.ref = &outside{groups: []GroupRef{{source, "*"}}}
			return nil
		}
		pieces, err := p.pieces(p.groupRune, "")
		if err != nil {
			return err
		}
		if pieces == nil {
			return p.fail(p.pos, "expected the name of a group, found %s", p.found())
		}
		if p.peek() == ':' && !isPort(p.word()[1:]) && source == "" && len(pieces) == 1 && pieces[0].spans == nil {
			source = pieces[0].text
			p.pos++
			continue
		}
		if n := combinations(pieces); n.Cmp(big.NewInt(maxGroups)) > 0 {
			return p.fail(start, "this names %s groups, and at most %d are possible in one item", n, maxGroups)
		}
		t.ref = new(outside)
		for name := range texts(pieces) {
			t.ref.groups = append(t.ref.groups, GroupRef{source, name})
		}
		return nil
	}
}

// groupRune reads one character of the name of a group or a source.
func (p *parser) groupRune() error {
	r, n := utf8.DecodeRuneInString(p.expr[p.pos:])
	switch {
	case inName(r) || r == '+' || r == '/' || r == '=':
		p.pos += n
		return nil
	case r == '*':
		return p.loneStar(p.pos)
	case r < utf8.RuneSelf && unicode.IsPrint(r):
		return p.fail(p.pos, "'%c' cannot be part of a group's name: expected letters, digits, '.', '_', '-', '/', '+', '=' or '['", r)
	}
	return p.stray()
}

func (p *parser) loneStar(off int) error {
	return p.fail(off, "'*' stands alone, for all hosts: @* or @source:*")
}

// texts iterates over the texts that pieces make.
func texts(pieces []piece) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		var walk func(text string, pieces []piece) bool
		walk = func(text string, pieces []piece) bool {
			if len(pieces) == 0 {
				return yield(text)
			}
			if pieces[0].spans == nil {
				return walk(text+pieces[0].text, pieces[1:])
			}
			for _, s := range pieces[0].spans {
				for c, n := s.lo, s.count(); n > 0; c, n = c+coord(s.step), n-1 {
					if !walk(text+string(c.append(nil)), pieces[1:]) {
						return false
					}
				}
			}
			return true
		}
		walk("", pieces)
	}
}

// set reads the ranges between '[' and ']'.
func (p *parser) set() ([]span, error) {
	open := p.pos
	p.pos++
	var spans []span
	for {
		start := p.pos
		lo, err := p.number(open)
		if err != nil {
			return nil, err
		}
		width := p.pos - start
		hi, step := lo, uint64(1)
		if p.peek() == '-' {
			p.pos++
			at := p.pos
			if hi, err = p.number(open); err != nil {
				return nil, err
			}
			text := p.expr[start:p.pos]
			if high := p.expr[at:p.pos]; high[0] == '0' && len(high) > 1 && len(high) != width {
				return nil, p.fail(at, "in %s the high end is padded to %d digits and the low end to %d: pad both alike, as in %0*d-%s", text, len(high), width, len(high), lo, high)
			}
			if hi < lo {
				return nil, p.fail(start, "%s runs backwards: expected the lower number first", text)
			}
			if p.peek() == '/' {
				p.pos++
				at := p.pos
				if step, err = p.number(open); err != nil {
					return nil, err
				}
				if step == 0 {
					return nil, p.fail(at, "a step of 0 never arrives: expected 1 or more")
				}
			}
		}
		spans = appendRange(spans, lo, hi, step, width)
		switch c := p.peek(); {
		case c == ',':
			p.pos++
		case c == ']':
			p.pos++
			return spans, nil
		case p.end():
			return nil, p.unclosed(open)
		case c == '/':
			return nil, p.fail(p.pos, "a step needs a range before it, as in 0-8/2")
		default:
			return nil, p.fail(p.pos, "expected ',' or ']' after the number, found %s", p.found())
		}
	}
}

// number reads a number inside the brackets that begin at open.
func (p *parser) number(open int) (uint64, error) {
	start := p.pos
	var v uint64
	for isDigit(p.peek()) {
		if p.pos-start == maxDigits {
			return 0, p.fail(start, "a number in brackets has at most %d digits", maxDigits)
		}
		v = 10*v + uint64(p.peek()-'0')
		p.pos++
	}
	switch {
	case p.pos > start:
		return v, nil
	case p.end():
		return 0, p.unclosed(open)
	case p.peek() == ']' && p.pos == open+1:
		return 0, p.fail(open, "empty brackets: expected numbers, as in [1-8,12]")
	}
	return 0, p.fail(p.pos, "expected a number, found %s", p.found())
}

func (p *parser) unclosed(open int) error {
	return p.fail(open, "this '[' is never closed: expected ']'")
}

// found names the next character, if there is one.
func (p *parser) found() string {
	if p.end() {
		return "nothing"
	}
	r, n := utf8.DecodeRuneInString(p.expr[p.pos:])
	switch {
	case r == utf8.RuneError && n == 1:
		return fmt.Sprintf("byte 0x%02x", p.expr[p.pos])
	case isBlank(byte(r)) && n == 1:
		return "a blank"
	case unicode.IsPrint(r):
		return fmt.Sprintf("'%c'", r)
	}
	return fmt.Sprintf("%U", r)
}
