package hostlist

import (
	"slices"
	"strconv"
	"strings"
)

// A name is a point: its shape is what is left when every run of digits is replaced by a mark, and its coordinates are those
// runs, each with its width, so that a1, a01 and a001 are three points of one line.
//
//	r7n012-ib0   shape r·n·-ib0   coordinates 7 (1 digit), 012 (3 digits)
//
// Digits that stand beside brackets, or brackets beside brackets, are one run: n1[0-9] is the line n[10-19], and 1[1-4]56
// has the coordinates 1156, 1256, 1356 and 1456. Two names are the same if and only if their shapes and their coordinates
// are. Sets of names are therefore sets of points of one shape each, and all set algebra is arithmetic on coordinates.
//
// Names of one shape in their order are a tree, one level for each coordinate:
//
//	r[1-2]n[1-3],r3n[1,7]     {1-2} ── {1-3}
//	                          {3} ──── {1} {7}
//
// The names are the paths, in order: a span's numbers one after the other, and for each of them all that is below the span.
// That is how an expression is read, so trees keep the order of any item, and a tree that some names are taken from is
// again a tree. A million hosts written as one range are one node.

// gap stands for a run of digits in a shape.
const gap = "\x00"

// maxDigits is the most digits that a coordinate may have. A longer run of digits in a name is text, as are all digits of
// an IPv6 address, in which digits and letters make one number.
const maxDigits = 17

var pow10 = func() (p [maxDigits + 1]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = 10 * p[i-1]
	}
	return p
}()

// coord is a run of digits: its width above its value. Numbers of one width follow each other as integers do, and no number
// follows one of another width: 9 and 10 are not neighbours, and neither are 9 and 09.
type coord uint64

const valueBits = 57 // 10^17 < 1<<57

func makeCoord(v uint64, width int) coord { return coord(width)<<valueBits | coord(v) }
func (c coord) value() uint64             { return uint64(c) & (1<<valueBits - 1) }
func (c coord) width() int                { return int(c >> valueBits) }

func (c coord) append(b []byte) []byte { return appendNumber(b, c.value(), c.width()) }

func appendNumber(b []byte, v uint64, width int) []byte {
	for w := width - 1; w > 0 && v < pow10[w]; w-- {
		b = append(b, '0')
	}
	return strconv.AppendUint(b, v, 10)
}

// span is lo, lo+step … hi, all of one width. The step of a single number is 1.
type span struct {
	lo, hi coord
	step   uint64
}

func point(c coord) span { return span{c, c, 1} }

func (s span) count() int { return int(uint64(s.hi-s.lo)/s.step) + 1 }

func (s span) has(c coord) bool { return s.lo <= c && c <= s.hi && uint64(c-s.lo)%s.step == 0 }

// appendSpan appends s to spans. It is joined with the last of them where both go on with the same step.
func appendSpan(spans []span, s span, step uint64) (out []span, joined bool) {
	if n := len(spans) - 1; n >= 0 {
		last := &spans[n]
		if last.hi < s.lo && uint64(s.lo-last.hi) == step && (last.lo == last.hi || last.step == step) && (s.lo == s.hi || s.step == step) {
			last.hi, last.step = s.hi, step
			return spans, true
		}
	}
	return append(spans, s), false
}

// appendRange appends the spans of the range lo-hi/step, padded to width.
func appendRange(spans []span, lo, hi, step uint64, width int) []span {
	for lo <= hi {
		for lo >= pow10[width] {
			width++
		}
		top := min(hi, pow10[width]-1)
		last := lo + (top-lo)/step*step
		s := span{makeCoord(lo, width), makeCoord(last, width), step}
		if lo == last {
			s.step = 1
		}
		spans = append(spans, s)
		lo = last + step
	}
	return spans
}

// beside returns the numbers that a number of a and a number of b make when they stand side by side, in order.
func beside(a, b []span) []span {
	var out []span
	if len(b) == 1 && b[0].lo == b[0].hi {
		v, w := b[0].lo.value(), b[0].lo.width()
		shift := func(c coord) coord { return makeCoord(c.value()*pow10[w]+v, c.width()+w) }
		for _, s := range a {
			step := s.step
			if s.lo != s.hi {
				step *= pow10[w]
			}
			out = append(out, span{shift(s.lo), shift(s.hi), step})
		}
		return out
	}
	for _, s := range a {
		for c, n := s.lo, s.count(); n > 0; c, n = c+coord(s.step), n-1 {
			for _, t := range b {
				w := t.lo.width()
				base := c.value() * pow10[w]
				out, _ = appendSpan(out, span{makeCoord(base+t.lo.value(), c.width()+w), makeCoord(base+t.hi.value(), c.width()+w), t.step}, t.step)
			}
		}
	}
	return out
}

// node is one level of a tree. Nodes that are in a List are never changed.
type node struct {
	spans []span
	kids  []*node // kids[i] is what follows a number of spans[i]; nil at the last coordinate
	n     int     // how many names
	one   [1]span // the place of spans while there is one, as in most trees of single names
	loose bool    // the numbers do not ascend, here or below: some may be there twice
}

// size is the number of names. A shape without coordinates has the tree nil, which is one name.
func (t *node) size() int {
	if t == nil {
		return 1
	}
	return t.n
}

// kid returns what follows a number of the i-th span.
func (t *node) kid(i int) *node {
	if t.kids == nil {
		return nil
	}
	return t.kids[i]
}

// add appends the numbers of s, each followed by kid, to a node that is being made. Spans are joined where that is all that
// they differ in and the numbers go on by step.
func (t *node) add(s span, step uint64, kid *node) {
	t.n += s.count() * kid.size()
	n := len(t.spans) - 1
	if n >= 0 && s.lo <= t.spans[n].hi || kid != nil && kid.loose {
		t.loose = true
	}
	if n < 0 || t.kid(n) == kid {
		var joined bool
		if t.spans, joined = appendSpan(t.spans, s, step); joined {
			return
		}
	} else {
		t.spans = append(t.spans, s)
	}
	if kid != nil {
		t.kids = append(t.kids, kid)
	}
}

// equal reports whether a and b are the same tree.
func equal(a, b *node) bool {
	if a == b {
		return true
	}
	return a.n == b.n && a.loose == b.loose && slices.Equal(a.spans, b.spans) && slices.EqualFunc(a.kids, b.kids, equal)
}

// product makes the tree of all combinations of the numbers of each axis.
func product(axes [][]span) *node {
	var t *node
	for _, axis := range slices.Backward(axes) {
		below := t
		t = &node{}
		for _, s := range axis {
			t.add(s, s.step, below)
		}
	}
	return t
}

// entry is a tree of names of one shape.
type entry struct {
	shape string
	root  *node
	term  int32 // of the expression that it stands in
}

// dims is the number of coordinates.
func (e *entry) dims() int {
	if e.root == nil {
		return 0
	}
	return strings.Count(e.shape, gap)
}

// each calls yield for every name until it returns false, and reports whether it never did. The bytes are good during the call.
func (e *entry) each(yield func(name []byte) bool) bool {
	w := walker{text: strings.Split(e.shape, gap), yield: yield}
	name := append(make([]byte, 0, len(e.shape)+maxDigits), w.text[0]...)
	if e.root == nil {
		return yield(name)
	}
	return w.walk(e.root, 1, name)
}

type walker struct {
	text  []string // around the coordinates
	yield func([]byte) bool
}

// walk goes through t, which follows name; text[i] stands behind its coordinate.
func (w *walker) walk(t *node, i int, name []byte) bool {
	text := w.text[i]
	for j, s := range t.spans {
		for c, n := s.lo, s.count(); n > 0; c, n = c+coord(s.step), n-1 {
			next := append(c.append(name), text...)
			if t.kids == nil {
				if !w.yield(next) {
					return false
				}
			} else if !w.walk(t.kids[j], i+1, next) {
				return false
			}
		}
	}
	return true
}

// first is the first name.
func (e *entry) first() (name string) {
	e.each(func(b []byte) bool {
		name = string(b)
		return false
	})
	return name
}

// locate appends the shape of name to shape and its coordinates to at.
func locate(name string, shape []byte, at []coord) ([]byte, []coord) {
	if strings.IndexByte(name, ':') >= 0 {
		return append(shape, name...), at
	}
	for i := 0; i < len(name); {
		if !isDigit(name[i]) {
			shape = append(shape, name[i])
			i++
			continue
		}
		start, v := i, uint64(0)
		for ; i < len(name) && isDigit(name[i]); i++ {
			v = 10*v + uint64(name[i]-'0') // overflows only where it is not used
		}
		if i-start > maxDigits {
			shape = append(shape, name[start:i]...)
			continue
		}
		shape = append(shape, gap...)
		at = append(at, makeCoord(v, i-start))
	}
	return shape, at
}

// builder makes entries of single names that come one after the other; neighbours share an entry, and a span where they are
// consecutive.
type builder struct {
	entries []entry
	shape   []byte
	at      []coord
	nodes   []node // of which the next ones are taken
	sealed  int    // how many of the entries get no more names
}

// entry appends an entry as it is.
func (b *builder) entry(e entry) {
	b.entries = append(b.entries, e)
	b.sealed = len(b.entries)
}

// list returns what has been built, of which no name is there twice.
func (b *builder) list() *List {
	l := &List{entries: b.entries}
	for _, e := range l.entries {
		l.n += e.root.size()
	}
	return l
}

func (b *builder) add(name string, term int32) {
	b.shape, b.at = locate(name, b.shape[:0], b.at[:0])
	n := len(b.entries) - 1
	if n < b.sealed || b.entries[n].term != term || len(b.at) == 0 || b.entries[n].shape != string(b.shape) {
		e := entry{shape: string(b.shape), term: term}
		if len(b.at) > 0 {
			e.root = b.node()
		}
		b.entries = append(b.entries, e)
		n++
	}
	if len(b.at) > 0 {
		b.push(b.entries[n].root, b.at)
	}
}

func (b *builder) node() *node {
	if len(b.nodes) == 0 {
		b.nodes = make([]node, min(2*len(b.entries)+1, 256))
	}
	t := &b.nodes[0]
	b.nodes = b.nodes[1:]
	t.spans = t.one[:0]
	return t
}

// push appends the path at to t.
func (b *builder) push(t *node, at []coord) {
	c, n := at[0], len(t.spans)-1
	if len(at) == 1 {
		t.add(point(c), 1, nil)
		return
	}
	if n < 0 || t.spans[n].lo != c {
		t.loose = t.loose || n >= 0 && c < t.spans[n].lo
		t.spans, t.kids = append(t.spans, point(c)), append(t.kids, b.node())
		n++
	}
	b.push(t.kids[n], at[1:])
	t.n++
	t.loose = t.loose || t.kids[n].loose
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

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
