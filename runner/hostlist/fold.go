package hostlist

import (
	"bytes"
	"cmp"
	"iter"
	"math/bits"
	"slices"
	"strings"
)

// Fold writes names, which are such as Parse lets pass, as one short expression that names the same set: node[001-003,007].
// The text depends on the set alone, not on the order or the number of times the names come: items are sorted, and so are
// the numbers in brackets, by value and then by width, as in foo[0,01,2,03]. Where several numbers vary, boxes are formed that
// have no name in common, as in r[1-3]n[1-4]; the text is short but not always the shortest. Steps, as in n[0-8/2], are not
// written: pdsh cannot read them, and nodeset writes them only when told to. IPv6 addresses are not folded.
// A zero byte, which Parse gives no name but a damaged file may, is written as U+FFFD.
func Fold(names iter.Seq[string]) string {
	groups := map[string]*group{}
	var g *group // of the name before, most often this one's too
	var key, last []byte
	var nums []number
	for name := range names {
		key, nums = split(name, key[:0], nums[:0])
		if g == nil || !bytes.Equal(key, last) {
			if g = groups[string(key)]; g == nil {
				g = new(group)
				groups[string(key)] = g
			}
			last = append(last[:0], key...)
		}
		g.nums = append(g.nums, nums...)
	}
	x := &folded{items: make([]item, 0, len(groups))}
	for key, g := range groups {
		g.write(x, key)
		g.nums = nil // the most of the memory; what follows needs some as well
	}
	return x.String()
}

// number is a run of digits, its value above its width: ordinary comparison sorts by value, then by width.
type number uint64

const widthBits = 5 // maxDigits < 1<<5, and 10^maxDigits < 1<<(64-5)

func makeNumber(v uint64, width int) number { return number(v<<widthBits | uint64(width)) }
func (n number) value() uint64              { return uint64(n) >> widthBits }
func (n number) width() int                 { return int(n & (1<<widthBits - 1)) }

func (n number) append(b []byte) []byte { return appendNumber(b, n.value(), n.width()) }

// mark stands for a run of digits in the key of a group.
const mark = "\x00"

// split appends the name with its runs of digits replaced by the mark to key, and the runs to nums. A run too long for a
// number stays text, as do all of an IPv6 address, where digits and letters are one number.
func split(name string, key []byte, nums []number) ([]byte, []number) {
	name = strings.ReplaceAll(name, mark, "\ufffd")
	if strings.IndexByte(name, ':') >= 0 {
		return append(key, name...), nums
	}
	for i := 0; i < len(name); {
		if !isDigit(name[i]) {
			key = append(key, name[i])
			i++
			continue
		}
		start, v := i, uint64(0)
		for ; i < len(name) && isDigit(name[i]); i++ {
			v = 10*v + uint64(name[i]-'0') // overflows only where it is not used
		}
		if i-start > maxDigits {
			key = append(key, name[start:i]...)
			continue
		}
		key = append(key, mark...)
		nums = append(nums, makeNumber(v, i-start))
	}
	return key, nums
}

// group is the names of one shape: as many numbers for each name as the shape has runs of digits, one name after the other.
type group struct{ nums []number }

// write writes the names, whose shape is key.
func (g *group) write(x *folded, key string) {
	lits := strings.Split(key, mark)
	dims := len(lits) - 1
	sets := make([][]number, dims)
	switch {
	case dims == len(g.nums): // one name
		for d := range sets {
			sets[d] = g.nums[d : d+1]
		}
		x.item(lits, sets)
	case dims == 1:
		slices.Sort(g.nums)
		sets[0] = slices.Compact(g.nums)
		x.item(lits, sets)
	default:
		s := &search{lits: lits, single: map[number]uint32{}, sets: map[string]uint32{}, at: []int{0}}
		s.run(g.nums)
		for box := range slices.Chunk(s.best.ids, dims) {
			for d, id := range box {
				sets[d] = s.set(id)
			}
			x.item(lits, sets)
		}
	}
}

// folded is the items, in any order until the end.
type folded struct {
	text  []byte // of one item after the other, each with its key behind it
	items []item
	first []byte // scratch
}

// item says where in folded.text an item begins, and the key to sort it by, which ends at to.
type item struct{ from, key, to int }

// item adds an item: lits around sets of sorted numbers. Items are sorted as people sort names: numbers by value, then width,
// and all else by byte. The key is such that its bytes say so.
func (x *folded) item(lits []string, sets [][]number) {
	it := item{from: len(x.text)}
	first := x.first[:0] // the first name in it
	for i, nums := range sets {
		x.text = appendBracket(append(x.text, lits[i]...), nums)
		first = nums[0].append(append(first, lits[i]...))
	}
	x.text = append(x.text, lits[len(sets)]...)
	first = append(first, lits[len(sets)]...)
	it.key = len(x.text)
	for i := 0; i < len(first); {
		if !isDigit(first[i]) {
			x.text = append(x.text, first[i])
			i++
			continue
		}
		start, value := i, i
		for ; i < len(first) && isDigit(first[i]); i++ {
			if first[value] == '0' && value == i {
				value++
			}
		}
		x.text = append(x.text, '0', byte(i-value)) // '0': beside what is no digit, a number sorts as a digit does
		x.text = append(x.text, first[value:i]...)
		x.text = append(x.text, byte(i-start))
	}
	it.to = len(x.text)
	x.items = append(x.items, it)
	x.first = first
}

func (x *folded) String() string {
	slices.SortFunc(x.items, func(a, b item) int { return bytes.Compare(x.text[a.key:a.to], x.text[b.key:b.to]) })
	size := 0
	for _, it := range x.items {
		size += it.key - it.from + len(",")
	}
	var b strings.Builder
	b.Grow(size)
	for i, it := range x.items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(x.text[it.from:it.key])
	}
	return b.String()
}

// search looks for a short way to write the names of one shape as boxes: products of sets of numbers, one set for each run of
// digits, which are the dimensions. It begins with a box for each name. Boxes that differ in one dimension alone are merged,
//
//	r1n1,r2n1,r2n2,r3n1,r3n2,r4n2  →  r1n1,r2n[1-2],r3n[1-2],r4n2  →  r1n1,r[2-3]n[1-2],r4n2     the last dimension, then the first
//	                               →  r[1-3]n1,r[2-4]n2                                           the first dimension
//
// and which dimension comes first decides which boxes come out, so several orders are tried, and the shortest text is kept.
type search struct {
	lits    []string // the text around the numbers
	varying []int    // dimensions in which names differ, the last first: people number racks, then nodes

	nums   []number // the sets of numbers, one after the other; that of id i is nums[at[i]:at[i+1]]
	at     []int
	width  []int             // of the text of each set
	single map[number]uint32 // ids of the sets of one number
	sets   map[string]uint32 // ids of the others, by their text

	budget  int // how many more boxes or numbers may be looked at for a shorter text
	best    boxes
	bestLen int

	slots, next, last []uint32 // scratch of merge
}

// boxes are never changed. Each is dims ids of sets, one box after the other in ids; sum has the sum of the ids' hashes for each.
type boxes struct {
	ids []uint32
	sum []uint64
}

func (b boxes) len() int { return len(b.sum) }

func (s *search) dims() int { return len(s.lits) - 1 }

// box returns the ids of box i.
func (s *search) box(b boxes, i int) []uint32 { return b.ids[i*s.dims() : (i+1)*s.dims()] }

// hashOf spreads an id in dimension d over 64 bits, as splitmix64 does.
func hashOf(d int, id uint32) uint64 {
	x := uint64(d+1)<<32 | uint64(id)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// set returns the numbers of an id.
func (s *search) set(id uint32) []number { return s.nums[s.at[id]:s.at[id+1]] }

// id returns the id of sorted numbers.
func (s *search) id(nums ...number) uint32 {
	if len(nums) == 1 {
		id, ok := s.single[nums[0]]
		if !ok {
			id = s.add(nums, nums[0].width())
			s.single[nums[0]] = id
		}
		return id
	}
	text := appendBracket(nil, nums)
	id, ok := s.sets[string(text)]
	if !ok {
		id = s.add(nums, len(text))
		s.sets[string(text)] = id
	}
	return id
}

func (s *search) add(nums []number, width int) uint32 {
	s.nums = append(s.nums, nums...)
	s.at = append(s.at, len(s.nums))
	s.width = append(s.width, width)
	return uint32(len(s.width) - 1)
}

// run searches. nums are the numbers of one name after the other.
func (s *search) run(nums []number) {
	dims := s.dims()
	for d := dims - 1; d >= 0; d-- {
		for i := d; i < len(nums); i += dims {
			if nums[i] != nums[d] {
				s.varying = append(s.varying, d)
				break
			}
		}
	}
	ids := make([]uint32, len(nums))
	for i, n := range nums {
		ids[i] = s.id(n)
	}
	b := s.merge(s.boxes(ids), -1)
	if s.budget = 4*b.len() + 1<<20; len(s.varying) <= 4 {
		s.try(b)
	} else {
		s.finish(b)
		slices.Reverse(s.varying)
		s.finish(b)
	}
	// So small are the texts that somebody reads. That the limits are in proportion to the names keeps many groups as fast as one.
	if s.best.len() <= 100 {
		s.budget = 1000 * b.len()
		s.absorb()
	}
}

// try merges in all orders, while the budget lasts.
func (s *search) try(b boxes) {
	done := true
	for _, d := range s.varying {
		if s.budget < 0 || s.best.len() == 1 {
			break
		}
		s.budget -= b.len()
		if m := s.merge(b, d); m.len() < b.len() {
			done = false
			s.try(m)
		}
	}
	switch {
	case done && s.budget < 0:
		s.finish(b)
	case done:
		s.keep(b)
	}
}

// finish merges in one dimension after the other until nothing is left to merge.
func (s *search) finish(b boxes) {
	for idle, i := 0, 0; idle < len(s.varying); i = (i + 1) % len(s.varying) {
		n := b.len()
		if b = s.merge(b, s.varying[i]); b.len() == n {
			idle++
		} else {
			idle = 1
		}
	}
	s.keep(b)
}

// keep keeps the boxes if their text is the shortest.
func (s *search) keep(b boxes) {
	n := b.len() * (len(strings.Join(s.lits, "")) + len(","))
	for _, id := range b.ids {
		n += s.width[id]
	}
	if s.best.ids == nil || n < s.bestLen {
		s.best, s.bestLen = b, n
	}
}

// merge joins the boxes that differ in dimension d alone. With d = -1 it drops boxes that come again.
func (s *search) merge(b boxes, d int) boxes {
	n := b.len()
	size := 1 << bits.Len(uint(2*n)) // of the hash table of boxes, by all dimensions but d
	if cap(s.slots) < size {
		s.slots, s.next, s.last = make([]uint32, size), make([]uint32, size/2), make([]uint32, size/2)
	}
	// 0 is none, and i+1 is box i. A slot has the first box of those to join, next leads from each to the one after it, and
	// last, for the first box, has the last.
	slots, next, last := s.slots[:size], s.next[:n], s.last[:n]
	clear(slots)
	clear(next)
	clear(last)
	rest := func(i int) uint64 { // the hash of box i but for dimension d
		if d < 0 {
			return b.sum[i]
		}
		return b.sum[i] - hashOf(d, s.box(b, i)[d])
	}
	joined := 0
	for i := range n {
		h := rest(i)
		at := int(h % uint64(size))
		for ; slots[at] != 0; at = (at + 1) % size {
			if j := int(slots[at] - 1); rest(j) == h && equalBut(d, s.box(b, i), s.box(b, j)) {
				next[last[j]-1], last[j] = uint32(i+1), uint32(i+1)
				joined++
				break
			}
		}
		if slots[at] == 0 {
			slots[at], last[i] = uint32(i+1), uint32(i+1)
		}
	}
	if joined == 0 {
		return b
	}
	out := boxes{ids: make([]uint32, 0, (n-joined)*s.dims()), sum: make([]uint64, 0, n-joined)}
	var nums []number
	for i := range n {
		if last[i] == 0 { // not the first of its kind
			continue
		}
		out.ids = append(out.ids, s.box(b, i)...)
		out.sum = append(out.sum, b.sum[i])
		if next[i] == 0 || d < 0 {
			continue
		}
		nums = nums[:0]
		for j := uint32(i + 1); j != 0; j = next[j-1] {
			nums = append(nums, s.set(s.box(b, int(j-1))[d])...) // boxes share no name, so these sets no number
		}
		slices.Sort(nums)
		id := s.id(nums...)
		s.box(out, out.len()-1)[d] = id
		out.sum[out.len()-1] = rest(i) + hashOf(d, id)
	}
	return out
}

func equalBut(d int, a, b []uint32) bool {
	for i := range a {
		if i != d && a[i] != b[i] {
			return false
		}
	}
	return true
}

// absorb takes out boxes that fall to pieces which others can take in, as the last of
//
//	r[1-2]n[1-3],r[5-6]n7,r9n[1-3,7]  →  r[1-2,9]n[1-3],r[5-6,9]n7
//
// where the text gets shorter by it.
func (s *search) absorb() {
	// What is tried first must not depend on the order of the names.
	order := slices.SortedFunc(slices.Chunk(s.best.ids, s.dims()), func(a, b []uint32) int {
		return slices.CompareFunc(a, b, func(a, b uint32) int { return cmp.Compare(s.set(a)[0], s.set(b)[0]) })
	})
	s.best = s.boxes(slices.Concat(order...))
	for idle, i := 0, 0; idle < s.best.len() && s.budget > 0; {
		if i = i % s.best.len(); s.absorbed(i) {
			idle = 0
		} else {
			i++
			idle++
		}
	}
}

// boxes makes boxes of ids.
func (s *search) boxes(ids []uint32) boxes {
	b := boxes{ids: ids, sum: make([]uint64, len(ids)/s.dims())}
	for i, id := range ids {
		b.sum[i/s.dims()] += hashOf(i%s.dims(), id)
	}
	return b
}

// absorbed takes out box i, if it can and if that makes the text shorter.
func (s *search) absorbed(i int) bool {
	box := s.box(s.best, i)
	type taker struct {
		box, d int // grows in dimension d
		piece  []number
	}
	for _, cut := range s.varying {
		left := s.set(box[cut])
		var takers []taker
		for j := range s.best.len() {
			other := s.box(s.best, j)
			if d, ok := differAt(cut, box, other); ok && len(s.set(other[cut])) <= len(left) {
				takers = append(takers, taker{j, d, s.set(other[cut])})
			}
		}
		s.budget -= s.best.len() + len(takers)*len(left)
		if s.budget < 0 {
			return false
		}
		slices.SortStableFunc(takers, func(a, b taker) int { return len(b.piece) - len(a.piece) })
		takers = slices.DeleteFunc(takers, func(t taker) bool {
			if len(left) == 0 || !within(t.piece, left) {
				return true
			}
			left = without(left, t.piece)
			return false
		})
		if len(left) > 0 {
			continue
		}
		ids := slices.Clone(s.best.ids)
		for _, t := range takers {
			grown := &ids[t.box*s.dims()+t.d]
			nums := slices.Concat(s.set(*grown), s.set(box[t.d]))
			s.budget -= len(nums)
			slices.Sort(nums)
			*grown = s.id(nums...)
		}
		before := s.bestLen
		if s.finish(s.boxes(slices.Delete(ids, i*s.dims(), (i+1)*s.dims()))); s.bestLen < before {
			return true
		}
	}
	return false
}

// differAt reports whether a and b differ in just one dimension besides cut, and in which.
func differAt(cut int, a, b []uint32) (d int, ok bool) {
	for i := range a {
		if i == cut || a[i] == b[i] {
			continue
		}
		if ok {
			return 0, false
		}
		d, ok = i, true
	}
	return d, ok
}

// within reports whether all of a is in b; both are sorted.
func within(a, b []number) bool {
	for _, n := range a {
		i := 0
		for i < len(b) && b[i] < n {
			i++
		}
		if i == len(b) || b[i] != n {
			return false
		}
		b = b[i+1:]
	}
	return true
}

// without returns b without the numbers of a; both are sorted.
func without(b, a []number) []number {
	var rest []number
	for _, n := range b {
		if len(a) > 0 && a[0] == n {
			a = a[1:]
		} else {
			rest = append(rest, n)
		}
	}
	return rest
}

// appendBracket appends sorted numbers as they stand in an expression: 7, or [1-3,7].
//
// A range goes on from n with n+1 in the same width, and from 9, 99 … also with one digit more, which is how Parse counts.
// Numbers of several widths interleave, so there may be one unfinished range for each width.
func appendBracket(b []byte, nums []number) []byte {
	if len(nums) == 1 {
		return nums[0].append(b)
	}
	type run struct{ first, last number }
	var runs []run
	var open [maxDigits + 1]int // by width of the last number: its place in runs, plus 1
	for _, n := range nums {
		v, w := n.value(), n.width()
		ends := func(width int) bool {
			return v > 0 && open[width] > 0 && runs[open[width]-1].last == makeNumber(v-1, width)
		}
		switch {
		case ends(w):
		case v == pow10[w-1] && ends(w-1):
			open[w] = open[w-1]
		default:
			runs = append(runs, run{first: n})
			open[w] = len(runs)
		}
		runs[open[w]-1].last = n
	}
	b = append(b, '[')
	for i, r := range runs {
		if i > 0 {
			b = append(b, ',')
		}
		b = r.first.append(b)
		if r.last != r.first {
			b = r.last.append(append(b, '-'))
		}
	}
	return append(b, ']')
}
