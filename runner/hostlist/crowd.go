package hostlist

// A crowd is the last coordinate where so many mentions overlap that going through them for every cell would take the square
// of their number: n[1-100000]!n[2-99999],n[3-99998]!… Instead, what a slot does to a name is a function from "absent" or
// "present since slot s" to the same; such functions compose, so a balanced tree over the slots has the function of the
// whole expression at its root, and when a mention begins or ends, only those above its slot are composed anew.
type crowd struct {
	t      *timeline
	refs   []ref
	slots  []int32 // that have a mention here, in order
	active []heap  // by place in slots: the mentions, the first of them on top; those that have ended lie about below
	ends   heap    // all active mentions, the first to end on top
	tree   []effect
	leaves int
}

// effect is what a slot or several do to a name.
type effect struct {
	absent, present     int32 // what becomes of a name that is absent or present: a place in slots, or one of the words below
	fires, firesPresent bool  // some difference takes something away for the first time when the name is absent or present before
}

const (
	gone = -1
	kept = -2 // present since when it was
)

// then is the effect of e and then f.
func (e effect) then(f effect) effect {
	after := func(state int32, fires bool) (int32, bool) {
		if state == gone {
			return f.absent, fires || f.fires
		}
		fires = fires || f.firesPresent
		if f.present == kept {
			return state, fires
		}
		return f.present, fires
	}
	var out effect
	out.absent, out.fires = after(e.absent, e.fires)
	out.present, out.firesPresent = after(e.present, e.firesPresent)
	return out
}

// crowd goes on with a sweep at the number at, where the active cuts are, with cuts to come.
func (t *timeline) crowd(l *level, refs []ref, q quotient, at uint64, active, cuts []cut) {
	c := &crowd{t: t, refs: refs, ends: heap{before: func(a, b cut) bool { return a.hi < b.hi }}}
	place := map[int32]int{}
	for _, cs := range [][]cut{active, cuts} {
		for _, x := range cs {
			place[t.slots[refs[x.ref].mention]] = 0
		}
	}
	for s := range t.ops {
		if _, ok := place[int32(s)]; ok {
			place[int32(s)] = len(c.slots)
			c.slots = append(c.slots, int32(s))
		}
	}
	c.active = make([]heap, len(c.slots))
	for i := range c.active {
		c.active[i].before = inOrder
	}
	for c.leaves = 1; c.leaves < len(c.slots); c.leaves *= 2 {
	}
	c.tree = make([]effect, 2*c.leaves)
	for i := range c.tree {
		c.tree[i] = effect{absent: gone, present: kept}
	}
	for i := range c.slots {
		c.tree[c.leaves+i] = c.effect(i)
	}
	for i := c.leaves - 1; i > 0; i-- {
		c.tree[i] = c.tree[2*i].then(c.tree[2*i+1])
	}
	begin := func(x cut) {
		i := place[t.slots[refs[x.ref].mention]]
		c.ends.push(x)
		c.active[i].push(x)
		c.update(i)
	}
	for _, x := range active {
		begin(x)
	}
	for len(cuts) > 0 || len(c.ends.cuts) > 0 {
		if len(c.ends.cuts) == 0 {
			at = cuts[0].lo
		}
		for ; len(cuts) > 0 && cuts[0].lo == at; cuts = cuts[1:] {
			begin(cuts[0])
		}
		end := c.ends.cuts[0].hi
		if len(cuts) > 0 {
			end = min(end, cuts[0].lo-1)
		}
		for c.tree[1].fires {
			c.fire()
		}
		if s := c.tree[1].absent; s != gone && t.passed[len(t.ops)] == t.passed[c.slots[len(c.slots)-1]+1] {
			first := c.active[s].cuts[0]
			l.keep(refs, first, q.piece(at, end), below(refs, first))
		}
		for len(c.ends.cuts) > 0 && c.ends.cuts[0].hi == end {
			i := place[t.slots[refs[c.ends.cuts[0].ref].mention]]
			c.ends.pop()
			for h := &c.active[i]; len(h.cuts) > 0 && h.cuts[0].hi <= end; {
				h.pop()
			}
			c.update(i)
		}
		at = end + 1
	}
}

// effect is what the slot at place i does now.
func (c *crowd) effect(i int) effect {
	slot, active := c.slots[i], len(c.active[i].cuts) > 0
	e := effect{absent: gone, present: kept}
	switch o := c.t.ops[slot]; {
	case o == intersection && !active:
		e.present = gone
	case o == union && active:
		e.absent = int32(i)
	case o == symmetric && active:
		e.absent, e.present = int32(i), gone
	case o == difference && active:
		e.present = gone
		e.firesPresent = !c.t.hit[c.refs[c.active[i].cuts[0].ref].mention]
	}
	if i > 0 && c.t.passed[slot] != c.t.passed[c.slots[i-1]+1] { // an intersection before it mentions nothing here
		e.present, e.firesPresent = e.absent, e.fires
	}
	return e
}

// update composes anew what the slot at place i is in.
func (c *crowd) update(i int) {
	e := c.effect(i)
	i += c.leaves
	if c.tree[i] == e {
		return
	}
	c.tree[i] = e
	for i /= 2; i > 0; i /= 2 {
		c.t.work++
		c.tree[i] = c.tree[2*i].then(c.tree[2*i+1])
	}
}

// fire finds a difference that fires and marks it as hit.
func (c *crowd) fire() {
	i, present := 1, false
	for i < c.leaves {
		left := c.tree[2*i]
		fires, state := left.fires, left.absent
		if present {
			fires, state = left.firesPresent, left.present
		}
		if i *= 2; !fires {
			i++
			present = state != gone
		}
	}
	i -= c.leaves
	c.t.hit[c.refs[c.active[i].cuts[0].ref].mention] = true
	c.update(i)
}

// heap has the cut before all others on top.
type heap struct {
	cuts   []cut
	before func(a, b cut) bool
}

func (h *heap) push(c cut) {
	h.cuts = append(h.cuts, c)
	for i := len(h.cuts) - 1; i > 0; {
		up := (i - 1) / 2
		if !h.before(h.cuts[i], h.cuts[up]) {
			return
		}
		h.cuts[i], h.cuts[up] = h.cuts[up], h.cuts[i]
		i = up
	}
}

func (h *heap) pop() {
	n := len(h.cuts) - 1
	h.cuts[0] = h.cuts[n]
	h.cuts = h.cuts[:n]
	for i := 0; ; {
		down := 2*i + 1
		if down >= n {
			return
		}
		if down+1 < n && h.before(h.cuts[down+1], h.cuts[down]) {
			down++
		}
		if !h.before(h.cuts[down], h.cuts[i]) {
			return
		}
		h.cuts[i], h.cuts[down] = h.cuts[down], h.cuts[i]
		i = down
	}
}
