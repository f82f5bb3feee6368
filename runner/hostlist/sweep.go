package hostlist

import (
	"math/bits"
	"slices"
)

// op is what an item of an expression does with the hosts that stand before it.
type op uint8

const (
	union op = iota
	difference
	intersection
	symmetric
)

// A timeline is a whole expression, evaluated at once. Operators are read from left to right, so what becomes of a name
// depends on the items that mention it, in their order, and on the '&' that do not:
//
//	a[1-9],b ! a[3-4] , a4 & a[1-5]          a1 ─,────────&─►  in
//	                                         a3 ─,──!─────&─►  out
//	                                         a4 ─,──!──,──&─►  in, at its second place
//	                                         b  ─,──────────►  out, because '&' passes it by
//
// Coordinates are cut where any item's spans begin and end. All numbers of such a cell have the same fate, which is decided
// once, and below the cell the same is done with the next coordinate. What is left of each item is put together from its
// cells, in the item's own order. Sorting the ends of spans is the only step that costs more than the text is long.
type timeline struct {
	dup     bool    // a name is kept as often as it was added
	ops     []op    // of each slot: neighbours with the same operator share one where it makes no difference
	entries []entry // the mentions, in order
	slots   []int32 // of each mention
	hit     []bool  // by mention: a difference that took something away
	passed  []int32 // passed[s]: the intersections among the first s slots
	alone   []bool  // by slot: a name with this one mention is in the result
	levels  []level // scratch space, by number of coordinates left
	work    int     // spans and mentions looked at, for tests of what an expression costs
}

// add appends one operation, on all the names of entries.
func (t *timeline) add(o op, entries ...entry) {
	if n := len(t.ops) - 1; n < 0 || t.ops[n] != o || o == intersection || o == symmetric {
		t.ops = append(t.ops, o)
	}
	t.entries = append(t.entries, entries...)
	for range entries {
		t.slots = append(t.slots, int32(len(t.ops)-1))
	}
}

// run returns what is left at the end.
func (t *timeline) run() *List {
	t.passed = make([]int32, len(t.ops)+1)
	for s, o := range t.ops {
		t.passed[s+1] = t.passed[s]
		if o == intersection {
			t.passed[s+1]++
		}
	}
	t.alone = make([]bool, len(t.ops))
	for s, o := range t.ops {
		t.alone[s] = (o == union || o == symmetric) && t.passed[len(t.ops)] == t.passed[s]
	}
	t.hit = make([]bool, len(t.entries))
	fates := make([]fate, len(t.entries))
	var out []fate
	for refs := range t.shapes() {
		out = append(out[:0], make([]fate, len(refs))...)
		t.decide(t.entries[refs[0].mention].dims(), refs, out)
		for i, r := range refs {
			fates[r.mention] = out[i]
		}
	}
	l := new(List)
	for i, f := range fates {
		if f.in {
			e := t.entries[i]
			e.root = f.node
			l.entries = append(l.entries, e)
			l.n += f.node.size()
		}
	}
	return l
}

// shapes iterates over the mentions of each shape, in order.
func (t *timeline) shapes() func(yield func([]ref) bool) {
	return func(yield func([]ref) bool) {
		numbers := map[string]int32{}
		shape := make([]int32, len(t.entries))
		var ends []int32
		for i := range t.entries {
			if i > 0 && t.entries[i].shape == t.entries[i-1].shape {
				shape[i] = shape[i-1]
			} else {
				n, ok := numbers[t.entries[i].shape]
				if !ok {
					n = int32(len(ends))
					numbers[t.entries[i].shape] = n
					ends = append(ends, 0)
				}
				shape[i] = n
			}
			ends[shape[i]]++
		}
		for i := 1; i < len(ends); i++ {
			ends[i] += ends[i-1]
		}
		refs := make([]ref, len(t.entries))
		for i := len(shape) - 1; i >= 0; i-- {
			ends[shape[i]]--
			refs[ends[shape[i]]] = ref{t.entries[i].root, int32(i)}
		}
		for i, start := range ends {
			end := int32(len(refs))
			if i+1 < len(ends) {
				end = ends[i+1]
			}
			if !yield(refs[start:end]) {
				return
			}
		}
	}
}

// ref is the tree of a mention, or a part of it that stands below the numbers that are being looked at.
type ref struct {
	node    *node
	mention int32
}

// fate is what is left of the tree of a ref. The tree of a name that has no coordinates is nil, so there is a word for it.
type fate struct {
	node *node
	in   bool
}

// cut is the numbers lo to hi of the span-th span of a ref.
type cut struct {
	lo, hi uint64
	ref    int32
	span   int32
}

// part is numbers of a span that are in the result.
type part struct {
	span
	node       *node
	next, tail int32 // the next part of the same span, and of the first part its last one, as places plus 1
}

// whole stands for the place of a first part where all of a span is in the result as it is.
const whole = -1

// crowded is how many mentions of one number are too many to go through them all. (Tests lower it.)
var crowded = 32

// level is the work on one coordinate.
type level struct {
	cuts, spare, cluster []cut
	base                 []int32 // of each ref: where its spans begin in first
	first                []int32 // of each span: 0 where nothing is left, whole, or the place of its first part plus 1
	parts                []part
	active               []cut
	mentions             []int32
	refs                 []ref
	out                  []fate
}

// decide finds what is left of refs, which have k coordinates and are in order.
func (t *timeline) decide(k int, refs []ref, out []fate) {
	if len(refs) == 1 && (refs[0].node == nil || !refs[0].node.loose) {
		out[0] = fate{refs[0].node, t.alone[t.slots[refs[0].mention]]}
		return
	}
	for len(t.levels) <= k {
		t.levels = append(t.levels, level{})
	}
	l := t.levels[k]
	if k == 0 {
		l.mentions = l.mentions[:0]
		for _, r := range refs {
			l.mentions = append(l.mentions, r.mention)
		}
		for i := range t.survivors(l.mentions) {
			out[i] = fate{nil, true}
		}
		t.levels[k] = l
		return
	}
	l.base, l.parts = l.base[:0], l.parts[:0]
	n := 0
	for _, r := range refs {
		l.base = append(l.base, int32(n))
		n += len(r.node.spans)
	}
	t.work += n
	l.cuts = slices.Grow(l.cuts[:0], n)
	for i, r := range refs {
		for j, s := range r.node.spans {
			l.cuts = append(l.cuts, cut{uint64(s.lo), uint64(s.hi), int32(i), int32(j)})
		}
	}
	l.first = append(l.first[:0], make([]int32, n)...)
	l.spare = sortCuts(l.cuts, l.spare)
	for i := 0; i < len(l.cuts); {
		reach, same := l.cuts[i].hi, true
		j := i + 1
		for ; j < len(l.cuts) && l.cuts[j].lo <= reach; j++ {
			same = same && l.cuts[j].lo == l.cuts[i].lo && l.cuts[j].hi == reach
			reach = max(reach, l.cuts[j].hi)
		}
		if same && j-i > 1 && reach > l.cuts[i].lo {
			step := refs[l.cuts[i].ref].node.spans[l.cuts[i].span].step
			for _, c := range l.cuts[i+1 : j] {
				same = same && refs[c.ref].node.spans[c.span].step == step
			}
		}
		if same {
			t.cell(k, &l, refs, l.cuts[i:j], refs[l.cuts[i].ref].node.spans[l.cuts[i].span])
		} else {
			t.sweep(k, &l, refs, l.cuts[i:j])
		}
		i = j
	}
	for i, r := range refs {
		out[i] = t.assemble(&l, i, r.node)
	}
	t.levels[k] = l
}

// survivors iterates over the places in mentions, which are all the mentions of a name in order, that it has in the result.
func (t *timeline) survivors(mentions []int32) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		since, before := -1, int32(-1) // where it is present from, and the slot of the mention before
		for i := 0; i < len(mentions); {
			slot := t.slots[mentions[i]]
			if t.passed[slot] != t.passed[before+1] {
				since = -1
			}
			switch present := since >= 0; t.ops[slot] {
			case union:
				if !present {
					since = i
				}
			case difference:
				t.hit[mentions[i]] = t.hit[mentions[i]] || present
				since = -1
			case symmetric:
				since = i
				if present {
					since = -1
				}
			}
			for before = slot; i < len(mentions) && t.slots[mentions[i]] == slot; {
				i++
			}
		}
		if since < 0 || t.passed[len(t.ops)] != t.passed[before+1] {
			return
		}
		if !t.dup {
			yield(since)
			return
		}
		for i := since; i < len(mentions); i++ {
			if t.ops[t.slots[mentions[i]]] != intersection && !yield(i) {
				return
			}
		}
	}
}

// cell decides the fate of the numbers of piece, all of which the cuts have, and no others do.
func (t *timeline) cell(k int, l *level, refs []ref, cuts []cut, piece span) {
	t.work += len(cuts)
	if k == 1 {
		if len(cuts) == 1 {
			if t.alone[t.slots[refs[cuts[0].ref].mention]] {
				l.keep(refs, cuts[0], piece, below(refs, cuts[0]))
			}
			return
		}
		l.mentions = l.mentions[:0]
		for _, c := range cuts {
			l.mentions = append(l.mentions, refs[c.ref].mention)
		}
		for i := range t.survivors(l.mentions) {
			l.keep(refs, cuts[i], piece, below(refs, cuts[i]))
		}
		return
	}
	l.refs, l.out = l.refs[:0], l.out[:0]
	for _, c := range cuts {
		r := refs[c.ref]
		l.refs = append(l.refs, ref{r.node.kids[c.span], r.mention})
		l.out = append(l.out, fate{})
	}
	t.decide(k-1, l.refs, l.out)
	for i, f := range l.out {
		if f.in {
			l.keep(refs, cuts[i], piece, f.node)
		}
	}
}

// below is what follows the numbers of a cut.
func below(refs []ref, c cut) *node { return refs[c.ref].node.kid(int(c.span)) }

// sameBelow reports whether the same names follow the numbers of all cuts, none of them twice.
func sameBelow(refs []ref, cuts []cut) bool {
	first := below(refs, cuts[0])
	if first.loose {
		return false
	}
	for _, c := range cuts[1:] {
		if !equal(first, below(refs, c)) {
			return false
		}
	}
	return true
}

// keep has the numbers of piece, which are the next ones of the span of c, in the result, with below under each.
func (l *level) keep(refs []ref, c cut, piece span, below *node) {
	t := refs[c.ref].node
	g := l.base[c.ref] + c.span
	if piece == t.spans[c.span] && below == t.kid(int(c.span)) {
		l.first[g] = whole
		return
	}
	l.parts = append(l.parts, part{span: piece, node: below})
	at := int32(len(l.parts))
	if l.first[g] == 0 {
		l.first[g] = at
	} else {
		l.parts[l.parts[l.first[g]-1].tail-1].next = at
	}
	l.parts[l.first[g]-1].tail = at
}

// assemble puts together what is left of the i-th ref, which was before.
func (t *timeline) assemble(l *level, i int, before *node) fate {
	first := l.first[l.base[i]:][:len(before.spans)]
	all, left := true, 0
	for _, f := range first {
		all = all && f == whole
		if f != 0 {
			left++
		}
	}
	switch {
	case left == 0:
		return fate{}
	case all && (t.dup || !before.loose):
		return fate{before, true}
	case all:
		after := *before
		after.loose = false
		return fate{&after, true}
	}
	after := new(node)
	after.spans = after.one[:0]
	if left > 1 {
		after.spans = make([]span, 0, left) // often what it takes: what could be joined has been
	}
	for j, s := range before.spans {
		if first[j] == whole {
			after.add(s, s.step, before.kid(j))
			continue
		}
		for at := first[j]; at != 0; at = l.parts[at-1].next {
			after.add(l.parts[at-1].span, s.step, l.parts[at-1].node)
		}
	}
	after.loose = t.dup && before.loose
	return fate{after, true}
}

// sweep decides the fate of cuts that overlap and are sorted by their low ends.
func (t *timeline) sweep(k int, l *level, refs []ref, cuts []cut) {
	if k > 1 && sameBelow(refs, cuts) {
		k = 1 // n[1-9].dc1 and n[5-12].dc1 differ here alone
	}
	// Spans of one step and one remainder are consecutive when divided by it. Spans of several steps are taken apart.
	step := uint64(0)
	for _, c := range cuts {
		switch s := refs[c.ref].node.spans[c.span]; {
		case s.lo == s.hi:
		case step == 0:
			step = s.step
		case step != s.step:
			t.apart(k, l, refs, cuts)
			return
		}
	}
	if step <= 1 {
		t.cells(k, l, refs, cuts, quotient{step: 1})
		return
	}
	q := quotient{step: step, rest: 1<<62/step + 1}
	l.cluster = l.cluster[:0]
	for _, c := range cuts {
		l.cluster = append(l.cluster, cut{q.divide(c.lo), q.divide(c.hi), c.ref, c.span})
	}
	l.spare = sortCuts(l.cluster, l.spare)
	t.cells(k, l, refs, l.cluster, q)
}

// window is how many numbers, about, apart has at a time. (Tests lower it.)
var window = 1 << 16

// apart sweeps cuts of several steps as single numbers: a window of them after the other, as all could be too many.
func (t *timeline) apart(k int, l *level, refs []ref, cuts []cut) {
	lo, hi, n := cuts[0].lo, uint64(0), 0
	for _, c := range cuts {
		hi = max(hi, c.hi)
		if s := refs[c.ref].node.spans[c.span]; s.step > 1 {
			n += s.count()
		} else {
			n++
		}
	}
	width := (hi-lo)/uint64(n/max(window, 8*len(cuts))+1) + 1
	for ; lo <= hi; lo += width {
		end := min(hi, lo+width-1)
		l.cluster = l.cluster[:0]
		for _, c := range cuts {
			step := refs[c.ref].node.spans[c.span].step
			from, to := max(c.lo, lo), min(c.hi, end)
			switch {
			case from > to:
			case step == 1:
				l.cluster = append(l.cluster, cut{from, to, c.ref, c.span})
			default:
				for v := c.lo + (from-c.lo+step-1)/step*step; v <= to; v += step {
					l.cluster = append(l.cluster, cut{v, v, c.ref, c.span})
				}
			}
		}
		l.spare = sortCuts(l.cluster, l.spare)
		t.cells(k, l, refs, l.cluster, quotient{step: 1})
	}
}

// cells goes through sorted cuts, of which q has divided the numbers, cell by cell.
func (t *timeline) cells(k int, l *level, refs []ref, cuts []cut, q quotient) {
	active := l.active[:0]
	for at := uint64(0); len(cuts) > 0 || len(active) > 0; {
		if len(active) == 0 {
			at = cuts[0].lo
		}
		for len(cuts) > 0 && cuts[0].lo == at {
			active = insert(active, cuts[0])
			cuts = cuts[1:]
		}
		if len(active) > crowded && k == 1 && !t.dup {
			t.crowd(l, refs, q, at, active, cuts)
			break
		}
		end := active[0].hi
		for _, c := range active[1:] {
			end = min(end, c.hi)
		}
		if len(cuts) > 0 {
			end = min(end, cuts[0].lo-1)
		}
		t.cell(k, l, refs, active, q.piece(at, end))
		active = slices.DeleteFunc(active, func(c cut) bool { return c.hi == end })
		at = end + 1
	}
	l.active = active
}

// insert puts c in its place among cuts, which are in the order of the names.
func insert(cuts []cut, c cut) []cut {
	i := len(cuts)
	for i > 0 && inOrder(c, cuts[i-1]) {
		i--
	}
	return slices.Insert(cuts, i, c)
}

func inOrder(a, b cut) bool { return a.ref < b.ref || a.ref == b.ref && a.span < b.span }

// quotient turns numbers that are one step apart into neighbours: the remainder goes above the quotient.
type quotient struct{ step, rest uint64 }

func (q quotient) divide(v uint64) uint64 { return v%q.step*q.rest + v/q.step }

func (q quotient) multiply(v uint64) coord {
	if q.step == 1 {
		return coord(v)
	}
	return coord(v%q.rest*q.step + v/q.rest)
}

// piece is the numbers of which from to to are the quotients.
func (q quotient) piece(from, to uint64) span {
	if from == to {
		return point(q.multiply(from))
	}
	return span{q.multiply(from), q.multiply(to), q.step}
}

// sortCuts sorts by lo; cuts with the same one stay in their order. It returns space to pass to it the next time.
func sortCuts(cuts, spare []cut) []cut {
	ascend := func(a, b cut) int {
		switch {
		case a.lo < b.lo:
			return -1
		case a.lo > b.lo:
			return 1
		}
		return 0
	}
	if slices.IsSortedFunc(cuts, ascend) {
		return spare
	}
	if len(cuts) < 256 {
		slices.SortStableFunc(cuts, ascend)
		return spare
	}
	// By groups of bits, from the lowest, leaving out those bits that are the same everywhere (Knuth, volume 3, 5.2.5).
	differ := uint64(0)
	for _, c := range cuts {
		differ |= c.lo ^ cuts[0].lo
	}
	if cap(spare) < len(cuts) {
		spare = make([]cut, len(cuts))
	}
	from, to := cuts, spare[:len(cuts)]
	for differ != 0 {
		const width = 11
		shift := bits.TrailingZeros64(differ)
		differ &^= (1<<width - 1) << shift
		var count [1 << width]int
		for _, c := range from {
			count[c.lo>>shift&(1<<width-1)]++
		}
		sum := 0
		for d, n := range count {
			count[d] = sum
			sum += n
		}
		for _, c := range from {
			d := c.lo >> shift & (1<<width - 1)
			to[count[d]] = c
			count[d]++
		}
		from, to = to, from
	}
	if &from[0] != &cuts[0] {
		copy(cuts, from)
	}
	return spare
}
