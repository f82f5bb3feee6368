package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"multirsh/runner/hostlist"
	"multirsh/runner/inventory/groups"
)

// Group is the name of a group.
type Group struct {
	Source string // empty: a section, or a group of the default source that no section has the name of
	Name   string
}

// String is the group as an expression has it.
func (g Group) String() string {
	if g.Source == "" {
		return "@" + g.Name
	}
	return "@" + g.Source + ":" + g.Name
}

// Sources are the names of the sources, that of the sections first.
func (inv *Inventory) Sources() []string {
	names := []string{SectionsSource}
	for _, s := range inv.options.Sources {
		names = append(names, s.Name)
	}
	return names
}

// Groups are all groups of the sources, in the sources' order. Without sources they are those that can be written without one.
func (inv *Inventory) Groups(ctx context.Context, sources ...string) ([]Group, error) {
	q, done := inv.ask(ctx)
	defer done()
	if err := q.check(q.main); err != nil {
		return nil, err
	}
	all, _, err := q.allGroups(sources, "", true)
	return all, err
}

// known are groups of one source: all of them, or those that the source says a host is in.
type known struct {
	names    []string
	reversed bool
}

// allGroups are the groups of sources; without sources, those that can be written without one. Where a host is named, reversed says of
// which ones it is known that the host is in them. Unless all must be there, a default source that cannot list its groups has none.
func (q *query) allGroups(sources []string, host string, must bool) (all []Group, reversed map[Group]bool, err error) {
	plain := len(sources) == 0
	if plain {
		sources = []string{SectionsSource}
		if q.sources[q.options.Default] != nil {
			sources = append(sources, q.options.Default)
		}
	}
	lists := make([]known, len(sources))
	asked, ctx := errgroup.WithContext(q.ctx)
	for i, name := range sources {
		if name == SectionsSource {
			lists[i].names = q.sectionNames(nil)
			continue
		}
		s := q.sources[name]
		if s == nil {
			return nil, nil, q.noSource(name)
		}
		asked.Go(func() (err error) {
			lists[i], err = s.groupsOf(ctx, host)
			if plain && !must && errors.Is(err, groups.ErrNoList) {
				return nil
			}
			return err
		})
	}
	if err := q.late(asked.Wait()); err != nil {
		return nil, nil, err
	}
	seen := map[Group]bool{}
	reversed = map[Group]bool{}
	for i, list := range lists {
		for _, name := range list.names {
			g := Group{sources[i], name}
			if plain {
				g.Source = "" // a section comes before a group of that name
			}
			if !seen[g] {
				seen[g] = true
				all = append(all, g)
				reversed[g] = list.reversed
			}
		}
	}
	return all, reversed, nil
}

// groupsOf asks the source for the groups of a host, or for all where there is none or it cannot say.
func (s *source) groupsOf(ctx context.Context, host string) (k known, err error) {
	if r, is := s.Source.(groups.Reverser); is && host != "" {
		k.names, err = r.Reverse(ctx, host)
		k.reversed = true
		return k, named("@"+s.Name+" for "+host, err)
	}
	k.names, err = s.List(ctx)
	return k, named("@"+s.Name+":*", err)
}

// named has what was asked for before an error.
func named(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// nodes are the nodes of groups, with all that they need fetched.
func (q *query) nodes(all []Group) ([]*node, error) {
	nodes := make([]*node, len(all))
	for i, g := range all {
		n, err := q.find(hostlist.GroupRef{Source: g.Source, Name: g.Name}, nil, nil)
		if err != nil {
			return nil, err
		}
		nodes[i] = n
	}
	return nodes, q.fetch(nodes)
}

// GroupsOf are the groups of the sources that a host is in; without sources, those of Groups without sources.
func (inv *Inventory) GroupsOf(ctx context.Context, host string, sources ...string) ([]Group, error) {
	q, done := inv.ask(ctx)
	defer done()
	if err := q.check(q.main); err != nil {
		return nil, err
	}
	all, reversed, err := q.allGroups(sources, host, false)
	if err != nil {
		return nil, err
	}
	nodes, err := q.nodes(slices.DeleteFunc(slices.Clone(all), func(g Group) bool { return reversed[g] }))
	if err != nil {
		return nil, err
	}
	var in []Group
	for _, g := range all {
		if !reversed[g] {
			hosts, err := q.list(nodes[0])
			if err != nil {
				return nil, err
			}
			if nodes = nodes[1:]; !hosts.Contains(host) {
				continue
			}
		}
		in = append(in, g)
	}
	return in, nil
}

// Regroup writes hosts as an expression with groups of the sources in it: groups all of whose hosts are among these, the one that adds
// most first, and what is left folded. Without sources, the groups are those of Groups without sources.
func (inv *Inventory) Regroup(ctx context.Context, hosts *hostlist.List, sources ...string) (string, error) {
	q, done := inv.ask(ctx)
	defer done()
	if err := q.check(q.main); err != nil {
		return "", err
	}
	all, _, err := q.allGroups(sources, "", false)
	if err != nil {
		return "", err
	}
	all = slices.DeleteFunc(all, func(g Group) bool { return !isGroup(g.Name) })
	nodes, err := q.nodes(all)
	if err != nil {
		return "", err
	}
	type candidate struct {
		Group
		hosts *hostlist.List
		adds  int
	}
	var left []candidate
	for i, n := range nodes {
		list, err := q.list(n)
		if err != nil {
			return "", err
		}
		if list.Len() > 0 && list.Len() <= hosts.Len() && list.Difference(hosts).Len() == 0 {
			left = append(left, candidate{all[i], list, list.Len()})
		}
	}
	largest := func(a, b candidate) int { return cmp.Compare(b.adds, a.adds) }
	slices.SortStableFunc(left, largest)
	var chosen []Group
	rest := hosts
	for len(left) > 0 && rest.Len() > 0 {
		c := left[0]
		left = left[1:]
		if adds := c.hosts.Intersection(rest).Len(); adds == 0 {
			continue
		} else if adds < c.adds { // groups before it have had some: to its new place
			c.adds = adds
			at, _ := slices.BinarySearchFunc(left, c, func(x, c candidate) int {
				return cmp.Or(largest(x, c), -1)
			})
			left = slices.Insert(left, at, c)
			continue
		}
		chosen = append(chosen, c.Group)
		rest = rest.Difference(c.hosts)
	}
	var items []string
	for _, source := range append([]string{""}, q.Sources()...) {
		var names []string
		for _, g := range chosen {
			if g.Source == source {
				names = append(names, g.Name)
			}
		}
		for item := range foldedItems(hostlist.Fold(slices.Values(names))) {
			items = append(items, Group{source, item}.String())
		}
	}
	if rest.Len() > 0 {
		items = append(items, hostlist.Fold(rest.All()))
	}
	return strings.Join(items, ","), nil
}

// foldedItems are the items of what Fold returns: commas are between them, and within brackets.
func foldedItems(text string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		inside := false
		for item := range strings.FieldsFuncSeq(text, func(c rune) bool {
			inside = c == '[' || inside && c != ']'
			return c == ',' && !inside
		}) {
			if !yield(item) {
				return
			}
		}
	}
}
