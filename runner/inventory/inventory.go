// Package inventory knows hosts: which there are, in which groups they are, and how each is reached.
//
//	hosts files ──ReadFile──►┌───────────┐
//	[[hosts]] ────Match─────►│ Inventory │──Select(-w, -x)──► Selection ──Hosts──► transport.Host, one at a time, for the runner
//	groups.Source ──────────►└───────────┘       │                 └ names, and layers of settings to look each name up in
//	                                             └ fetches the groups that are named, and those in them, before any host is made
//
// A Selection is a list of names, which may be a million, and costs nothing for each of them until it is iterated over. The settings of a
// host are looked up when its turn comes.
//
// # The hosts file
//
//	line      = [ hosts { setting } | section | include ] [ comment ] .
//	hosts     = an expression of package hostlist, which may have blanks in it .
//	setting   = blank ( "transport=" | "user=" | "port=" | "addr=" | "jump=" | "label=" ) value .
//	section   = "[" group "]" { setting }  |  "[" group ":children]" .
//	include   = "include" blank FILE .
//	comment   = "#" at the beginning of the line or after a blank, and all that follows .
//
// It is UTF-8 with or without a byte order mark; lines end with LF or CRLF, the last one with either or nothing. A file
// that is no such text is refused at the first line that shows it, however large the file is.
//
// The hosts of a line are those of its expression, in which groups and ^FILE may stand, but not wildcards: these would choose from the
// hosts that the file is there to say. The value of addr= is an expression too, with one name for each host of the line. label= sets
// labels, as label=rack:r1,row:7, and may be repeated for others.
//
// [web] begins a section: hosts of the lines up to the next are in the group web, and what stands after it is set for all hosts of the
// group. A section may be begun again, and adds to what it has. [web:children] does so with groups instead of hosts: names of sections, or
// of groups of a source as SOURCE:GROUP. A line that begins with a set of numbers or with an IPv6 address in brackets is no section.
//
// include FILE reads another file, and with wildcards in its last parts all those that match, in the order of their names. FILE is looked
// for beside the file that includes it. It begins outside of all sections, and afterwards the section goes on that the include stands in.
// A file is read once, and one that includes itself is refused.
//
// # What holds for a host
//
// For each setting by itself, the first of these that sets it:
//
//  1. the expression of the run, as rsh:root@n1:514
//  2. the lines of hosts files that name the host
//  3. the sections that the host is in, and a section inside another one before that other one
//  4. the sources of groups, those alone that are the default or have been asked for a group
//  5. the [[hosts]] of the configuration, in their order
//  6. the defaults
//
// Two lines that set one thing differently for a host contradict each other, and so do two sections unless one is inside the other or a
// line of the host's own sets it. That is an error that names both places.
//
// # Groups
//
// @web is a section, or else a group of a source that claims such names, as @last.failed, or else of the default source; @slurm:batch is the source's that has the name slurm, and @hosts:web the
// section. @* is all hosts of the hosts files, or where these have none, of the default source; @slurm:* all of a source. What a source
// says may name other groups of it. Select asks for all groups that it needs, a level at a time and those of one level at the same time,
// each once, and all within one deadline. What it needs is also what settings depend on: a line "@slurm:batch user=ops" has Slurm asked
// in every run, whatever the hosts. A group that is in itself is an error that names the chain.
//
// # Who owns what
//
// An Inventory is for one goroutine and has none of its own when a method has returned. Sources are called by several at a time. A
// Selection does not change any more.
package inventory

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"multirsh/runner/hostlist"
	"multirsh/runner/inventory/groups"
	"multirsh/transport"
)

// DefaultTimeout is how long all sources of groups may take together.
const DefaultTimeout = 30 * time.Second

// SectionsSource is the source that is always there: the sections of hosts files, as in @hosts:web.
const SectionsSource = "hosts"

// Options are what an inventory is made of beside its files.
type Options struct {
	Transports []string      // the names that there are
	Sources    []Named       // of groups; they are asked at the same time, each for several groups at once
	Default    string        // the source of an @group that no hosts file has; empty: there is none
	Timeout    time.Duration // for all sources together; 0: DefaultTimeout
	Dup        bool          // a host is selected as often as it is named
}

// Named is a source and the name that goes before the colon in @name:group.
type Named = groups.Named

// Inventory is what is known of hosts. It is for one goroutine; a Selection is for many.
type Inventory struct {
	options Options
	sources map[string]*source
	labels  map[string]map[string]setting // by their names and values

	main    *book
	files   map[string]*book // of each ^FILE that has been read, by its true name
	books   []*book          // all of them
	matches []match
	aside   []claim // what sources set

	stale                  bool // the layers are
	lines, sections, below *layer
}

// match is a [[hosts]] of the configuration.
type match struct {
	at   place
	expr *hostlist.Expr
	set  []setting
}

// New returns an inventory without hosts.
func New(o Options) *Inventory {
	inv := &Inventory{
		options: o, sources: map[string]*source{}, labels: map[string]map[string]setting{},
		main: newBook("@*"), files: map[string]*book{}, stale: true,
	}
	inv.books = []*book{inv.main}
	for _, s := range o.Sources {
		inv.sources[s.Name] = &source{Named: s, groups: map[string]*node{}}
	}
	return inv
}

// Match sets something for the hosts of an expression, as a [[hosts]] of the configuration at a place does. What hosts files set goes
// before that, and so does an earlier Match. Wildcards select from the hosts of a run, and need not match any.
func (inv *Inventory) Match(expr, place string, set Settings) error {
	e, err := hostlist.Parse(expr)
	if err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	m := match{expr: e, set: set.settings()}
	m.at.file = place
	for i := range m.set {
		s := &m.set[i]
		if name, is := strings.CutPrefix(s.key, labelPrefix); is {
			*s = inv.label(name, s.value)
		}
		if s.key == keyFanout {
			s.from = place
		}
		if err := inv.checkSetting(*s); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
	}
	inv.matches = append(inv.matches, m)
	return nil
}

// claims are what the targets of an expression set for hosts of it.
func (inv *Inventory) claims(at place, hosts *hostlist.List, targets []hostlist.Target) ([]claim, error) {
	var all []claim
	for _, t := range targets {
		c := claim{at: at, set: Settings{Transport: t.Transport, User: t.User, Port: t.Port}.settings()}
		for _, s := range c.set {
			if err := inv.checkSetting(s); err != nil {
				return nil, err
			}
		}
		c.hosts = t.Hosts.Intersection(hosts) // the others have been excluded again
		all = append(all, c)
	}
	return all, nil
}

// Select finds the hosts of expressions, which are read as one with commas between them, without those of the others. Groups are fetched
// first, and a group that cannot be fetched is an error which names its source. The selection may be empty. An error wraps a
// *hostlist.SyntaxError where an expression is at fault.
func (inv *Inventory) Select(ctx context.Context, include, exclude []string) (*Selection, error) {
	q, done := inv.ask(ctx)
	defer done()
	in, err := joined(include)
	if err != nil {
		return nil, err
	}
	ex, err := joined(exclude)
	if err != nil {
		return nil, err
	}
	if err := q.check(q.main); err != nil {
		return nil, err
	}
	if err := q.fetch(q.needed(in, ex)); err != nil {
		return nil, err
	}
	s := &Selection{names: new(hostlist.List)}
	scope := q.scope(place{}, "", nil, nil)
	scope.Dup = q.options.Dup
	var targets []hostlist.Target
	if in != nil {
		found, err := in.Eval(scope)
		if err != nil {
			return nil, q.cause(err)
		}
		s.names, targets = found.Hosts, found.Targets
	}
	if ex != nil {
		if s.names, err = ex.Exclude(s.names, scope); err != nil {
			return nil, q.cause(err)
		}
	}
	if err := q.settle(); err != nil {
		return nil, err
	}
	s.lines, s.sections, s.below = q.lines, q.sections, q.below
	reached, err := q.claims(place{}, s.names, targets)
	if err != nil {
		return nil, err
	}
	s.targets = ordered(reached)
	if s.matches, err = q.matching(s.names); err != nil {
		return nil, err
	}
	s.alike = len(reached) == 0 || len(reached) == 1 && reached[0].hosts.Len() == s.names.Len()
	for _, l := range []*layer{s.lines, s.sections, s.below, s.matches} {
		s.alike = s.alike && !l.indexed && len(l.one) == 0
	}
	return s, nil
}

// cause is the error for which an expression could not be evaluated.
func (q *query) cause(err error) error {
	if q.failed != nil {
		return q.failed
	}
	return err
}

// joined reads texts as one expression; nil: there are none.
func joined(texts []string) (*hostlist.Expr, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	texts = slices.Clone(texts)
	for i := range texts[:len(texts)-1] {
		texts[i] = strings.TrimSuffix(strings.TrimSpace(texts[i]), ",") // which each of them may have
	}
	return hostlist.Parse(strings.Join(texts, ","))
}

// needed are the groups that a selection begins with. What is not there is for Eval to say, which knows where.
func (q *query) needed(exprs ...*hostlist.Expr) []*node {
	var all []*node
	for _, m := range q.matches {
		exprs = append(exprs, m.expr)
	}
	for _, e := range exprs {
		if e == nil {
			continue
		}
		for _, ref := range e.Groups() {
			if n, err := q.find(ref, nil, nil); err == nil {
				all = append(all, n)
			}
		}
	}
	for _, b := range q.books {
		for _, n := range b.order {
			if len(n.set) > 0 {
				all = append(all, n)
			}
		}
		for _, p := range b.all.parts {
			if p.decides {
				refs, _ := q.refs(p, b.all)
				all = append(all, refs...)
			}
		}
	}
	return all
}

// settle finds all hosts for which something is set, and makes the layers.
func (q *query) settle() error {
	for i := 0; i < len(q.books); i++ { // a ^FILE may name others
		b := q.books[i]
		for _, p := range b.all.parts {
			if p.decides {
				if _, err := q.hosts(p, b.all); err != nil {
					return err
				}
			}
		}
		for _, n := range b.order {
			if len(n.set) > 0 {
				if _, err := q.list(n); err != nil {
					return err
				}
			}
		}
	}
	if err := q.sourceSettings(); err != nil {
		return err
	}
	if !q.stale {
		return nil
	}
	var err error
	var lines, sections []claim
	for _, b := range q.books {
		lines = slices.Grow(lines, len(b.all.parts))
		for _, p := range b.all.parts {
			if len(p.set) > 0 {
				lines = append(lines, claim{at: p.at, name: p.name, hosts: p.hosts, set: p.set})
			}
			lines = append(lines, p.targets...)
		}
		for _, n := range b.order {
			for _, c := range n.set {
				c.hosts = n.hosts
				sections = append(sections, c)
			}
		}
	}
	if q.lines, err = build(lines, rules{}); err != nil {
		return err
	}
	if q.sections, err = build(sections, rules{leave: q.nearest, overruled: q.lines.sets}); err != nil {
		return err
	}
	q.below = ordered(q.aside)
	q.stale = false
	return nil
}

// nearest leaves each claim of a group those hosts for which no group inside it claims the same.
func (q *query) nearest(cs []keyed) []keyed {
	if !slices.ContainsFunc(cs, func(c keyed) bool { return c.value != cs[0].value }) {
		return cs
	}
	claimed := map[*node]*hostlist.List{}
	for _, c := range cs {
		claimed[c.group] = c.hosts
	}
	left := slices.Clone(cs)
	for i, c := range cs {
		left[i].hosts = c.hosts.Difference(union(q.inside(c.group, claimed, map[*node]bool{})))
	}
	return left
}

// inside are the hosts of the claimed groups in a group. What is in a claimed one is among that one's hosts.
func (q *query) inside(n *node, claimed map[*node]*hostlist.List, seen map[*node]bool) (lists []*hostlist.List) {
	for _, p := range n.parts {
		refs, _ := q.refs(p, n)
		for _, m := range refs {
			if seen[m] {
				continue
			}
			seen[m] = true
			if hosts := claimed[m]; hosts != nil {
				lists = append(lists, hosts)
			} else {
				lists = append(lists, q.inside(m, claimed, seen)...)
			}
		}
	}
	return lists
}

// sourceSettings adds what the sources set that are the default, or that have been asked for groups.
func (q *query) sourceSettings() error {
	for _, named := range q.options.Sources {
		s := q.sources[named.Name]
		settler, is := s.Source.(groups.Settler)
		if !is || s.settled || !s.asked && s.Name != q.options.Default {
			continue
		}
		all, err := settler.Settings(q.ctx)
		if err != nil {
			return q.late(fmt.Errorf("@%s:*: %w", s.Name, err))
		}
		s.settled = true
		for _, set := range all {
			if err := q.sourceSetting(s, set); err != nil {
				return q.fail(place{file: set.Place}, err)
			}
		}
		q.stale = q.stale || len(all) > 0
	}
	return nil
}

func (q *query) sourceSetting(s *source, set groups.Setting) error {
	c := claim{at: place{file: set.Place}, set: []setting{{key: set.Key, value: set.Value}}}
	if err := q.checkSetting(c.set[0]); err != nil {
		return err
	}
	if isPlain(set.Hosts) {
		c.hosts = hostlist.Of(slices.Values([]string{set.Hosts}))
	} else {
		e, err := hostlist.Parse(set.Hosts)
		if err != nil {
			return err
		}
		scope := q.scope(c.at, "", nil, s)
		scope.All, scope.File = nil, nil
		found, err := e.Eval(scope)
		if err != nil {
			return err
		}
		c.hosts = found.Hosts
	}
	if err := c.set[0].fit(1, nil); err != nil { // one address for all: they differ in their ports
		return err
	}
	q.aside = append(q.aside, c)
	return nil
}

// matching is what the configuration sets for hosts that have been selected.
func (q *query) matching(selected *hostlist.List) (*layer, error) {
	var claims []claim
	for _, m := range q.matches {
		scope := q.scope(m.at, "", nil, nil)
		chosen := false
		scope.All = func() (*hostlist.List, error) { chosen = true; return selected, nil }
		scope.File = nil
		found, err := m.expr.Eval(scope)
		if se := (*hostlist.SyntaxError)(nil); chosen && errors.As(err, &se) && strings.HasPrefix(se.Msg, "no host matches ") {
			continue
		}
		if err == nil && len(found.Targets) > 0 {
			err = errors.New("match says which hosts are meant, and not how they are reached: write that beside it, as user = or port =")
		}
		set := slices.Clone(m.set)
		for i := 0; err == nil && i < len(set) && found.Hosts.Len() > 0; i++ {
			err = set[i].fit(found.Hosts.Len(), found.Hosts)
		}
		if err != nil {
			return nil, q.fail(m.at, err)
		}
		claims = append(claims, claim{at: m.at, hosts: found.Hosts, set: set})
	}
	return ordered(claims), nil
}

// Selection is hosts that have been selected, and what is set for them. It may be used by many goroutines, and stays as it is.
type Selection struct {
	names                                    *hostlist.List
	targets, lines, sections, below, matches *layer
	alike                                    bool
}

// Len is the number of hosts.
func (s *Selection) Len() int { return s.names.Len() }

// Alike reports whether the hosts are known to differ in nothing but their names.
func (s *Selection) Alike() bool { return s.alike }

// Names are the hosts' names.
func (s *Selection) Names() *hostlist.List { return s.names }

// Hosts iterates over the hosts, each made when its turn comes. Of what is not set for a host, defaults hold; its Name does not matter.
// Hosts may have one map Vars for several of them, which nobody may change.
func (s *Selection) Hosts(defaults transport.Host) iter.Seq[transport.Host] {
	return func(yield func(transport.Host) bool) {
		for name := range s.names.All() {
			if !yield(s.host(name, defaults)) {
				return
			}
		}
	}
}

func (s *Selection) host(name string, defaults transport.Host) transport.Host {
	h, own := transport.Host{Name: name}, false
	s.targets.apply(&h, &own)
	s.lines.apply(&h, &own)
	s.sections.apply(&h, &own)
	s.below.apply(&h, &own)
	s.matches.apply(&h, &own)
	h.Transport = or(h.Transport, defaults.Transport)
	h.User = or(h.User, defaults.User)
	h.Addr = or(h.Addr, defaults.Addr)
	h.Jump = or(h.Jump, defaults.Jump)
	if h.Port == 0 {
		h.Port = defaults.Port
	}
	if h.Vars == nil {
		h.Vars = defaults.Vars
	}
	return h
}

// Transports are those that the hosts are reached by, with the default for hosts that none is set for. Few hosts are looked at for it:
// those for which one is set, until all have come up.
func (s *Selection) Transports(byDefault string) map[string]bool {
	by, possible := map[string]bool{}, map[string]bool{}
	var set []*hostlist.List
	for _, l := range []*layer{s.targets, s.lines, s.sections, s.below, s.matches} {
		for _, b := range l.transports {
			possible[b.set.value] = true
			set = append(set, b.hosts)
		}
	}
	chosen := s.names.Intersection(union(set))
	if chosen.Len() < s.Len() {
		by[byDefault] = true
	}
	for name := range chosen.All() {
		of := s.host(name, transport.Host{}).Transport
		by[of] = true
		if delete(possible, of); len(possible) == 0 {
			break
		}
	}
	return by
}

// Fanout is how many of the hosts at once may run that share a key with this one, as the configuration says; 0: as many as there are.
func (s *Selection) Fanout(name string) (key string, n int) {
	for set := range s.matches.index.Lookup(name) {
		if set.key == keyFanout {
			n, _ := strconv.Atoi(set.value)
			return set.from, n
		}
	}
	return "", 0
}
