package hostlist

import (
	"fmt"
	"iter"
)

// AddTagged adds the hosts of o that l does not have, and marks them with tag.
func (l *List) AddTagged(o *List, tag int) error {
	var t timeline
	t.add(union, l.entries...)
	for _, e := range o.entries {
		e.term = int32(tag)
		t.add(union, e)
	}
	r := t.run()
	l.entries, l.n = r.entries, r.n
	l.index.Store(nil)
	if l.n > MaxHosts {
		return fmt.Errorf("these are %d hosts, and at most %d are possible", l.n, MaxHosts)
	}
	return nil
}

// Tagged iterates over the names with their tags.
func (l *List) Tagged() iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for i := range l.entries {
			if !l.entries[i].each(func(b []byte) bool { return yield(string(b), int(l.entries[i].term)) }) {
				return
			}
		}
	}
}

// Overlap iterates over the hosts of o that l has already, with their tags in l.
func (l *List) Overlap(o *List) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		var x Index[int]
		for _, e := range l.entries {
			x.Add(&List{entries: []entry{e}}, int(e.term))
		}
		for name := range o.All() {
			for tag := range x.Lookup(name) {
				if !yield(name, tag) {
					return
				}
			}
		}
	}
}

// Exclude takes away the hosts of the expressions.
func (l *List) Exclude(exprs ...string) error {
	r := l
	for _, expr := range exprs {
		e, err := Parse(expr)
		if err != nil {
			return err
		}
		if _, err := e.Exclude(l, nil); err != nil {
			return err
		}
		x, _ := e.Exclude(l, nil)
		r = r.Intersection(x)
	}
	l.entries, l.n = r.entries, r.n
	l.index.Store(nil)
	return nil
}
