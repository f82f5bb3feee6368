package hostlist

import (
	"slices"
	"strings"
)

// GroupRef is a group that an expression names. Source is empty for the default source, and Name is "*" for all hosts of the source.
type GroupRef struct{ Source, Name string }

// String is how the reference is written.
func (g GroupRef) String() string {
	if g.Source == "" {
		return "@" + g.Name
	}
	return "@" + g.Source + ":" + g.Name
}

// Scope is what an expression can refer to besides names. What is nil is refused where an expression needs it. The errors of
// its functions come back as they are.
type Scope struct {
	Transports []string                         // what may stand before a ':'
	Group      func(GroupRef) (*List, error)    // the hosts of a group
	All        func() (*List, error)            // all hosts there are: what wildcards and a first /re/ choose from
	File       func(name string) (*List, error) // the hosts of ^FILE
	Dup        bool                             // hosts that are named several times stay so
}

// Selection is what an expression chooses.
type Selection struct {
	Hosts   *List
	Targets []Target // of the items that have one, in order; a host is in no two of them that differ
}

// Target is what an item says besides names: [transport:][user@]EXPR[:port].
type Target struct {
	Hosts           *List // of the item, also those that a later item has excluded
	Transport, User string
	Port            uint16 // 0: none
	Offset          int    // of the item in the expression
}

// Groups returns the groups that e needs, each once, so that they can be fetched beforehand and at the same time.
func (e *Expr) Groups() []GroupRef {
	var refs []GroupRef
	seen := map[GroupRef]bool{}
	for _, t := range e.terms {
		if t.ref == nil {
			continue
		}
		for _, g := range t.ref.groups {
			if !seen[g] {
				seen[g] = true
				refs = append(refs, g)
			}
		}
	}
	return refs
}

// Hosts reads and evaluates an expression that needs nothing but itself. Its error is a *SyntaxError. The list may be empty,
// as that of "a!a" is.
func Hosts(text string) (*List, error) {
	e, err := Parse(text)
	if err != nil {
		return nil, err
	}
	for _, t := range e.terms {
		if t.target != nil {
			return nil, e.fail(t.off, "transport, user and port mean nothing here: expected names alone")
		}
	}
	ev := evaluation{expr: e, scope: new(Scope)}
	return ev.run(len(e.terms))
}

// Eval finds the hosts of e. A nil scope has nothing but names. The error is a *SyntaxError or comes from the scope. The list
// may be empty, and has at most MaxHosts.
func (e *Expr) Eval(s *Scope) (*Selection, error) {
	if s == nil {
		s = new(Scope)
	}
	ev := evaluation{expr: e, scope: s}
	hosts, err := ev.run(len(e.terms))
	if err != nil {
		return nil, err
	}
	targets, err := ev.targets()
	if err != nil {
		return nil, err
	}
	return &Selection{hosts, targets}, nil
}

// Exclude returns from without the hosts of e; this is what -x means. Each item of e, but for those that its own operators
// take away again, must have a host of from, else the error, a *SyntaxError, names the host that comes close. Wildcards and
// regular expressions match against from.
func (e *Expr) Exclude(from *List, s *Scope) (*List, error) {
	if s == nil {
		s = new(Scope)
	}
	for _, t := range e.terms {
		if t.target != nil {
			return nil, e.fail(t.off, "a target says how a host is reached, and this only excludes: leave out transport, user and port")
		}
	}
	ev := evaluation{expr: e, scope: s, from: from}
	x, err := ev.run(len(e.terms))
	if err != nil {
		return nil, err
	}
	t := timeline{dup: true}
	t.add(union, from.entries...)
	t.add(difference, x.entries...)
	rest := t.run()
	hit := make([]bool, len(e.terms))
	for i, h := range t.hit[len(from.entries):] {
		hit[x.entries[i].term] = hit[x.entries[i].term] || h
	}
	// Of a run of plain names each must be there, and of any other term one. The first that fails is the error.
	var names []entry
	bad := -1
	for i, en := range x.entries {
		if e.terms[en.term].names {
			names = append(names, en)
		} else if !hit[en.term] && (bad < 0 || en.term < x.entries[bad].term) {
			bad = i
		}
	}
	missing := (&List{entries: names}).Difference(from)
	switch {
	case missing.n > 0 && (bad < 0 || missing.entries[0].term < x.entries[bad].term):
		return nil, ev.missed(&missing.entries[0], from)
	case bad >= 0:
		return nil, ev.missed(&x.entries[bad], from)
	}
	return rest, nil
}

func (e *Expr) fail(off int, format string, args ...any) *SyntaxError {
	return (&parser{expr: e.text}).fail(off, format, args...)
}

// evaluation is one evaluation of an expression.
type evaluation struct {
	expr  *Expr
	scope *Scope
	from  *List     // what Exclude takes away from; nil for Eval
	found [][]entry // of the terms that have been resolved
}

// run evaluates the first n terms.
func (ev *evaluation) run(n int) (*List, error) {
	t := timeline{dup: ev.scope.Dup}
	done := 0 // terms that the timeline does not have any more
	for i, tm := range ev.expr.terms[:n] {
		if !ev.filters(i) {
			if i == len(ev.found) {
				entries, err := ev.resolve(i)
				if err != nil {
					return nil, err
				}
				ev.found = append(ev.found, entries)
			}
			t.add(tm.op, ev.found[i]...)
			continue
		}
		before, err := ev.finish(&t, done, i)
		if err != nil {
			return nil, err
		}
		after := before.where(func(name []byte) bool { return tm.ref.match(name) != (tm.op == difference) })
		if tm.op == difference && after.n == before.n {
			return nil, ev.expr.fail(tm.off, "this excludes nothing: no host before it matches")
		}
		if i == len(ev.found) {
			ev.found = append(ev.found, nil)
		}
		t = timeline{dup: ev.scope.Dup}
		t.add(union, after.entries...)
		done = i + 1
	}
	return ev.finish(&t, done, n)
}

// filters reports whether the i-th term keeps or drops some of what stands before it, instead of naming hosts.
func (ev *evaluation) filters(i int) bool {
	switch t := ev.expr.terms[i]; {
	case t.ref == nil || t.ref.match == nil:
		return false
	case t.op == union:
		return t.ref.filter && i > 0 && ev.from == nil
	default:
		return t.op != symmetric
	}
}

// resolve finds the hosts of the i-th term.
func (ev *evaluation) resolve(i int) ([]entry, error) {
	t := &ev.expr.terms[i]
	if t.target != nil && t.target.transport != "" && !slices.Contains(ev.scope.Transports, t.target.transport) {
		there := "there is none"
		if len(ev.scope.Transports) > 0 {
			there = "there is " + strings.Join(ev.scope.Transports, ", ")
		}
		return nil, ev.expr.fail(t.off, "there is no transport %q: %s", t.target.transport, there)
	}
	var entries []entry
	take := func(l *List) {
		for _, e := range l.entries {
			e.term = int32(i)
			entries = append(entries, e)
		}
	}
	switch {
	case t.ref == nil:
		take(&List{entries: t.entries})
	case t.ref.match != nil:
		all, err := ev.all(t)
		if err != nil {
			return nil, err
		}
		if take(all.where(t.ref.match)); entries == nil {
			return nil, ev.expr.fail(t.off, "no host matches %s", ev.expr.text[t.off:t.end])
		}
	case t.ref.file != "":
		if ev.scope.File == nil {
			return nil, ev.expr.fail(t.off, "no files are read here: expected names")
		}
		l, err := ev.scope.File(t.ref.file)
		if err != nil {
			return nil, err
		}
		take(l)
	default:
		for _, g := range t.ref.groups {
			if ev.scope.Group == nil {
				return nil, ev.expr.fail(t.off, "there are no groups here: expected names")
			}
			l, err := ev.scope.Group(g)
			if err != nil {
				return nil, err
			}
			take(l)
		}
	}
	return entries, nil
}

// all is what the pattern of t matches against.
func (ev *evaluation) all(t *term) (*List, error) {
	switch {
	case ev.from != nil:
		return ev.from, nil
	case ev.scope.All == nil:
		return nil, ev.expr.fail(t.off, "this chooses from all hosts, and there is no list of them here: expected names")
	}
	return ev.scope.All()
}

// finish runs the timeline, which has the terms from the done-th to the n-th, and checks that every exclusion among them had
// something to exclude, and the number of hosts.
func (ev *evaluation) finish(t *timeline, done, n int) (*List, error) {
	l := t.run()
	hit := make([]bool, n)
	for i, h := range t.hit {
		if h {
			hit[t.entries[i].term] = true
		}
	}
	for i, tm := range ev.expr.terms[:n] {
		if i < done || tm.op != difference || hit[i] {
			continue
		}
		before, err := ev.run(i)
		if err != nil {
			return nil, err
		}
		if len(ev.found[i]) == 0 {
			return nil, ev.expr.fail(tm.off, "this excludes nothing: %s has no hosts", ev.expr.text[tm.off:tm.end])
		}
		return nil, ev.missed(&ev.found[i][0], before)
	}
	if l.n > MaxHosts {
		sum := 0
		for _, e := range l.entries {
			if sum += e.root.size(); sum > MaxHosts {
				return nil, ev.expr.fail(ev.expr.terms[e.term].off, "with this the list has %d hosts, and at most %d are possible", sum, MaxHosts)
			}
		}
	}
	return l, nil
}

// missed is the error for a term that excludes the names of e, among others, where none of them is among the hosts.
func (ev *evaluation) missed(e *entry, hosts *List) error {
	t, name := &ev.expr.terms[e.term], e.first()
	off := t.off
	if t.names {
		text := ev.expr.text[:t.end]
		for off < len(text) { // the items of a run are names, with blanks and commas between them
			end := off
			for end < len(text) && !endsItem(text[end]) {
				end++
			}
			if text[off:end] == name {
				break
			}
			off = max(end, off+1)
		}
	}
	msg := "this excludes nothing: " + name + " is not among the hosts"
	if near := hosts.near(name); near != "" {
		msg += "; did you mean " + near + "?"
	}
	return ev.expr.fail(off, "%s", msg)
}

// near returns a host that a person could have meant by name: the same but for padding and case, or for the domain.
func (l *List) near(name string) string {
	domain := ""
	for host := range l.All() {
		if alike(host, name) {
			return host
		}
		if domain == "" && (strings.HasPrefix(host, name+".") || strings.HasPrefix(name, host+".")) {
			domain = host
		}
	}
	return domain
}

// alike reports whether a and b differ in nothing but case and the leading zeros of numbers.
func alike(a, b string) bool {
	for a != "" && b != "" {
		if isDigit(a[0]) && isDigit(b[0]) {
			var x, y string
			x, a = nextRun(a)
			y, b = nextRun(b)
			if strings.TrimLeft(x, "0") != strings.TrimLeft(y, "0") {
				return false
			}
			continue
		}
		if !strings.EqualFold(a[:1], b[:1]) {
			return false
		}
		a, b = a[1:], b[1:]
	}
	return a == b
}

// targets returns the targets of the terms, and refuses two for one host.
func (ev *evaluation) targets() ([]Target, error) {
	type way struct {
		transport, user string
		port            uint16
	}
	var targets []Target
	var texts []string // of their items
	var ways []way
	by := map[way][]*List{}
	for i, tm := range ev.expr.terms {
		if tm.target == nil {
			continue
		}
		hosts := (&List{entries: ev.found[i]}).Union()
		to := tm.target
		targets = append(targets, Target{hosts, to.transport, to.user, to.port, tm.off})
		texts = append(texts, ev.expr.text[tm.off:tm.end])
		w := way{to.transport, to.user, to.port}
		if by[w] == nil {
			ways = append(ways, w)
		}
		by[w] = append(by[w], hosts)
	}
	if len(ways) < 2 {
		return targets, nil
	}
	// Each host has one target if and only if the sets of the different targets together are as large as their union.
	sum := 0
	var sets []*List
	for _, w := range ways {
		set := new(List).Union(by[w]...)
		sum += set.n
		sets = append(sets, set)
	}
	if new(List).Union(sets...).n == sum {
		return targets, nil
	}
	var index Index[int]
	for i, t := range targets {
		for name := range t.Hosts.All() {
			for j := range index.Lookup(name) {
				if o := targets[j]; o.Transport != t.Transport || o.User != t.User || o.Port != t.Port {
					return nil, ev.expr.fail(t.Offset, "%s has two different targets, %s and %s: leave one out, or give the host a second name in a hosts file, as in NAME addr=%s",
						name, texts[j], texts[i], name)
				}
			}
		}
		index.Add(t.Hosts, i)
	}
	return targets, nil
}
