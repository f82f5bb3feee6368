package hostlist

import (
	"iter"
	"sync/atomic"
)

// MaxHosts is the most hosts that an expression may have.
const MaxHosts = 10_000_000

// List is an ordered set of hosts. It is never changed, so any number of goroutines may use it, and lists share what they
// have in common. The zero value is the empty list.
//
// A list made with Scope.Dup may have a host more than once. The methods that take hosts away keep it so.
type List struct {
	entries []entry // no name is in two of them, but for Scope.Dup
	n       int
	index   atomic.Pointer[Index[struct{}]] // made by the first Contains
}

// Len is the number of hosts. It is known beforehand: no names are made.
func (l *List) Len() int { return l.n }

// All iterates over the names. Each is made when its turn comes, so a long list costs nothing before it is used.
func (l *List) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range l.names() {
			if !yield(string(name)) {
				return
			}
		}
	}
}

// names is All for those who need a name during their turn alone.
func (l *List) names() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := range l.entries {
			if !l.entries[i].each(yield) {
				return
			}
		}
	}
}

// Contains reports whether name, exactly as it is written, is in the list.
func (l *List) Contains(name string) bool {
	index := l.index.Load()
	if index == nil {
		index = new(Index[struct{}])
		index.Add(l, struct{}{})
		l.index.Store(index)
	}
	for range index.Lookup(name) {
		return true
	}
	return false
}

// Union returns the hosts of l and then, in their order, those of the others, each host once. It costs what all the lists
// are long, so join many at once. The result may be longer than MaxHosts.
func (l *List) Union(others ...*List) *List {
	var t timeline
	t.add(union, l.entries...)
	for _, o := range others {
		t.add(union, o.entries...)
	}
	return t.run()
}

// Difference returns the hosts of l that o does not have.
func (l *List) Difference(o *List) *List { return l.apply(difference, o) }

// Intersection returns the hosts of l that o has too.
func (l *List) Intersection(o *List) *List { return l.apply(intersection, o) }

// SymmetricDifference returns the hosts of l that o does not have, then those of o that l does not have.
func (l *List) SymmetricDifference(o *List) *List { return l.apply(symmetric, o) }

func (l *List) apply(how op, o *List) *List {
	t := timeline{dup: true}
	t.add(union, l.entries...)
	t.add(how, o.entries...)
	return t.run()
}

// where returns the hosts of l that keep says. An entry that loses none stays as it is.
func (l *List) where(keep func(name []byte) bool) *List {
	var b builder
	var kept []bool
	for i := range l.entries {
		e := &l.entries[i]
		kept = kept[:0]
		n := 0
		e.each(func(name []byte) bool {
			k := keep(name)
			if kept = append(kept, k); k {
				n++
			}
			return true
		})
		switch n {
		case 0:
		case len(kept):
			b.entry(*e)
		default:
			at := 0
			e.each(func(name []byte) bool {
				if kept[at] {
					b.add(string(name), e.term)
				}
				at++
				return true
			})
		}
	}
	return b.list()
}

// Of returns the list of names, which are taken as they are.
func Of(names iter.Seq[string]) *List {
	var b builder
	for name := range names {
		b.add(name, 0)
	}
	var t timeline
	t.add(union, b.entries...)
	return t.run()
}
