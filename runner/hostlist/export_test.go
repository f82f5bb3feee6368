package hostlist

import "testing"

// Crowded sets how many overlapping mentions are a crowd, for one test.
func Crowded(tb testing.TB, n int) { set(tb, &crowded, n) }

// Window sets how many numbers are taken apart at a time, for one test.
func Window(tb testing.TB, n int) { set(tb, &window, n) }

func set(tb testing.TB, v *int, to int) {
	before := *v
	*v = to
	tb.Cleanup(func() { *v = before })
}

// Nodes is how many nodes and spans a list has: what it costs to keep it.
func Nodes(l *List) (nodes, spans int) {
	seen := map[*node]bool{}
	var walk func(t *node)
	walk = func(t *node) {
		if t == nil || seen[t] {
			return
		}
		seen[t] = true
		nodes++
		spans += len(t.spans)
		for _, kid := range t.kids {
			walk(kid)
		}
	}
	for _, e := range l.entries {
		walk(e.root)
	}
	return nodes, spans
}

// Work is how many spans and mentions an evaluation of names alone looks at.
func Work(tb testing.TB, text string) int {
	e, err := Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	var t timeline
	for _, tm := range e.terms {
		t.add(tm.op, tm.entries...)
	}
	t.run()
	return t.work
}
