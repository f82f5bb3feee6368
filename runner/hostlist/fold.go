package hostlist

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"
)

// Fold writes names, of which none is empty, as one short expression that Parse reads back as the same set: node[001-003,7].
// The text depends on the set alone, not on the order or the number of times the names come: items are sorted, and so are
// the numbers in brackets, by value and then by width, as in foo[0,01,2,03]. Where several numbers vary, boxes are formed, as
// in r[1-3]n[1-4]; this is done greedily, so the text is short but not always the shortest. IPv6 addresses are not folded.
// A zero byte, which Parse gives no name but a damaged file may, is written as U+FFFD.
func Fold(names iter.Seq[string]) string {
	groups := map[string]*group{}
	var key []byte
	var nums []number
	for name := range names {
		key, nums = split(name, key[:0], nums[:0])
		g := groups[string(key)]
		if g == nil {
			g = new(group)
			groups[string(key)] = g
		}
		g.nums = append(g.nums, nums...)
	}
	var items []item
	for key, g := range groups {
		items = append(items, g.items(strings.Split(key, mark))...)
	}
	slices.SortFunc(items, func(a, b item) int { return natural(a.first, b.first) })
	var b strings.Builder
	for i, it := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(it.text)
	}
	return b.String()
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

// group is the names of one shape, which has dims runs of digits: dims numbers for each name, one name after the other.
type group struct{ nums []number }

// item is one item of the expression, and the first name in it to sort by.
type item struct{ text, first string }

// items returns the group as items; lits is the text around the numbers.
func (g *group) items(lits []string) []item {
	switch dims := len(lits) - 1; dims {
	case 0:
		return []item{{lits[0], lits[0]}}
	case 1:
		slices.Sort(g.nums)
		g.nums = slices.Compact(g.nums)
		t := &table{nums: [][]number{g.nums}, text: []string{bracket(g.nums)}}
		return []item{t.item(lits, box{0})}
	default:
		// Which dimension is merged first decides which boxes come out. Try from the last to the first, as people
		// number (rack, then node), and the other way round.
		t := newTable()
		boxes := t.boxes(g.nums, dims)
		order := make([]int, dims)
		for i := range order {
			order[i] = i
		}
		ahead := t.items(lits, t.merge(boxes, order))
		slices.Reverse(order)
		back := t.items(lits, t.merge(boxes, order))
		if length(ahead) < length(back) {
			return ahead
		}
		return back
	}
}

func length(items []item) int {
	n := len(items)
	for _, it := range items {
		n += len(it.text)
	}
	return n
}

// box is a product of sets of numbers, one for each dimension, each set by its place in the table.
type box []uint32

// table has each set of numbers once.
type table struct {
	nums  [][]number // sorted
	text  []string   // as it stands in an expression
	index map[string]uint32
}

func newTable() *table { return &table{index: map[string]uint32{}} }

func (t *table) intern(nums []number) uint32 {
	text := bracket(nums)
	id, ok := t.index[text]
	if !ok {
		id = uint32(len(t.nums))
		t.index[text] = id
		t.nums = append(t.nums, nums)
		t.text = append(t.text, text)
	}
	return id
}

// boxes returns one box for each name, sorted and none twice.
func (t *table) boxes(nums []number, dims int) []box {
	names := slices.SortedFunc(slices.Chunk(nums, dims), slices.Compare[[]number])
	names = slices.CompactFunc(names, slices.Equal[[]number])
	single := map[number]uint32{}
	ids := make([]uint32, 0, len(names)*dims)
	boxes := make([]box, len(names))
	for i, name := range names {
		for d := range name {
			id, ok := single[name[d]]
			if !ok {
				id = t.intern(name[d : d+1])
				single[name[d]] = id
			}
			ids = append(ids, id)
		}
		boxes[i] = ids[i*dims : (i+1)*dims]
	}
	return boxes
}

// merge joins boxes that differ in one dimension alone, dimension by dimension in this order, until there are no such boxes.
func (t *table) merge(boxes []box, order []int) []box {
	for idle, i := 0, 0; idle < len(order); i = (i + 1) % len(order) {
		n := len(boxes)
		if boxes = t.mergeIn(boxes, order[i]); len(boxes) == n {
			idle++
		} else {
			idle = 1
		}
	}
	return boxes
}

// mergeIn joins the boxes that differ in dimension d alone. Boxes share no name, so neither do the sets that are joined.
func (t *table) mergeIn(boxes []box, d int) []box {
	places := make(map[string]int, len(boxes))
	members := make([][]box, 0, len(boxes))
	var key []byte
	for _, b := range boxes {
		key = key[:0]
		for i, id := range b {
			if i != d {
				key = binary.LittleEndian.AppendUint32(key, id)
			}
		}
		at, ok := places[string(key)]
		if !ok {
			at = len(members)
			places[string(key)] = at
			members = append(members, nil)
		}
		members[at] = append(members[at], b)
	}
	if len(members) == len(boxes) {
		return boxes
	}
	out := make([]box, len(members))
	for i, m := range members {
		if out[i] = m[0]; len(m) == 1 {
			continue
		}
		var nums []number
		for _, b := range m {
			nums = append(nums, t.nums[b[d]]...)
		}
		slices.Sort(nums)
		out[i] = slices.Clone(m[0])
		out[i][d] = t.intern(nums)
	}
	return out
}

func (t *table) items(lits []string, boxes []box) []item {
	items := make([]item, len(boxes))
	for i, b := range boxes {
		items[i] = t.item(lits, b)
	}
	return items
}

func (t *table) item(lits []string, b box) item {
	var text, first []byte
	for i, id := range b {
		text = append(append(text, lits[i]...), t.text[id]...)
		first = t.nums[id][0].append(append(first, lits[i]...))
	}
	last := lits[len(lits)-1]
	return item{text: string(append(text, last...)), first: string(append(first, last...))}
}

// bracket writes sorted numbers as they stand in an expression: 7, or [1-3,7].
//
// A range goes on from n with n+1 in the same width, and from 9, 99 … also with one digit more, which is how Parse counts.
// Numbers of several widths interleave, so there may be one unfinished range for each width.
func bracket(nums []number) string {
	if len(nums) == 1 {
		return string(nums[0].append(nil))
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
	b := []byte{'['}
	for i, r := range runs {
		if i > 0 {
			b = append(b, ',')
		}
		b = r.first.append(b)
		if r.last != r.first {
			b = r.last.append(append(b, '-'))
		}
	}
	return string(append(b, ']'))
}

// natural compares names as people sort them: numbers by value, then width, and all else by byte.
func natural(a, b string) int {
	for a != "" && b != "" {
		if isDigit(a[0]) && isDigit(b[0]) {
			var x, y string
			x, a = nextRun(a)
			y, b = nextRun(b)
			if c := shortlex(strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")); c != 0 {
				return c
			}
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}
