package hostlist

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// maxDigits is the most digits that a number in brackets may have: such a number and its width fit one uint64 (see fold.go).
const maxDigits = 17

var pow10 = func() (p [maxDigits + 1]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = 10 * p[i-1]
	}
	return p
}()

// span is the numbers lo, lo+step … last, all printed with width digits. One width for all makes (width, number) and the
// printed text the same thing: two spans of different widths share no text.
type span struct {
	width          int
	lo, last, step uint64
}

func (s span) count() uint64 { return (s.last-s.lo)/s.step + 1 }

// appendRange appends the spans of the range lo-hi/step, padded to width.
func appendRange(spans []span, lo, hi, step uint64, width int) []span {
	for lo <= hi {
		for lo >= pow10[width] {
			width++
		}
		top := min(hi, pow10[width]-1)
		s := span{width: width, lo: lo, last: lo + (top-lo)/step*step, step: step}
		spans = append(spans, s)
		lo = s.last + step
	}
	return spans
}

// set is what stands between brackets: numbers in the order they were written, none twice.
type set struct {
	spans  []span
	sorted []span   // by width and low end
	reach  []uint64 // reach[i]: the highest number of sorted[:i+1] with the width of sorted[i]
}

func makeSet(spans []span) set {
	s := set{spans: spans}
	if s.index() {
		s.spans = unique(spans)
		s.index()
	}
	return s
}

// index fills sorted and reach and reports whether the bounds of two spans overlap.
func (s *set) index() (overlap bool) {
	s.sorted = slices.SortedFunc(slices.Values(s.spans), func(a, b span) int {
		return cmp.Or(cmp.Compare(a.width, b.width), cmp.Compare(a.lo, b.lo))
	})
	s.reach = make([]uint64, len(s.sorted))
	for i, sp := range s.sorted {
		s.reach[i] = sp.last
		if i > 0 && s.sorted[i-1].width == sp.width {
			overlap = overlap || sp.lo <= s.reach[i-1]
			s.reach[i] = max(sp.last, s.reach[i-1])
		}
	}
	return overlap
}

// unique returns the numbers of spans in their order without the repeated ones.
func unique(spans []span) []span {
	type number struct {
		width int
		value uint64
	}
	seen := map[number]bool{}
	var out []span
	for _, s := range spans {
		for v := s.lo; v <= s.last; v += s.step {
			if seen[number{s.width, v}] {
				continue
			}
			seen[number{s.width, v}] = true
			if n := len(out) - 1; n >= 0 && out[n].width == s.width {
				o := &out[n]
				if o.lo == o.last && v > o.lo {
					o.last, o.step = v, v-o.lo
					continue
				}
				if v == o.last+o.step {
					o.last = v
					continue
				}
			}
			out = append(out, span{width: s.width, lo: v, last: v, step: 1})
		}
	}
	return out
}

// first and last are the ends of the set in shortlex order: shorter texts first, texts of one length by number.
func (s *set) first() string { return string(appendNumber(nil, s.sorted[0].lo, s.sorted[0].width)) }
func (s *set) last() string {
	n := len(s.sorted) - 1
	return string(appendNumber(nil, s.reach[n], s.sorted[n].width))
}

// widths returns the fewest and the most digits.
func (s *set) widths() (shortest, longest int) {
	return s.sorted[0].width, s.sorted[len(s.sorted)-1].width
}

// has reports whether the text, which is digits and no longer than maxDigits, is one of the set's.
func (s *set) has(text string) bool {
	var v uint64
	for i := range len(text) {
		v = 10*v + uint64(text[i]-'0')
	}
	// The last span that begins at v or before; then back as long as some span before it reaches v.
	lo, hi := 0, len(s.sorted)
	for lo < hi {
		m := (lo + hi) / 2
		if sp := &s.sorted[m]; sp.width < len(text) || sp.width == len(text) && sp.lo <= v {
			lo = m + 1
		} else {
			hi = m
		}
	}
	for i := lo - 1; i >= 0 && s.sorted[i].width == len(text) && s.reach[i] >= v; i-- {
		if sp := &s.sorted[i]; v <= sp.last && (v-sp.lo)%sp.step == 0 {
			return true
		}
	}
	return false
}

func appendNumber(b []byte, v uint64, width int) []byte {
	for w := width - 1; w > 0 && v < pow10[w]; w-- {
		b = append(b, '0')
	}
	return strconv.AppendUint(b, v, 10)
}

// pattern is an item with at least one set of two numbers or more: lits[0] sets[0] lits[1] … lits[len(sets)].
// It is never changed.
type pattern struct {
	lits     []string
	sets     []set
	size     int    // how many names
	min, max string // the names made of the shortlex ends of all sets
	shape    uint64
}

// ambiguous reports whether two choices of numbers may give the same name: [1,11][1,11] has 111 twice. That takes two sets
// of varying width in one run of digits; with one, the length of the run gives the length of every part.
func (p *pattern) ambiguous() bool {
	varying := 0
	for i := range p.sets {
		if strings.TrimLeft(p.lits[i], "0123456789") != "" {
			varying = 0
		}
		if shortest, longest := p.sets[i].widths(); shortest != longest {
			varying++
		}
		if varying == 2 {
			return true
		}
	}
	return false
}

// each calls yield for every name until it returns false, and reports whether it never did.
func (p *pattern) each(yield func(string) bool) bool {
	return p.walk(make([]byte, 0, len(p.max)), 0, yield)
}

func (p *pattern) walk(name []byte, i int, yield func(string) bool) bool {
	name = append(name, p.lits[i]...)
	if i == len(p.sets) {
		return yield(string(name))
	}
	for _, s := range p.sets[i].spans {
		for v := s.lo; v <= s.last; v += s.step {
			if !p.walk(appendNumber(name, v, s.width), i+1, yield) {
				return false
			}
		}
	}
	return true
}

// match reports whether name is one of the pattern's, which is not ambiguous.
func (p *pattern) match(name string) bool {
	if len(name) < len(p.min) || len(name) > len(p.max) {
		return false
	}
	rest, ok := strings.CutPrefix(name, p.lits[0])
	return ok && p.matchFrom(0, rest)
}

func (p *pattern) matchFrom(i int, rest string) bool {
	if i == len(p.sets) {
		return rest == ""
	}
	shortest, longest := p.sets[i].widths()
	for w := 1; w <= longest && w <= len(rest) && isDigit(rest[w-1]); w++ {
		if w < shortest || !strings.HasPrefix(rest[w:], p.lits[i+1]) || !p.sets[i].has(rest[:w]) {
			continue
		}
		if p.matchFrom(i+1, rest[w+len(p.lits[i+1]):]) {
			return true
		}
	}
	return false
}

// mayShare reports whether two patterns of one shape can have a name in common: in every run of digits their bounds must overlap.
func mayShare(p, q *pattern) bool {
	pmin, pmax, qmin, qmax := p.min, p.max, q.min, q.max
	for {
		var a, b, c, d string
		a, pmin = nextRun(pmin)
		b, pmax = nextRun(pmax)
		c, qmin = nextRun(qmin)
		d, qmax = nextRun(qmax)
		if a == "" || b == "" || c == "" || d == "" {
			return true
		}
		if shortlex(b, c) < 0 || shortlex(d, a) < 0 {
			return false
		}
	}
}

// nextRun returns the first run of digits in s, empty if there is none, and what follows it.
func nextRun(s string) (run, rest string) {
	i := 0
	for i < len(s) && !isDigit(s[i]) {
		i++
	}
	j := i
	for j < len(s) && isDigit(s[j]) {
		j++
	}
	return s[i:j], s[j:]
}

func shortlex(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// shapeOf hashes (FNV-1a) a name with every run of digits replaced by one mark. Names of one pattern have one shape.
// Two shapes with one hash cost time and nothing else.
func shapeOf(name string) uint64 {
	h := uint64(14695981039346656037)
	digits := false
	for i := range len(name) {
		c := name[i]
		if isDigit(c) {
			if digits {
				continue
			}
			digits, c = true, 0
		} else {
			digits = false
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
