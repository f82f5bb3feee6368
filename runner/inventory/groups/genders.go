package groups

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Genders is a file of nodeattr(1): nodes and their attributes. An attribute is a group, of all the nodes that have it; ATTR=VALUE is one too, of those
// that have it with this value, and of these List names none, as nodeattr -l does. All leaves out the nodes with the attribute pdsh_all_skip, as
// pdsh -a does. The operators of genders' own queries are not read, for host expressions have the same: @mgmt&@login is what nodeattr has as
// mgmt&&login, @mgmt,@login is mgmt||login, @mgmt!@login is mgmt--login, and @*!@login is ~login. Attributes set nothing, pdsh_rcmd_type neither.
func Genders(path string) Source {
	g := &genders{path: path, values: map[string][]*gendersLine{}}
	g.static = once(g.table)
	return g
}

type genders struct {
	static
	path   string
	values map[string][]*gendersLine // by attribute: the lines where its value has the node's name in it
}

// gendersLine is an attribute whose value is different for each node.
type gendersLine struct {
	value string
	nodes []string
}

// maxNodes bounds the nodes of a genders file, each counted as often as it is named.
const maxNodes = 1_000_000

func (g *genders) table() (*table, error) {
	read, err := readText(g.path)
	if err != nil {
		return nil, err
	}
	t := &table{path: g.path, all: new(passage)}
	first := map[string]*attribute{}
	left := maxNodes
	var skip map[string]bool
	var every []nodesOf
	for number, line := range lines(read) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		fail := func(format string, args ...any) (*table, error) {
			return nil, fmt.Errorf("%s:%d: %s", g.path, number, fmt.Sprintf(format, args...))
		}
		if len(words) > 2 {
			return fail("expected nodes and attributes, with commas and no blanks in them, found %s", quote(strings.TrimSpace(line)))
		}
		items, nodes, err := expandNodes(words[0], left)
		if err != nil {
			return fail("%v", err)
		}
		if len(nodes) == 0 {
			return fail("there is no node before the attributes in %s", quote(strings.TrimSpace(line)))
		}
		left -= len(nodes)
		hosts := strings.Join(items, ",")
		every = append(every, nodesOf{number, nodes})
		t.all.add(0, number, hosts)
		if len(words) == 1 {
			continue
		}
		for word := range strings.SplitSeq(words[1], ",") {
			name, value, hasValue := strings.Cut(word, "=")
			switch {
			case name == "":
				return fail("there is an attribute without a name in %s", quote(words[1]))
			case hasValue && value == "":
				return fail("the attribute %s has no value after its '='", quote(name))
			}
			a := first[name]
			if a == nil {
				a = new(attribute)
				first[name] = a
			}
			if node, before := a.add(number, nodes); before != 0 {
				return fail("%s has the attribute %s already, from line %d", quote(node), quote(name), before)
			}
			if err := t.add(name, number, hosts); err != nil {
				return nil, err
			}
			if name == "pdsh_all_skip" {
				if skip == nil {
					skip = map[string]bool{}
				}
				for _, node := range nodes {
					skip[node] = true
				}
			}
			if !hasValue {
				continue
			}
			if once, each := fill(value, "\x00"); each {
				g.values[name] = append(g.values[name], &gendersLine{value, nodes})
			} else if err := t.add(name+"="+once, number, hosts); err != nil {
				return nil, err
			}
		}
	}
	if skip != nil {
		t.all = new(passage)
		for _, e := range every {
			t.all.add(0, e.line, strings.Join(slices.DeleteFunc(slices.Clone(e.nodes), func(node string) bool { return skip[node] }), ","))
		}
	}
	return t, nil
}

type nodesOf struct {
	line  int
	nodes []string
}

// attribute finds nodes that have it twice. Most attributes stand in one line, so that nothing need be looked up.
type attribute struct {
	first nodesOf
	seen  map[string]int // of each node, the line; nil until there is a second one
}

// add adds the nodes of a line. It returns a node that has the attribute already, and from which line.
func (a *attribute) add(line int, nodes []string) (node string, before int) {
	if a.first.nodes == nil {
		a.first = nodesOf{line, nodes}
		return "", 0
	}
	if a.first.line == line {
		return nodes[0], line
	}
	if a.seen == nil {
		a.seen = map[string]int{}
		for _, node := range a.first.nodes {
			a.seen[node] = a.first.line
		}
	}
	for _, node := range nodes {
		if before := a.seen[node]; before != 0 {
			return node, before
		}
	}
	for _, node := range nodes {
		a.seen[node] = line
	}
	return "", 0
}

// fill puts a node's name in the place of each %n of a value, and '%' in that of each %%. It reports whether there is a %n.
func fill(value, node string) (filled string, each bool) {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		switch {
		case strings.HasPrefix(value[i:], "%n"):
			b.WriteString(node)
			each = true
			i++
		case strings.HasPrefix(value[i:], "%%"):
			b.WriteByte('%')
			i++
		default:
			b.WriteByte(value[i])
		}
	}
	return b.String(), each
}

func (g *genders) Map(ctx context.Context, group string) (string, error) {
	hosts, err := g.static.Map(ctx, group)
	if err != ErrNoGroup {
		return hosts, err
	}
	if name, value, is := strings.Cut(group, "="); is {
		var found []string
		for _, line := range g.values[name] {
			for _, node := range line.nodes {
				if filled, _ := fill(line.value, node); filled == value {
					found = append(found, node)
				}
			}
		}
		if found != nil {
			return strings.Join(found, ","), nil
		}
	}
	if strings.Contains(group, "--") || strings.ContainsAny(group, "&|~()") {
		return "", fmt.Errorf("%w: genders' operators are written as those of host expressions, @a&@b for a&&b, @a,@b for a||b, @a!@b for a--b", ErrNoGroup)
	}
	return "", ErrNoGroup
}

// List leaves out the groups ATTR=VALUE.
func (g *genders) List(ctx context.Context) ([]string, error) {
	names, err := g.static.List(ctx)
	return slices.DeleteFunc(names, func(name string) bool { return strings.Contains(name, "=") }), err
}

// expandNodes takes the nodes of a line apart: into items that each are a host expression, and into at most so many names.
func expandNodes(word string, most int) (items, nodes []string, err error) {
	for len(word) > 0 {
		// An item ends at a comma outside of brackets.
		end := strings.IndexByte(word, ',')
		if open := strings.IndexByte(word[:max(0, end)], '['); open >= 0 {
			closed := strings.IndexByte(word[open:], ']')
			if closed < 0 {
				return nil, nil, fmt.Errorf("this '[' is never closed in %s", quote(word))
			}
			if end = strings.IndexByte(word[open+closed:], ','); end >= 0 {
				end += open + closed
			}
		}
		item := word
		if word = ""; end >= 0 {
			item, word = item[:end], item[end+1:]
		}
		if item == "" {
			continue // libgenders reads over them
		}
		prefix, rest, ranges := strings.Cut(item, "[")
		if !ranges {
			if !plain(item) {
				return nil, nil, fmt.Errorf("%s is no name of a node", quote(item))
			}
			items, nodes = append(items, item), append(nodes, item)
		} else {
			inner, suffix, closed := strings.Cut(rest, "]")
			if !closed {
				return nil, nil, fmt.Errorf("this '[' is never closed in %s", quote(item))
			}
			if !plain(prefix + "0" + suffix) {
				return nil, nil, fmt.Errorf("%s is no name of a node: expected letters, digits, '-', '_' and '.', and at most one pair of brackets", quote(item))
			}
			for part := range strings.SplitSeq(inner, ",") {
				lo, hi, isRange := strings.Cut(part, "-")
				if !isRange {
					hi = lo
				}
				from, to, ok := span(lo, hi)
				if !ok {
					return nil, nil, fmt.Errorf("%s is no range of numbers in %s: expected [7] or [1-64]", quote(part), quote(item))
				}
				if to-from >= most-len(nodes) {
					return nil, nil, tooManyNodes()
				}
				for n := from; n <= to; n++ {
					nodes = append(nodes, prefix+padded(n, len(lo))+suffix)
				}
			}
			items = append(items, item)
		}
		if len(nodes) > most {
			return nil, nil, tooManyNodes()
		}
	}
	return items, nodes, nil
}

func tooManyNodes() error {
	return fmt.Errorf("with this line the file names more than %d nodes", maxNodes)
}

// span takes the ends of a range of numbers.
func span(lo, hi string) (from, to int, ok bool) {
	if !digits(lo) || !digits(hi) || len(lo) > 15 || len(hi) > 15 { // more digits than a name has, or an int
		return 0, 0, false
	}
	from, _ = strconv.Atoi(lo)
	to, _ = strconv.Atoi(hi)
	return from, to, from <= to
}

// padded is a number with at least so many digits.
func padded(n, width int) string {
	text := strconv.Itoa(n)
	return strings.Repeat("0", max(0, width-len(text))) + text
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
