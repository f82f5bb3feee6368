package hostlist_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"multirsh/runner/hostlist"
)

// model is the plainest thing that an expression can mean: names in order, and every operator as a loop over them.
type model struct {
	dup   bool
	names []string
}

func without(names, others []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(others, n) })
}

// apply does one operation and reports whether it is refused, as an exclusion that removes nothing is.
func (m *model) apply(op byte, names []string) (refused bool) {
	switch op {
	case ',':
		for _, n := range names {
			if m.dup || !slices.Contains(m.names, n) {
				m.names = append(m.names, n)
			}
		}
	case '!':
		rest := without(m.names, names)
		refused = len(rest) == len(m.names)
		m.names = rest
	case '&':
		m.names = slices.DeleteFunc(slices.Clone(m.names), func(n string) bool { return !slices.Contains(names, n) })
	case '^':
		left, right := without(m.names, names), without(names, m.names)
		m.names = left
		m.apply(',', right)
	}
	return refused
}

// A part of an item and the texts that it stands for, found without the package.
type part struct {
	text  string
	means []string
}

func literal(text string) part { return part{text, []string{text}} }

func numbers(lo, hi, step, width int) part {
	p := part{text: fmt.Sprintf("[%0*d-%d/%d]", width, lo, hi, step)}
	if step == 1 {
		p.text = fmt.Sprintf("[%0*d-%d]", width, lo, hi)
	}
	for v := lo; v <= hi; v += step {
		p.means = append(p.means, fmt.Sprintf("%0*d", width, v))
	}
	return p
}

func combine(parts []part) (text string, names []string) {
	names = []string{""}
	for _, p := range parts {
		text += p.text
		var next []string
		for _, n := range names {
			for _, m := range p.means {
				next = append(next, n+m)
			}
		}
		names = next
	}
	return text, names
}

// dice makes choices from bytes, and 0 when there are no more.
type dice []byte

func (d *dice) roll(n int) int {
	if len(*d) == 0 {
		return 0
	}
	v := int((*d)[0]) % n
	*d = (*d)[1:]
	return v
}

// item makes an item of up to about fifty names, most of which other items have too.
func (d *dice) item() (text string, names []string) {
	parts := []part{literal([]string{"a", "b", "", "aa"}[d.roll(4)])}
	for range 1 + d.roll(3) {
		switch lo := d.roll(12); d.roll(8) {
		case 0, 1:
			parts = append(parts, literal(strconv.Itoa(lo)))
		case 2:
			parts = append(parts, literal(fmt.Sprintf("%02d", lo)))
		case 3, 4:
			parts = append(parts, numbers(lo, lo+d.roll(8), 1, 1))
		case 5:
			parts = append(parts, numbers(lo, lo+d.roll(6), 1, 2))
		case 6:
			parts = append(parts, numbers(lo, lo+d.roll(12), 1+d.roll(3), 1))
		case 7:
			x, y := d.roll(12), d.roll(12)
			p := part{fmt.Sprintf("[%d,%d,%02d]", lo, x, y), []string{strconv.Itoa(lo), strconv.Itoa(x), fmt.Sprintf("%02d", y)}}
			parts = append(parts, p)
		}
		parts = append(parts, literal([]string{"", "x", "", "-", "x1"}[d.roll(5)]))
	}
	if text, names = combine(parts); len(names) > 300 {
		return "a1", []string{"a1"}
	}
	return text, names
}

// checkAlgebra evaluates the expression that the dice make, and the model.
func checkAlgebra(t *testing.T, d dice) {
	m := model{dup: d.roll(4) == 0}
	hostlist.Crowded(t, []int{0, 1, 32}[d.roll(3)])
	hostlist.Window(t, []int{1, 1 << 16}[d.roll(2)])
	var text strings.Builder
	refused := false
	regexps := []string{"1", "[2-5]$", "^a", "x"}
	mentioned := []string{"a", "a1", "zz9"}
	for i := range 1 + d.roll(10) {
		op := ",!&^,!"[d.roll(6)]
		if i == 0 {
			op = ','
		} else {
			text.WriteByte(op)
		}
		if i > 0 && op != '^' && d.roll(8) == 0 {
			re := regexps[d.roll(len(regexps))]
			text.WriteString("/" + re + "/")
			var match []string
			for _, n := range m.names {
				if regexp.MustCompile(re).MatchString(n) {
					match = append(match, n)
				}
			}
			if op == ',' {
				op = '&'
			}
			refused = m.apply(op, match) || refused
			continue
		}
		item, names := d.item()
		text.WriteString(item)
		if !m.dup {
			once := model{}
			once.apply(',', names)
			names = once.names
		}
		mentioned = append(mentioned, names...)
		refused = m.apply(op, names) || refused
	}
	e, err := hostlist.Parse(text.String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.Eval(&hostlist.Scope{Dup: m.dup})
	if err != nil {
		if !refused {
			t.Fatalf("%s: %v", text.String(), err)
		}
		return
	}
	if refused {
		t.Fatalf("%s: an exclusion of nothing is let through", text.String())
	}
	if diff := cmp.Diff(m.names, expand(s.Hosts)); diff != "" && len(m.names)+s.Hosts.Len() > 0 {
		t.Fatalf("%s (dup %v), -want +got:\n%s", text.String(), m.dup, diff)
	}
	if s.Hosts.Len() != len(m.names) {
		t.Fatalf("%s: Len() = %d, want %d", text.String(), s.Hosts.Len(), len(m.names))
	}
	for _, n := range mentioned {
		if got, want := s.Hosts.Contains(n), slices.Contains(m.names, n); got != want {
			t.Fatalf("%s: Contains(%q) = %v", text.String(), n, got)
		}
	}
}

func TestAlgebra(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		d := make(dice, 120)
		for i := range d {
			d[i] = byte(r.Uint32())
		}
		checkAlgebra(t, d)
	}
}

func FuzzAlgebra(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		d := make([]byte, 100)
		for i := range d {
			d[i] = byte(r.Uint32())
		}
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, d []byte) { checkAlgebra(t, d) })
}
