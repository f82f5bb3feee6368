package hostlist

import (
	"cmp"
	"iter"
	"slices"
	"sync"
)

// Index finds the values that hosts have been given. The zero value has none. Add needs the Index for itself; any number of
// goroutines may look up at once.
//
// What is added is kept as it was written, so a million hosts in one range cost what one costs. A look-up takes the logarithm
// of what has been added, however the additions and the look-ups take turns.
type Index[T any] struct {
	values []T
	mu     sync.Mutex
	fresh  []added            // not in shapes yet
	shapes map[string][]*tier // of which each is less than half as large as the one before it
}

// added is an entry of the list of the id-th Add.
type added struct {
	entry
	id int32
}

// tier finds, among the entries that were added while it was made, those that have a name.
type tier struct {
	added []added
	top   *stabs
}

// Add gives v to all the hosts.
func (x *Index[T]) Add(hosts *List, v T) {
	for _, e := range hosts.entries {
		x.fresh = append(x.fresh, added{e, int32(len(x.values))})
	}
	x.values = append(x.values, v)
}

// Lookup iterates over the values of the host, in the order in which they were added.
func (x *Index[T]) Lookup(name string) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, id := range x.find(name) {
			if !yield(x.values[id]) {
				return
			}
		}
	}
}

func (x *Index[T]) find(name string) []int32 {
	var text [64]byte
	var numbers [8]coord
	shape, at := locate(name, text[:0], numbers[:0])
	x.mu.Lock()
	x.settle()
	tiers := x.shapes[string(shape)]
	x.mu.Unlock()
	var ids []int32
	for _, t := range tiers {
		ids = t.top.find(at, ids)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// settle puts what has been added since the last time in its place.
func (x *Index[T]) settle() {
	if len(x.fresh) == 0 {
		return
	}
	if x.shapes == nil {
		x.shapes = map[string][]*tier{}
	}
	fresh := map[string]*tier{}
	for _, a := range x.fresh {
		t := fresh[a.shape]
		if t == nil {
			t = new(tier)
			fresh[a.shape] = t
		}
		t.added = append(t.added, a)
	}
	x.fresh = nil
	for shape, t := range fresh {
		tiers := slices.Clone(x.shapes[shape]) // somebody may be reading them
		for n := len(tiers); n > 0 && len(tiers[n-1].added) < 2*len(t.added); n-- {
			t.added = append(slices.Clip(tiers[n-1].added), t.added...)
			tiers = tiers[:n-1]
		}
		all := make([]owned, len(t.added))
		for i, a := range t.added {
			all[i] = owned{a.root, a.id}
		}
		t.top = stab(all)
		x.shapes[shape] = append(tiers, t)
	}
}

// stabs finds the spans that have a number. They are sorted by their low ends and taken as a balanced tree, of which the
// middle one is the root; reach is the highest end in the tree below each.
type stabs struct {
	spans []span
	reach []coord
	below []*stabs // what follows the numbers of each span, for all who have this span
	ids   []int32  // at the last coordinate: who has each span, and where they end
	ends  []int32
}

type owned struct {
	node *node
	id   int32
}

// stab makes the tree of trees of one level.
func stab(all []owned) *stabs {
	s := new(stabs)
	if all[0].node == nil { // names without coordinates
		for _, o := range all {
			s.ids = append(s.ids, o.id)
		}
		return s
	}
	n := 0
	for _, o := range all {
		n += len(o.node.spans)
	}
	cuts := make([]cut, 0, n)
	for i, o := range all {
		for j, sp := range o.node.spans {
			cuts = append(cuts, cut{uint64(sp.lo), uint64(sp.hi), int32(i), int32(j)})
		}
	}
	sortCuts(cuts, nil)
	spanOf := func(c cut) span { return all[c.ref].node.spans[c.span] }
	for i := 0; i < len(cuts); {
		j, same := i+1, true
		for ; j < len(cuts) && cuts[j].lo == cuts[i].lo; j++ {
			same = same && spanOf(cuts[j]) == spanOf(cuts[i])
		}
		if !same { // then some of these begin with the same number, and the others are taken up next
			slices.SortFunc(cuts[i:j], func(a, b cut) int {
				return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(spanOf(a).step, spanOf(b).step))
			})
			for j = i + 1; spanOf(cuts[j]) == spanOf(cuts[i]); j++ {
			}
		}
		s.add(all, cuts[i:j])
		i = j
	}
	s.reach = make([]coord, len(s.spans))
	s.measure(0, len(s.spans))
	return s
}

// add appends the span that the cuts have in common.
func (s *stabs) add(all []owned, cuts []cut) {
	first := all[cuts[0].ref].node
	s.spans = append(s.spans, first.spans[cuts[0].span])
	if first.kids == nil {
		for _, c := range cuts {
			s.ids = append(s.ids, all[c.ref].id)
		}
		s.ends = append(s.ends, int32(len(s.ids)))
		return
	}
	below := make([]owned, len(cuts))
	for i, c := range cuts {
		below[i] = owned{all[c.ref].node.kids[c.span], all[c.ref].id}
	}
	s.below = append(s.below, stab(below))
}

func (s *stabs) measure(from, to int) (reach coord) {
	if from == to {
		return 0
	}
	m := (from + to) / 2
	s.reach[m] = max(s.spans[m].hi, s.measure(from, m), s.measure(m+1, to))
	return s.reach[m]
}

// find appends the ids of those who have the numbers at.
func (s *stabs) find(at []coord, ids []int32) []int32 {
	if len(at) == 0 {
		return append(ids, s.ids...)
	}
	return s.findIn(0, len(s.spans), at, ids)
}

func (s *stabs) findIn(from, to int, at []coord, ids []int32) []int32 {
	for from < to {
		m := (from + to) / 2
		if s.reach[m] < at[0] {
			return ids
		}
		ids = s.findIn(from, m, at, ids)
		if s.spans[m].lo > at[0] {
			return ids
		}
		if s.spans[m].has(at[0]) {
			if s.below == nil {
				start := int32(0)
				if m > 0 {
					start = s.ends[m-1]
				}
				ids = append(ids, s.ids[start:s.ends[m]]...)
			} else {
				ids = s.below[m].find(at[1:], ids)
			}
		}
		from = m + 1
	}
	return ids
}
