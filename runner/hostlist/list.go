package hostlist

import (
	"fmt"
	"iter"
	"maps"
	"strings"
)

// Beyond these numbers of patterns that can share names, further ones are kept as names: a look-up is then by hash, not by
// trying one pattern after the other.
const (
	maxAlike  = 64 // patterns of one shape in a list
	maxExcept = 64 // patterns that take names away from one other
)

// List is an ordered set of hosts. The zero value is an empty one. Methods that only read may be used by many goroutines
// at once, also during an iteration; AddTagged and Exclude need the list for themselves.
type List struct {
	entries []entry
	plain   map[string]int       // name to its place in entries
	alike   map[uint64][]*ranged // by shape, in the order of entries
	n       int
}

// entry is a plain name, a pattern, or nothing (a name that has been excluded).
type entry struct {
	name string
	rng  *ranged
	tag  int
	off  int // of the item in its expression
}

// ranged is a pattern as it stands in one list.
type ranged struct {
	*pattern
	at      int    // its place in entries
	except  except // names that have been excluded from it
	crossed bool   // some entry before it has some of its names
}

func (r *ranged) has(name string) bool { return r.match(name) && !r.except.has(name) }

// each calls yield for each name of r that has not been excluded.
func (r *ranged) each(yield func(string) bool) bool {
	if r.except.empty() {
		return r.pattern.each(yield)
	}
	return r.pattern.each(func(name string) bool { return r.except.has(name) || yield(name) })
}

// except is a set of names to leave out.
type except struct {
	names map[string]struct{}
	rngs  []*ranged
}

func (e *except) empty() bool { return len(e.names) == 0 && len(e.rngs) == 0 }

func (e *except) has(name string) bool {
	if _, ok := e.names[name]; ok {
		return true
	}
	for _, r := range e.rngs {
		if r.has(name) {
			return true
		}
	}
	return false
}

func (e *except) add(name string) {
	if e.names == nil {
		e.names = map[string]struct{}{}
	}
	e.names[name] = struct{}{}
}

// Len is the number of hosts.
func (l *List) Len() int { return l.n }

// All iterates over the names. Each is made when its turn comes, so a long list costs nothing before it is used.
func (l *List) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range l.Tagged() {
			if !yield(name) {
				return
			}
		}
	}
}

// Tagged iterates over the names as All does, each with the tag of the AddTagged that brought it, or 0 for a list made by Hosts.
func (l *List) Tagged() iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for i, e := range l.entries {
			switch {
			case e.name != "":
				if !yield(e.name, e.tag) {
					return
				}
			case e.rng != nil:
				if !e.rng.each(func(name string) bool {
					if e.rng.crossed {
						if first, _ := l.find(name); first != i {
							return true
						}
					}
					return yield(name, e.tag)
				}) {
					return
				}
			}
		}
	}
}

// Contains reports whether name, exactly as it is written, is in the list.
func (l *List) Contains(name string) bool {
	_, ok := l.find(name)
	return ok
}

// find returns the place in entries that name comes from.
func (l *List) find(name string) (at int, ok bool) {
	if at, ok := l.plain[name]; ok {
		return at, true
	}
	if len(l.alike) == 0 {
		return 0, false
	}
	for _, r := range l.alike[shapeOf(name)] {
		if r.has(name) {
			return r.at, true
		}
	}
	return 0, false
}

// AddTagged adds the hosts of o that l does not have, in their order, and marks them with tag. It fails, and leaves l half
// changed, when l gets more than MaxHosts. o stays as it is, and its later changes do not matter to l.
func (l *List) AddTagged(o *List, tag int) error {
	for _, e := range o.entries {
		switch {
		case e.name != "":
			l.addName(e.name, tag, e.off)
		case e.rng != nil:
			l.addRanged(&ranged{pattern: e.rng.pattern, except: e.rng.except.clone()}, tag, e.off)
		}
		if l.n > MaxHosts {
			return fmt.Errorf("these are %d hosts, and at most %d are possible", l.n, MaxHosts)
		}
	}
	return nil
}

func (e *except) clone() except {
	return except{names: maps.Clone(e.names), rngs: append([]*ranged(nil), e.rngs...)}
}

// Overlap iterates over the hosts of o that l has already, with their tags in l.
func (l *List) Overlap(o *List) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		visit := func(name string) bool {
			at, ok := l.find(name)
			return !ok || yield(name, l.entries[at].tag)
		}
		for _, e := range o.entries {
			switch {
			case e.name != "":
				if !visit(e.name) {
					return
				}
			case e.rng != nil:
				if n, crossing := l.shared(e.rng); (n > 0 || crossing) && !e.rng.each(visit) {
					return
				}
			}
		}
	}
}

// addItem adds what the parser read at off.
func (l *List) addItem(name string, pat *pattern, off int) {
	switch {
	case pat == nil:
		l.addName(name, 0, off)
	case pat.ambiguous():
		pat.each(func(name string) bool {
			l.addName(name, 0, off)
			return true
		})
	default:
		l.addRanged(&ranged{pattern: pat}, 0, off)
	}
}

func (l *List) addName(name string, tag, off int) {
	if l.Contains(name) {
		return
	}
	if l.plain == nil {
		l.plain = map[string]int{}
	}
	l.plain[name] = len(l.entries)
	l.entries = append(l.entries, entry{name: name, tag: tag, off: off})
	l.n++
}

func (l *List) addRanged(r *ranged, tag, off int) {
	if len(l.alike[r.shape]) >= maxAlike {
		r.each(func(name string) bool {
			l.addName(name, tag, off)
			return true
		})
		return
	}
	shared, crossing := l.shared(r)
	if crossing {
		shared = 0
		r.each(func(name string) bool {
			if l.Contains(name) {
				shared++
			}
			return true
		})
	}
	l.n += r.count() - shared
	r.crossed = shared > 0
	r.at = len(l.entries)
	l.entries = append(l.entries, entry{rng: r, tag: tag, off: off})
	if l.alike == nil {
		l.alike = map[uint64][]*ranged{}
	}
	l.alike[r.shape] = append(l.alike[r.shape], r)
}

// count is how many names r has.
func (r *ranged) count() int {
	if r.except.empty() {
		return r.size
	}
	n := 0
	r.each(func(string) bool { n++; return true })
	return n
}

// shared returns how many of the plain names of l are also r's, and whether patterns of l may share names with r.
func (l *List) shared(r *ranged) (plain int, crossing bool) {
	l.eachPlainIn(r, func(string) { plain++ })
	for _, o := range l.alike[r.shape] {
		if mayShare(o.pattern, r.pattern) {
			return plain, true
		}
	}
	return plain, false
}

// eachPlainIn calls f, which may remove it, for each plain name of l that is also r's. It goes through the smaller of the two.
func (l *List) eachPlainIn(r *ranged, f func(name string)) {
	if len(l.plain) > r.size {
		r.each(func(name string) bool {
			if _, ok := l.plain[name]; ok {
				f(name)
			}
			return true
		})
		return
	}
	for name := range l.plain {
		if r.has(name) {
			f(name)
		}
	}
}

// Exclude removes the hosts of all the expressions. Each item of them must name at least one host of the list, else nothing
// is removed and the error, a *SyntaxError, names the host that comes close to what was written.
func (l *List) Exclude(exprs ...string) error {
	xs := make([]*List, len(exprs))
	for i, expr := range exprs {
		x, err := Hosts(expr)
		if err != nil {
			return err
		}
		if err := l.check(x, expr); err != nil {
			return err
		}
		xs[i] = x
	}
	for _, x := range xs {
		l.drop(x)
	}
	return nil
}

// remove takes the hosts of x, which was read from expr, away from l.
func (l *List) remove(x *List, expr string) error {
	if err := l.check(x, expr); err != nil {
		return err
	}
	l.drop(x)
	return nil
}

// check reports the first item of x that has no host of l.
func (l *List) check(x *List, expr string) error {
	for i := 0; i < len(x.entries); {
		off := x.entries[i].off
		hit, first := false, ""
		for ; i < len(x.entries) && x.entries[i].off == off; i++ { // an item can have been split into its names
			e := x.entries[i]
			if hit || e.name == "" && e.rng == nil {
				continue
			}
			if first == "" {
				first = e.name
			}
			if e.name != "" {
				hit = l.Contains(e.name)
			} else {
				e.rng.each(func(name string) bool {
					if first == "" {
						first = name
					}
					hit = l.Contains(name)
					return !hit
				})
			}
		}
		if hit || first == "" {
			continue
		}
		msg := "this excludes nothing: " + first + " is not among the hosts"
		if near := l.near(first); near != "" {
			msg += "; did you mean " + near + "?"
		}
		return &SyntaxError{Expr: expr, Offset: off, Msg: msg}
	}
	return nil
}

// near returns a host that a person could have meant by name: the same but for padding and case, or for the domain.
func (l *List) near(name string) string {
	domain := ""
	for host := range l.All() {
		if alike(host, name) {
			return host
		}
		if domain == "" && (strings.HasPrefix(host, name+".") || strings.HasPrefix(name, host+".")) {
			domain = host
		}
	}
	return domain
}

// alike reports whether a and b differ in nothing but case and the leading zeros of numbers.
func alike(a, b string) bool {
	for a != "" && b != "" {
		if isDigit(a[0]) && isDigit(b[0]) {
			var x, y string
			x, a = nextRun(a)
			y, b = nextRun(b)
			if strings.TrimLeft(x, "0") != strings.TrimLeft(y, "0") {
				return false
			}
			continue
		}
		if !strings.EqualFold(a[:1], b[:1]) {
			return false
		}
		a, b = a[1:], b[1:]
	}
	return a == b
}

// drop removes the hosts of x.
func (l *List) drop(x *List) {
	for _, e := range x.entries {
		switch {
		case e.name != "":
			l.dropName(e.name)
		case e.rng != nil:
			l.dropRanged(e.rng)
		}
	}
}

func (l *List) dropName(name string) {
	if !l.Contains(name) {
		return
	}
	l.n--
	l.dropPlain(name)
	for _, r := range l.alike[shapeOf(name)] {
		if r.match(name) {
			r.except.add(name)
		}
	}
}

func (l *List) dropPlain(name string) {
	if at, ok := l.plain[name]; ok {
		l.entries[at] = entry{}
		delete(l.plain, name)
	}
}

func (l *List) dropRanged(x *ranged) {
	if x.size <= l.n {
		x.each(func(name string) bool {
			if l.Contains(name) {
				l.n--
			}
			return true
		})
	} else {
		gone := 0
		for name := range l.All() {
			if x.has(name) {
				gone++
			}
		}
		l.n -= gone
	}
	l.eachPlainIn(x, l.dropPlain)
	for _, r := range l.alike[x.shape] {
		switch {
		case !mayShare(r.pattern, x.pattern):
		case len(r.except.rngs) < maxExcept:
			r.except.rngs = append(r.except.rngs, x)
		default:
			x.each(func(name string) bool {
				if r.match(name) {
					r.except.add(name)
				}
				return true
			})
		}
	}
}
