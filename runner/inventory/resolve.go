package inventory

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"multirsh/runner/hostlist"
	"multirsh/runner/inventory/groups"
)

// Bounds on groups in groups, and on how many commands of a source run at once.
const (
	maxDepth = 1000
	maxAsked = 32
)

const everything = "*" // the name of all groups of a source

// node is a set of hosts that has a name: a section, all hosts of a book, or a group of a source. It is what its parts say.
type node struct {
	what  string // as it is written
	name  string
	book  *book // of a section, or all of whose hosts it is
	set   []claim
	parts []*part

	source  *source  // nil: it is no group of a source
	asked   bool     // the source has been asked, and said:
	unknown error    // there is no such group,
	known   []string // but these
	members []*node  // of all of a source that cannot say its hosts at once: its groups

	hosts *hostlist.List // nil: not known yet
	ready bool           // the sources have been asked for all that it may need
	busy  bool           // its hosts are being found
	clear bool           // it has been checked that it is not in itself
}

// source is one of Options.Sources, and those of its groups that have come up.
type source struct {
	Named
	groups  map[string]*node
	asked   bool // for a group
	settled bool // what it sets is known
}

func (s *source) group(name string) *node {
	n := s.groups[name]
	if n == nil {
		n = &node{what: Group{s.Name, name}.String(), name: name, source: s}
		s.groups[name] = n
	}
	return n
}

// query is one call of Select or the like: what is asked of sources has one deadline.
type query struct {
	*Inventory
	ctx    context.Context
	chain  []*node // those being found, each in the one before it
	failed error   // the error for which expressions could not be evaluated
	placed bool    // it has its place
}

// ask begins a query. The caller calls done at its end.
func (inv *Inventory) ask(ctx context.Context) (q *query, done func()) {
	timeout := inv.options.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, done = context.WithTimeoutCause(ctx, timeout, &lateError{timeout})
	return &query{Inventory: inv, ctx: ctx}, done
}

// lateError is a context.DeadlineExceeded to errors.Is.
type lateError struct{ after time.Duration }

func (e *lateError) Error() string {
	return fmt.Sprintf("the sources of groups have %v together", e.after)
}

// Is makes it a deadline like any other.
func (e *lateError) Is(target error) bool { return target == context.DeadlineExceeded }

// find is the node that a reference means: on the command line and in the configuration (a book of nil), in a hosts file, or in what a
// source says.
func (q *query) find(ref hostlist.GroupRef, in *book, from *source) (*node, error) {
	switch {
	case from != nil && ref.Source == "":
		return from.group(ref.Name), nil
	case ref.Source != "" && ref.Source != SectionsSource:
		if s := q.sources[ref.Source]; s != nil {
			return s.group(ref.Name), nil
		}
		return nil, q.noSource(ref.Source)
	}
	for _, b := range []*book{in, q.main} {
		switch {
		case b == nil:
		case ref.Name == everything && (len(b.all.parts) > 0 || ref.Source != ""):
			return b.all, nil
		case b.sections[ref.Name] != nil:
			return b.sections[ref.Name], nil
		}
	}
	if s := q.byName(ref); s != nil {
		return s.group(ref.Name), nil
	}
	sections := q.sectionNames(in)
	switch {
	case ref.Name == everything && len(q.main.names) > 0:
		return nil, fmt.Errorf("%s: no line here names a host, so there are none to choose from", strings.Join(first(q.main.names, 3), ", "))
	case ref.Name == everything:
		return nil, errors.New("there are no hosts to choose from: there is no hosts file, and no source of groups is the default")
	case ref.Source != "" && len(sections) == 0:
		return nil, fmt.Errorf("there is no section [%s]: no hosts file has any", ref.Name)
	case len(sections) == 0:
		return nil, fmt.Errorf("there is no group %q: no hosts file has sections, and no source of groups is the default", ref.Name)
	}
	return nil, fmt.Errorf("there is no group %q%s", ref.Name, near(ref.Name, sections, ": there is "+strings.Join(first(sections, 8), ", ")))
}

// byName is the source of a group that names none and that no section is; nil: there is none.
func (q *query) byName(ref hostlist.GroupRef) *source {
	if ref.Source != "" {
		return nil
	}
	for _, named := range q.options.Sources {
		if c, is := named.Source.(groups.Claimer); is && c.Claims(ref.Name) {
			return q.sources[named.Name]
		}
	}
	return q.sources[q.options.Default]
}

func (q *query) noSource(name string) error {
	all := q.Sources()
	return fmt.Errorf("there is no source of groups %q%s", name, near(name, all, ": there is "+strings.Join(all, ", ")))
}

// refs are the nodes that a part of n names.
func (q *query) refs(p *part, n *node) ([]*node, error) {
	if p.expr == nil {
		return nil, nil
	}
	var all []*node
	for _, ref := range p.expr.Groups() {
		m, err := q.find(ref, n.book, n.source)
		if err != nil {
			at := p.at
			if n.source != nil {
				at.file = n.what
			}
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		all = append(all, m)
	}
	return all, nil
}

// fetch asks the sources for all groups among the nodes, those in them, those in those, and so on: a level at a time, and all of a level
// at once.
func (q *query) fetch(level []*node) error {
	seen := map[*node]bool{}
	for depth := 0; len(level) > 0; depth++ {
		if depth > maxDepth {
			return tooDeep(level[0])
		}
		asked, ctx := errgroup.WithContext(q.ctx)
		asked.SetLimit(maxAsked)
		var next []*node
		for _, n := range level {
			if seen[n] || n.ready {
				continue
			}
			seen[n] = true
			next = append(next, n)
			if n.source != nil && !n.asked {
				n.source.asked = true
				asked.Go(func() error { return n.ask(ctx) })
			}
		}
		if err := q.late(asked.Wait()); err != nil {
			return err
		}
		level = nil
		for _, n := range next {
			if n.name == everything && n.members == nil {
				for _, name := range n.known {
					n.members = append(n.members, n.source.group(name))
				}
			}
			level = append(level, n.members...)
			for _, p := range n.parts {
				refs, err := q.refs(p, n)
				if err != nil {
					return err
				}
				level = append(level, refs...)
			}
		}
	}
	for n := range seen {
		n.ready = true
	}
	return nil
}

// late adds to an error of a source why the time was over.
func (q *query) late(err error) error {
	if cause := context.Cause(q.ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w (%w)", err, cause)
	}
	return err
}

func tooDeep(n *node) error {
	return fmt.Errorf("%s: groups are in groups more than %d deep", n.what, maxDepth)
}

// ask asks n's source for it.
func (n *node) ask(ctx context.Context) error {
	var text string
	var err error
	all, says := n.source.Source.(groups.Aller)
	switch {
	case n.name != everything:
		text, err = n.source.Map(ctx, n.name)
	case says:
		text, err = all.All(ctx)
	default:
		n.known, err = n.source.List(ctx)
	}
	if err != nil {
		if err = fmt.Errorf("%s: %w", n.what, err); !errors.Is(err, groups.ErrNoGroup) {
			return err
		}
		n.unknown = err
		n.known, _ = n.source.List(ctx)
	}
	if strings.TrimSpace(text) != "" {
		e, err := hostlist.Parse(text)
		if err != nil {
			return fmt.Errorf("%s%s: %w", n.what, n.from(err), err)
		}
		n.parts = []*part{{expr: e}}
	}
	n.asked = true
	return nil
}

// from says where the source has what is wrong in its text: " from FILE:LINE", or a command.
func (n *node) from(err error) string {
	syntax := (*hostlist.SyntaxError)(nil)
	locator, is := n.source.Source.(groups.Locator)
	if !is || !errors.As(err, &syntax) {
		return ""
	}
	if where := locator.Where(n.name, syntax.Offset); where != "" {
		return " from " + where
	}
	return ""
}

// list is the hosts of a node.
func (q *query) list(n *node) (*hostlist.List, error) {
	switch {
	case n.hosts != nil:
		return n.hosts, nil
	case n.busy:
		return nil, inItself(q.chain, n)
	case len(q.chain) > maxDepth:
		return nil, tooDeep(n)
	}
	q.chain, n.busy = append(q.chain, n), true
	defer func() { q.chain, n.busy = q.chain[:len(q.chain)-1], false }()
	if err := q.fetch([]*node{n}); err != nil {
		return nil, err
	}
	if n.unknown != nil {
		return nil, fmt.Errorf("%w%s", n.unknown, near(n.name, n.known, ""))
	}
	var hosts gathered
	for _, m := range n.members {
		list, err := q.list(m)
		if err != nil {
			return nil, err
		}
		hosts.add(list)
	}
	for _, p := range n.parts {
		if n.all() && p.child { // its hosts stand where the group is written
			if m, err := q.find(p.expr.Groups()[0], n.book, nil); err == nil && m.source == nil {
				continue
			}
		}
		if p.expr == nil {
			if p.name != "" {
				hosts.names = append(hosts.names, p.name)
			} else {
				hosts.add(p.plain.list())
			}
			continue
		}
		list, err := q.hosts(p, n)
		if err != nil {
			return nil, err
		}
		hosts.add(list)
	}
	list := hosts.list()
	if list.Len() > hostlist.MaxHosts {
		return nil, fmt.Errorf("%s has %d hosts, and at most %d are possible", n.what, list.Len(), hostlist.MaxHosts)
	}
	n.hosts = list
	return list, nil
}

// inItself is the error that n has come up again among those above it.
func inItself(above []*node, n *node) error {
	var names []string
	for _, m := range above[slices.Index(above, n):] {
		names = append(names, m.what)
	}
	names = append(names, n.what)
	if len(names) > 12 {
		names = slices.Replace(names, 6, len(names)-6, "…")
	}
	return fmt.Errorf("%s is in itself: %s", n.what, strings.Join(names, " > "))
}

// hosts is the hosts of one part of a node.
func (q *query) hosts(p *part, of *node) (*hostlist.List, error) {
	if p.hosts != nil {
		return p.hosts, nil
	}
	scope := q.scope(p.at, p.dir, of.book, of.source)
	scope.All = noWildcards
	if of.source != nil {
		scope.All, scope.File = nil, nil
	}
	s, err := p.expr.Eval(scope)
	if err == nil {
		p.targets, err = q.claims(p.at, s.Hosts, s.Targets)
	}
	if err == nil {
		err = p.settle(s.Hosts)
	}
	switch {
	case err != nil && of.source != nil && q.failed == nil:
		return nil, q.fail(place{}, fmt.Errorf("%s: %w", of.what, err))
	case err != nil:
		return nil, q.fail(p.at, err)
	}
	if of.source != nil && len(p.targets) > 0 {
		q.aside = append(q.aside, p.targets...)
		q.stale = true
	}
	return p.hosts, nil
}

// fail keeps the error of the query, with its place. The innermost error is the one to tell, and the innermost place that is known.
func (q *query) fail(at place, err error) error {
	if q.failed == nil {
		q.failed = err
	}
	if !q.placed && at.file != "" {
		q.failed, q.placed = fmt.Errorf("%s: %w", at, q.failed), true
	}
	return q.failed
}

// scope is what an expression may refer to that stands at a place, or on the command line.
func (q *query) scope(at place, dir string, in *book, from *source) *hostlist.Scope {
	list := func(ref hostlist.GroupRef) (*hostlist.List, error) {
		n, err := q.find(ref, in, from)
		if err != nil {
			return nil, err // for the caller to say where in the expression
		}
		list, err := q.list(n)
		switch {
		case err != nil && n.unknown == nil:
			return nil, q.fail(at, err)
		case err != nil && ref.Source == "" && from == nil:
			return nil, fmt.Errorf("%w%s", n.unknown, near(ref.Name, append(q.sectionNames(in), n.known...), ""))
		}
		return list, err
	}
	return &hostlist.Scope{
		Transports: q.options.Transports,
		Group:      list,
		All:        func() (*hostlist.List, error) { return list(hostlist.GroupRef{Name: everything}) },
		File: func(name string) (*hostlist.List, error) {
			list, err := q.file(name, dir)
			if err != nil {
				return nil, q.fail(at, err)
			}
			return list, nil
		},
	}
}

// file is the hosts of a ^FILE, which is read when it is first asked for. What it sets holds from then on.
func (q *query) file(name, dir string) (*hostlist.List, error) {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	id := identity(path)
	b := q.files[id]
	if b == nil {
		b = newBook("^" + path)
		if err := (&reader{Inventory: q.Inventory, book: b}).file(path, ""); err != nil {
			return nil, err
		}
		if err := q.check(b); err != nil {
			return nil, err
		}
		q.files[id] = b
		q.books = append(q.books, b)
	}
	return q.list(b.all)
}

// all reports whether n is all hosts of a book.
func (n *node) all() bool { return n.book != nil && n.book.all == n }

// check refuses sections that are in themselves, and those of groups that are nowhere.
func (q *query) check(b *book) error {
	for _, p := range b.all.parts {
		if !p.child {
			continue
		}
		for _, ref := range p.expr.Groups() {
			if n, err := q.find(ref, b, nil); err != nil && ref.Source != "" {
				return fmt.Errorf("%s: %w", p.at, err)
			} else if err != nil || n.source != nil && ref.Source == "" {
				return fmt.Errorf("%s: there is no section [%s]%s", p.at, ref.Name, near(ref.Name, q.sectionNames(b), ": a group of a source is written SOURCE:GROUP"))
			}
		}
	}
	for _, n := range b.order {
		if err := q.acyclic(n, nil, place{}); err != nil {
			return err
		}
	}
	return nil
}

// acyclic refuses a section that is in itself; it is named at a place. What groups of sources have in them list looks at.
func (q *query) acyclic(n *node, above []*node, at place) error {
	switch {
	case n.clear || n.source != nil || n.all():
		return nil
	case n.busy:
		return fmt.Errorf("%s: %w", at, inItself(above, n))
	case len(above) > maxDepth:
		return fmt.Errorf("%s: %w", at, tooDeep(n))
	}
	n.busy = true
	defer func() { n.busy = false }()
	for _, p := range n.parts {
		refs, err := q.refs(p, n)
		if err != nil {
			return err
		}
		for _, m := range refs {
			if err := q.acyclic(m, append(above, n), p.at); err != nil {
				return err
			}
		}
	}
	n.clear = true
	return nil
}

// sectionNames are those that a line of the book can name.
func (q *query) sectionNames(b *book) []string {
	var names []string
	for i, b := range []*book{q.main, b} {
		if b == nil || i > 0 && b == q.main {
			continue
		}
		for _, n := range b.order {
			names = append(names, n.name)
		}
	}
	return names
}

// near is the end of an error about a name that does not exist: the one that was meant, or else.
func near(name string, known []string, otherwise string) string {
	best, least := "", 3
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k), least); d < least && d < len(name) {
			best, least = k, d
		}
	}
	if best != "" {
		return "; did you mean " + best + "?"
	}
	return otherwise
}

// distance is how many characters must be changed, added or left out to make b of a (Levenshtein), or least if it is not less.
func distance(a, b string, least int) int {
	if len(a)-len(b) >= least || len(b)-len(a) >= least {
		return least
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func first(names []string, n int) []string {
	if len(names) > n {
		names = append(slices.Clone(names[:n]), "…")
	}
	return names
}
