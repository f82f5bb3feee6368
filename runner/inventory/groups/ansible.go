package groups

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Ansible is a static inventory of Ansible, YAML or JSON where the file's name ends in .yml, .yaml or .json, or has no ending and the first line looks
// like YAML, else INI: its hosts with their ranges, its groups and their children, "all" and "ungrouped".
//
// Of variables it heeds ansible_host, ansible_port and ansible_user, of hosts and of groups, as settings, and ansible_ssh_host and its like,
// which go before them all as they do in Ansible. One that only Ansible can fill in, since it has a template or is in a vault, is an error. Files in group_vars and
// host_vars are not read; nor are a directory of inventories or a program that prints one: have an Upcall run ansible-inventory for those.
func Ansible(path string) Source {
	return once(func() (*table, error) {
		text, err := readText(path)
		if err != nil {
			return nil, err
		}
		a := &ansible{path: path, groups: map[string]*ansibleGroup{}, seen: map[string]bool{}}
		for _, name := range [...]string{"all", "ungrouped"} { // which are always there
			a.groups[name] = new(ansibleGroup)
			a.order = append(a.order, name)
		}
		switch {
		case strings.HasPrefix(text, "#!"):
			err = fmt.Errorf("%s: this is a program that prints an inventory; write a source of commands, which run ansible-inventory", path)
		case looksLikeYAML(path, text):
			err = a.yaml()
		default:
			err = a.ini(text)
		}
		if err != nil {
			return nil, err
		}
		return a.table()
	})
}

var yamlBegins = regexp.MustCompile(`^(---|[^\s:\[\]]+:(\s|$)|\{)`)

func looksLikeYAML(path, text string) bool {
	switch filepath.Ext(path) {
	case ".yml", ".yaml", ".json":
		return true
	case "":
		for _, line := range lines(text) {
			if line = uncomment(line); line != "" {
				return yamlBegins.MatchString(line)
			}
		}
	}
	return false
}

// ansible is an inventory as it is read.
type ansible struct {
	path   string
	order  []string // of groups
	groups map[string]*ansibleGroup
	hosts  []ansibleHost
	names  int             // that the lines of hosts make, each counted as often as it is there
	links  int             // to children
	seen   map[string]bool // the hosts that are in a group other than all and ungrouped
}

type ansibleGroup struct {
	hosts    []ansibleHost
	children []link
	vars     []Setting
	priority int
	unknown  int // the line of its variables, where no other has named the group
}

// ansibleHost is a line of hosts: the names that its ranges make.
type ansibleHost struct {
	line  int
	names []string
	vars  []Setting
}

// link is a group that a line names.
type link struct {
	group string
	line  int
}

func (a *ansible) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", a.path, line, fmt.Errorf(format, args...))
}

func (a *ansible) place(line int) string { return a.path + ":" + strconv.Itoa(line) }

// group returns a group, which it makes if there is none. Its name comes to stand after an @ where it is a child.
func (a *ansible) group(name string, line int) (*ansibleGroup, error) {
	g := a.groups[name]
	if g == nil {
		if !validName(name) || strings.Contains(name, "=") {
			return nil, a.errorf(line, "%s is no name of a group: expected letters, digits, '_', '-' and '.'", quote(name))
		}
		if len(a.order) == maxGroups {
			return nil, a.errorf(line, "with this line the inventory has more than %d groups", maxGroups)
		}
		g = new(ansibleGroup)
		a.groups[name] = g
		a.order = append(a.order, name)
	}
	g.unknown = 0
	return g, nil
}

// Bounds on an inventory: its hosts and the children of groups, each counted as often as it is there, and its groups.
const (
	maxNames  = 1_000_000
	maxGroups = 1_000_000
)

// host adds hosts to a group.
func (a *ansible) host(in string, h ansibleHost) error {
	if a.names += len(h.names); a.names > maxNames {
		return a.errorf(h.line, "with this line the inventory has more than %d hosts", maxNames)
	}
	g := a.groups[in]
	g.hosts = append(g.hosts, h)
	a.hosts = append(a.hosts, h)
	if in != "all" && in != "ungrouped" {
		for _, name := range h.names {
			a.seen[name] = true
		}
	}
	return nil
}

// child adds a child to a group.
func (a *ansible) child(g *ansibleGroup, name string, line int) error {
	if a.links++; a.links > maxNames {
		return a.errorf(line, "with this line the inventory has more than %d children of groups", maxNames)
	}
	g.children = append(g.children, link{name, line})
	return nil
}

var ansibleSettings = map[string]string{
	"ansible_host": "addr", "ansible_port": "port", "ansible_user": "user",
	"ansible_ssh_host": "ssh addr", "ansible_ssh_port": "ssh port", "ansible_ssh_user": "ssh user",
}

// groupVariable takes a variable of a group.
func (a *ansible) groupVariable(g *ansibleGroup, key, value string, line int) (err error) {
	if key == "ansible_group_priority" {
		if g.priority, err = strconv.Atoi(value); err != nil {
			return a.errorf(line, "%s is no number: %s", key, quote(value))
		}
	}
	g.vars, err = a.variable(g.vars, key, value, line)
	return err
}

// variable appends the setting that a variable is, if it is one. Keys of the old names begin with "ssh ".
func (a *ansible) variable(to []Setting, key, value string, line int) ([]Setting, error) {
	setting := ansibleSettings[key]
	if setting == "" || value == "" {
		return to, nil
	}
	if strings.Contains(value, "{{") || strings.Contains(value, "{%") {
		return nil, a.errorf(line, "%s is the template %s, which only Ansible can fill in; write a source of commands, which run ansible-inventory", key, quote(value))
	}
	if strings.HasPrefix(value, "$ANSIBLE_VAULT") {
		return nil, a.errorf(line, "%s is in a vault, which only Ansible can open", key)
	}
	return append(to, Setting{Key: setting, Value: value, Place: a.place(line)}), nil
}

// table makes the groups: hosts, and @CHILD for each child.
func (a *ansible) table() (*table, error) {
	order, err := a.topmostFirst()
	if err != nil {
		return nil, err
	}
	t := &table{path: a.path, all: new(passage)}
	for _, h := range a.hosts {
		t.all.add(0, h.line, strings.Join(h.names, "\n"))
	}
	for _, name := range [...]string{"ungrouped", "all"} { // what is in all alone is ungrouped, too
		for _, h := range a.groups[name].hosts {
			loose := slices.DeleteFunc(slices.Clone(h.names), func(name string) bool { return a.seen[name] })
			if len(loose) > 0 {
				t.group("ungrouped").add(0, h.line, strings.Join(loose, "\n"))
			}
		}
	}
	for _, name := range a.order {
		if name == "all" || name == "ungrouped" {
			continue
		}
		g, to := a.groups[name], t.group(name)
		for _, h := range g.hosts {
			to.add(0, h.line, strings.Join(h.names, "\n"))
		}
		for _, child := range g.children {
			to.add(0, child.line, "@"+child.group)
		}
	}
	t.group("all").join(t.all)

	// A variable of a later line goes over that of an earlier one, a host's over a group's, a child's over its parent's; here the first holds.
	var all []Setting
	for _, h := range slices.Backward(a.hosts) {
		for _, s := range slices.Backward(h.vars) {
			s.Hosts = strings.Join(h.names, "\n")
			all = append(all, s)
		}
	}
	for _, name := range slices.Backward(order) {
		for _, s := range slices.Backward(a.groups[name].vars) {
			s.Hosts = "@" + name
			all = append(all, s)
		}
	}
	for _, old := range [...]bool{true, false} {
		for _, s := range all {
			key, is := strings.CutPrefix(s.Key, "ssh ")
			if s.Key = key; is == old {
				t.settings = append(t.settings, s)
			}
		}
	}
	return t, nil
}

var errCycle = errors.New("these groups are children of each other")

// topmostFirst returns the groups in the order in which their variables go over each other: by depth, that is the longest way from "all" down, by their
// ansible_group_priority, by name. Cycles and children that are no groups are errors.
func (a *ansible) topmostFirst() ([]string, error) {
	parents := map[string]int{} // how many are left to be looked at
	for _, name := range a.order {
		if g := a.groups[name]; g.unknown != 0 {
			return nil, a.errorf(g.unknown, "there is no group %s, which these variables are for", quote(name))
		}
		for _, child := range a.groups[name].children {
			if c := a.groups[child.group]; c == nil || c.unknown != 0 {
				return nil, a.errorf(child.line, "there is no group %s, which %s has as a child", quote(child.group), name)
			}
			parents[child.group]++
		}
	}
	depths := make(map[string]int, len(a.order))
	var ready []string
	for _, name := range a.order {
		if parents[name] == 0 {
			ready = append(ready, name)
			if name != "all" {
				depths[name] = 1
			}
		}
	}
	for i := 0; i < len(ready); i++ {
		for _, child := range a.groups[ready[i]].children {
			depths[child.group] = max(depths[child.group], 1, depths[ready[i]]+1)
			if parents[child.group]--; parents[child.group] == 0 {
				ready = append(ready, child.group)
			}
		}
	}
	if len(ready) < len(a.order) {
		return nil, a.cycle(parents)
	}
	slices.SortFunc(ready, func(x, y string) int {
		return cmp.Or(cmp.Compare(depths[x], depths[y]), cmp.Compare(a.groups[x].priority, a.groups[y].priority), cmp.Compare(x, y))
	})
	return ready, nil
}

// cycle is the error for one among the groups that have parents left. Each of these has a parent that is one of them, so going up comes back.
func (a *ansible) cycle(left map[string]int) error {
	up := map[string]link{}
	for _, name := range a.order {
		for _, child := range a.groups[name].children {
			if left[name] > 0 && left[child.group] > 0 {
				up[child.group] = link{name, child.line}
			}
		}
	}
	at := slices.Min(slices.Collect(maps.Keys(up)))
	seen := map[string]bool{}
	for !seen[at] {
		seen[at] = true
		at = up[at].group
	}
	chain := []string{at}
	for name := up[at].group; name != at && len(chain) < 20; name = up[name].group {
		chain = append(chain, name)
	}
	chain = append(chain, at)
	slices.Reverse(chain)
	return a.errorf(up[at].line, "%w: %s", errCycle, strings.Join(chain, ", "))
}

// hostPort is a host, in which colons stand only within brackets, and its port.
var hostPort = regexp.MustCompile(`^((?:[^:\[\]]|\[[^\]]*\])+):(\d+)$`)

// hostLine takes a line of hosts: a host or a range of them, perhaps with a port, and its variables.
func (a *ansible) hostLine(in, pattern string, vars []Setting, line int) error {
	port := ""
	if m := hostPort.FindStringSubmatch(pattern); m != nil {
		pattern, port = m[1], m[2]
	}
	names, err := ansibleNames(pattern)
	if err != nil {
		return a.errorf(line, "%w", err)
	}
	if port != "" {
		vars = slices.Insert(vars, 0, Setting{Key: "port", Value: port, Place: a.place(line)})
	}
	return a.host(in, ansibleHost{line, names, vars})
}

// ansibleNames are the names that a host with ranges makes.
func ansibleNames(pattern string) ([]string, error) {
	if inner, is := strings.CutPrefix(pattern, "["); is && strings.HasSuffix(inner, "]") && plain(inner[:len(inner)-1]) && strings.Contains(inner, ":") {
		return []string{inner[:len(inner)-1]}, nil // an IPv6 address in brackets, which are not part of it
	}
	if len(pattern) > 4*maxName {
		return nil, fmt.Errorf("%s is no name of a host: it has %d bytes", quote(pattern), len(pattern))
	}
	names := []string{""}
	for rest := pattern; rest != ""; {
		before, after, open := strings.Cut(rest, "[")
		inner, behind, closed := strings.Cut(after, "]")
		if open && !closed {
			return nil, fmt.Errorf("this '[' is never closed in %s", quote(pattern))
		}
		rest = behind
		parts := []string{""}
		if open {
			var err error
			if parts, err = ansibleRange(inner); err != nil {
				return nil, fmt.Errorf("[%s] in %s %w", inner, quote(pattern), err)
			}
		}
		if len(names)*len(parts) > maxNames {
			return nil, fmt.Errorf("the ranges of %s make more than %d names", quote(pattern), maxNames)
		}
		longer := make([]string, 0, len(names)*len(parts))
		for _, name := range names {
			for _, part := range parts {
				longer = append(longer, name+before+part)
			}
		}
		names = longer
	}
	if !plain(names[0]) {
		return nil, fmt.Errorf("%s is no name of a host", quote(names[0]))
	}
	return names, nil
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

var errRange = errors.New("is no range: expected [01:50], [1:9:2] or [a:f]")

// ansibleRange makes the names of 1:9, 01:09, 1:9:2 and a:f.
func ansibleRange(inner string) (names []string, err error) {
	parts := strings.Split(inner, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return nil, errRange
	}
	lo, hi, step := cmp.Or(parts[0], "0"), parts[1], 1
	if len(parts) == 3 {
		if _, step, _ = span("0", parts[2]); step < 1 {
			return nil, errRange
		}
	}
	if len(lo) == 1 && len(hi) == 1 && strings.Contains(letters, lo) && strings.Contains(letters, hi) {
		first, last := strings.Index(letters, lo), strings.Index(letters, hi)
		for i := first; i <= last; i += step {
			names = append(names, letters[i:i+1])
		}
		if names == nil {
			return nil, errors.New("runs backwards")
		}
		return names, nil
	}
	from, to, ok := span(lo, hi)
	switch width := len(lo); {
	case !digits(lo) || !digits(hi):
		return nil, errRange
	case !ok:
		return nil, errors.New("runs backwards, or its numbers are too long")
	case lo[0] == '0' && width > 1 && width != len(hi):
		return nil, errors.New("has ends of different lengths, the first of them padded")
	case (to-from)/step >= maxNames:
		return nil, fmt.Errorf("makes more than %d names", maxNames)
	default:
		for n := from; n <= to; n += step {
			names = append(names, padded(n, width))
		}
		return names, nil
	}
}
