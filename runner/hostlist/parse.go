package hostlist

import (
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxHosts is the most hosts that a list may have.
const MaxHosts = 10_000_000

// maxName is the most bytes of a name (RFC 1035, 2.3.4).
const maxName = 253

// Hosts reads an expression that needs nothing but itself. Its error is a *SyntaxError. The list may be empty, as that of "a!a" is.
func Hosts(expr string) (*List, error) {
	p := &parser{expr: expr}
	l := new(List)
	p.blanks()
	exclude := false
	for {
		off := p.pos
		name, pat, err := p.item()
		if err != nil {
			return nil, err
		}
		if exclude {
			x := new(List)
			x.addItem(name, pat, off)
			if err := l.remove(x, expr); err != nil {
				return nil, err
			}
		} else if l.addItem(name, pat, off); l.Len() > MaxHosts {
			return nil, p.fail(off, "with this the list has %d hosts, and at most %d are possible", l.Len(), MaxHosts)
		}
		more := false
		if more, exclude, err = p.separator(); err != nil {
			return nil, err
		}
		if !more {
			return l, nil
		}
	}
}

type parser struct {
	expr string
	pos  int
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

// blanks skips blanks and reports whether there were any.
func (p *parser) blanks() bool {
	start := p.pos
	for isBlank(p.peek()) {
		p.pos++
	}
	return p.pos > start
}

// separator reads what stands between two items and says whether an item follows, and whether it is to be excluded.
func (p *parser) separator() (more, exclude bool, err error) {
	blanks := p.blanks()
	comma := p.peek() == ','
	if comma {
		p.pos++
		if p.peek() != '!' {
			blanks = p.blanks() || blanks
		}
	}
	switch {
	case p.end():
		return false, false, nil
	case p.peek() == '!' && blanks:
		return false, false, p.fail(p.pos, "'!' takes no blanks around it: write a!b")
	case p.peek() == '!':
		p.pos++
		return true, true, nil
	}
	return true, false, nil
}

// item reads one item: a plain name, or a pattern where it has more than one name.
func (p *parser) item() (string, *pattern, error) {
	start := p.pos
	switch c := p.peek(); {
	case p.end() && start > 0 && p.expr[start-1] == '!':
		return "", nil, p.fail(start, "expected a host after '!'")
	case p.end():
		return "", nil, p.fail(start, "expected a host name, found nothing")
	case c == ',':
		return "", nil, p.fail(start, "empty item: expected a host name, found ','")
	case c == '!':
		return "", nil, p.fail(start, "'!' excludes from the hosts before it: expected a host name first")
	case isBlank(c):
		return "", nil, p.fail(start, "'!' takes no blanks around it: write a!b")
	case c == '-':
		return "", nil, p.fail(start, "a host name does not begin with '-'; to exclude hosts write '!', as in node[1-9]!node3")
	case c == '.':
		return "", nil, p.fail(start, "a host name does not begin with '.'")
	}
	if name, ok := p.ipv6(); ok {
		return name, nil, nil
	}
	var lits []string // lits[i] is the text before ranges[i]
	var ranges [][]span
	lit := p.pos
	for !p.end() && p.peek() != ',' && p.peek() != '!' && !isBlank(p.peek()) {
		if p.peek() != '[' {
			if err := p.nameRune(); err != nil {
				return "", nil, err
			}
			continue
		}
		lits = append(lits, p.expr[lit:p.pos])
		spans, err := p.set()
		if err != nil {
			return "", nil, err
		}
		ranges = append(ranges, spans)
		lit = p.pos
	}
	if len(ranges) == 0 {
		name := p.expr[start:p.pos]
		if len(name) > maxName {
			return "", nil, p.tooLong(start, len(name))
		}
		return name, nil, nil
	}
	if size := product(ranges); size.Cmp(big.NewInt(MaxHosts)) > 0 {
		return "", nil, p.fail(start, "this names %s hosts, and at most %d are possible", size, MaxHosts)
	}
	pat := build(append(lits, p.expr[lit:p.pos]), ranges)
	if len(pat.max) > maxName {
		return "", nil, p.tooLong(start, len(pat.max))
	}
	if len(pat.sets) == 0 {
		return pat.max, nil, nil
	}
	return "", pat, nil
}

func (p *parser) tooLong(off, n int) error {
	return p.fail(off, "this name is %d bytes long, and host names have at most %d", n, maxName)
}

// product is how many names the ranges of an item make, which fits no machine word when a finger has slipped.
func product(ranges [][]span) *big.Int {
	size := big.NewInt(1)
	for _, spans := range ranges {
		n := new(big.Int)
		for _, s := range spans {
			n.Add(n, new(big.Int).SetUint64(s.count()))
		}
		size.Mul(size, n)
	}
	return size
}

// build makes a pattern of text and ranges in turn; a set of one number becomes text.
func build(lits []string, ranges [][]span) *pattern {
	p := &pattern{size: 1}
	text := lits[0]
	for i, spans := range ranges {
		s := makeSet(spans)
		if first := s.first(); first == s.last() {
			text += first + lits[i+1]
			continue
		}
		n := 0
		for _, sp := range s.spans {
			n += int(sp.count())
		}
		p.size *= n
		p.lits, p.sets = append(p.lits, text), append(p.sets, s)
		p.min, p.max = p.min+text+s.first(), p.max+text+s.last()
		text = lits[i+1]
	}
	p.lits = append(p.lits, text)
	p.min, p.max = p.min+text, p.max+text
	p.shape = shapeOf(p.min)
	return p
}

// ipv6 reads an IPv6 address, in brackets or not, if one stands here.
func (p *parser) ipv6() (string, bool) {
	word := p.expr[p.pos:]
	if i := strings.IndexAny(word, ", \t\r\n!"); i >= 0 {
		word = word[:i]
	}
	if !strings.Contains(word, ":") {
		return "", false
	}
	bare := word
	if strings.HasPrefix(word, "[") && strings.HasSuffix(word, "]") {
		bare = word[1 : len(word)-1]
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil || !addr.Is6() {
		return "", false
	}
	for _, r := range addr.Zone() {
		if !inName(r) {
			return "", false
		}
	}
	p.pos += len(word)
	return bare, true
}

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

// unsupported are characters that other tools give a meaning which this grammar does not have.
var unsupported = map[rune]string{
	'@': "'@' (group, user@host)",
	'^': "'^' (file, symmetric difference)",
	'&': "'&' (intersection)",
	'/': "'/' (regular expression, network)",
	'*': "'*' (wildcard)",
	'?': "'?' (wildcard)",
}

// nameRune reads one character of a name.
func (p *parser) nameRune() error {
	r, n := utf8.DecodeRuneInString(p.expr[p.pos:])
	if inName(r) {
		p.pos += n
		return nil
	}
	if what, ok := unsupported[r]; ok {
		return p.fail(p.pos, "%s is not supported: write names and ranges such as node[1-8], and '!' to exclude", what)
	}
	switch {
	case r == utf8.RuneError && n == 1:
		return p.fail(p.pos, "byte 0x%02x is not UTF-8 text", p.expr[p.pos])
	case r == ']':
		return p.fail(p.pos, "']' without a '[' before it")
	case r == ':' || r == '%':
		return p.fail(p.pos, "'%c' stands only in an IPv6 address such as fe80::1%%eth0, and this is none", r)
	case unicode.IsPrint(r):
		return p.fail(p.pos, "'%c' cannot be part of a host name: expected letters, digits, '-', '_', '.' or '['", r)
	}
	return p.fail(p.pos, "the character %U cannot be part of a host name", r)
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

// found names the next character, of which there is one.
func (p *parser) found() string {
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
