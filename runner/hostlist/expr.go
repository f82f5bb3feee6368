package hostlist

import (
	"iter"
	"slices"
)

// Expr is a host expression that has been read. It may be evaluated many times.
type Expr struct {
	text string
	list *List
}

// Parse reads an expression; its error is a *SyntaxError.
func Parse(text string) (*Expr, error) {
	l, err := Hosts(text)
	if err != nil {
		return nil, err
	}
	return &Expr{text, l}, nil
}

// GroupRef is a group that an expression names. Source is empty for the default source, and Name "*" for all hosts of the source.
type GroupRef struct{ Source, Name string }

// Groups returns the groups that the expression names, each once.
func (e *Expr) Groups() []GroupRef { return nil }

// Scope is what an expression may refer to beside names. A nil function means that there is nothing of this kind.
type Scope struct {
	Transports []string                         // what may stand before a ':'
	Group      func(GroupRef) (*List, error)    // hosts of @groups
	All        func() (*List, error)            // what wildcards match
	File       func(name string) (*List, error) // hosts of ^FILE
	Dup        bool                             // keep duplicates
}

// Selection is what an expression means.
type Selection struct {
	Hosts   *List
	Targets []Target
}

// Target is what an item of an expression says besides names.
type Target struct {
	Hosts           *List
	Transport, User string
	Port            uint16
	Offset          int // of the item in the text
}

// Eval finds the hosts of e. A nil scope has nothing but names.
func (e *Expr) Eval(s *Scope) (*Selection, error) { return &Selection{Hosts: e.list.Union()}, nil }

// Exclude returns from without the hosts of e. Each item of e must take at least one host.
func (e *Expr) Exclude(from *List, s *Scope) (*List, error) {
	out := from.Union()
	return out, out.Exclude(e.text)
}

// Union returns the hosts of l, then those of the others that are not there already.
func (l *List) Union(others ...*List) *List {
	out := new(List)
	for _, o := range append([]*List{l}, others...) {
		for name := range o.All() {
			out.addName(name, 0, 0)
		}
	}
	return out
}

// Difference returns the hosts of l that o does not have.
func (l *List) Difference(o *List) *List {
	return l.where(func(n string) bool { return !o.Contains(n) })
}

// Intersection returns the hosts of l that o has too.
func (l *List) Intersection(o *List) *List { return l.where(o.Contains) }

// SymmetricDifference returns the hosts of l that o does not have, then those of o that l does not have.
func (l *List) SymmetricDifference(o *List) *List { return l.Difference(o).Union(o.Difference(l)) }

func (l *List) where(keep func(string) bool) *List {
	out := new(List)
	for name := range l.All() {
		if keep(name) {
			out.addName(name, 0, 0)
		}
	}
	return out
}

// Index finds the values of a host. The zero value has none.
type Index[T any] struct{ values map[string][]T }

// Add gives v to all the hosts.
func (x *Index[T]) Add(hosts *List, v T) {
	if x.values == nil {
		x.values = map[string][]T{}
	}
	for name := range hosts.All() {
		x.values[name] = append(x.values[name], v)
	}
}

// Lookup iterates over the values of the host, in the order in which they were added.
func (x *Index[T]) Lookup(name string) iter.Seq[T] { return slices.Values(x.values[name]) }
