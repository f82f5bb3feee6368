package groups

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Ansible is a static inventory of Ansible, YAML where the file's name ends in .yml or .yaml, else INI: its hosts with their ranges, its groups and
// their children, "all" and "ungrouped". Of variables it heeds ansible_host, ansible_port and ansible_user (and the old ansible_ssh_…), of hosts and of groups, as
// settings; one that only Ansible can fill in, since it has a template, is an error. A script or a directory is none of these: let an Upcall run ansible-inventory.
func Ansible(path string) Source {
	return once(func() (*table, error) {
		if script, err := isScript(path); err == nil && script {
			return nil, fmt.Errorf("%s: this is a program that writes an inventory; have a command of the configuration run it", path)
		}
		a := &ansible{path: path, groups: map[string]*ansibleGroup{}}
		read := a.ini
		if strings.HasSuffix(path, ".yml") || strings.HasSuffix(path, ".yaml") {
			read = a.yaml
		}
		if err := read(); err != nil {
			return nil, err
		}
		return a.table()
	})
}

func isScript(path string) (bool, error) {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 2)
	_, err = io.ReadFull(f, head)
	return string(head) == "#!", err
}

// ansible is an inventory as it is read.
type ansible struct {
	path   string
	order  []string // of groups
	groups map[string]*ansibleGroup
	hosts  []Setting // of single lines
}

type ansibleGroup struct {
	hosts    []string
	children []link
	vars     []Setting
	child    bool // of another group
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

func (a *ansible) group(name string, line int) (*ansibleGroup, error) {
	g := a.groups[name]
	if g == nil {
		if !validName(name) {
			return nil, a.errorf(line, "%s is no name of a group", quote(name))
		}
		g = new(ansibleGroup)
		a.groups[name] = g
		a.order = append(a.order, name)
	}
	return g, nil
}

// ini reads the INI form.
func (a *ansible) ini() error {
	text, err := readText(a.path)
	if err != nil {
		return err
	}
	g, err := a.group("ungrouped", 0)
	if err != nil {
		return err
	}
	kind := "hosts"
	for i, line := range strings.Split(text, "\n") {
		number := i + 1
		words, err := shellWords(line)
		if err != nil {
			return a.errorf(number, "%w", err)
		}
		switch {
		case len(words) == 0 || strings.TrimSpace(line)[0] == ';':
		case isSection(words):
			name, of, _ := strings.Cut(words[0][1:len(words[0])-1], ":")
			if kind = cmp.Or(of, "hosts"); kind != "hosts" && kind != "children" && kind != "vars" {
				return a.errorf(number, "there is no [%s:%s]: there is [%[1]s], [%[1]s:children] and [%[1]s:vars]", name, of)
			}
			if g, err = a.group(name, number); err != nil {
				return err
			}
		case kind == "children":
			g.children = append(g.children, link{words[0], number})
		case kind == "vars":
			// A value goes to the end of the line.
			key, value, equals := strings.Cut(strings.TrimSpace(line), "=")
			if !equals {
				return a.errorf(number, "expected NAME=VALUE, found %s", quote(line))
			}
			value = strings.Trim(strings.TrimSpace(value), `"'`)
			if g.vars, err = a.variable(g.vars, "", strings.TrimSpace(key), value, number); err != nil {
				return err
			}
		default:
			if err := a.hostLine(g, words, number); err != nil {
				return err
			}
		}
	}
	return nil
}

// isSection tells [web] from a host that begins with a range, as [01:04]-web or [a:d].example.com.
func isSection(words []string) bool {
	w := words[0]
	if len(words) != 1 || len(w) < 3 || w[0] != '[' || strings.IndexByte(w, ']') != len(w)-1 {
		return false
	}
	_, _, isRange := parseRange(w[1 : len(w)-1])
	return !isRange
}

// hostPort is a host, in which colons stand only within brackets, and its port.
var hostPort = regexp.MustCompile(`^((?:[^:\[\]]|\[[^\]]*\])+):(\d+)$`)

func (a *ansible) hostLine(g *ansibleGroup, words []string, line int) error {
	pattern, port := words[0], ""
	if m := hostPort.FindStringSubmatch(pattern); m != nil {
		pattern, port = m[1], m[2]
	}
	texts, err := ranges(pattern)
	if err != nil {
		return a.errorf(line, "%w", err)
	}
	g.hosts = append(g.hosts, texts...)
	hosts := strings.Join(texts, "\n")
	var vars []Setting
	for _, word := range words[1:] {
		key, value, equals := strings.Cut(word, "=")
		if !equals {
			return a.errorf(line, "expected NAME=VALUE after the host, found %s", quote(word))
		}
		if vars, err = a.variable(vars, hosts, key, value, line); err != nil {
			return err
		}
	}
	if port != "" && !slices.ContainsFunc(vars, func(s Setting) bool { return s.Key == "port" }) {
		vars = append(vars, Setting{hosts, "port", port, a.place(line)})
	}
	a.hosts = append(a.hosts, vars...)
	return nil
}

var ansibleSettings = map[string]string{
	"ansible_host": "addr", "ansible_ssh_host": "addr", "ansible_port": "port", "ansible_ssh_port": "port",
	"ansible_user": "user", "ansible_ssh_user": "user",
}

// variable appends the setting that a variable is, if it is one.
func (a *ansible) variable(to []Setting, hosts, key, value string, line int) ([]Setting, error) {
	setting := ansibleSettings[key]
	if setting == "" || value == "" {
		return to, nil
	}
	if strings.Contains(value, "{{") {
		return nil, a.errorf(line, "%s is the template %s, which only Ansible can fill in; have a command of the configuration run ansible-inventory", key, quote(value))
	}
	return append(to, Setting{hosts, setting, value, a.place(line)}), nil
}

// yaml reads the YAML form.
func (a *ansible) yaml() error {
	root, err := readYAML(a.path)
	if err != nil {
		return err
	}
	groups, err := root.pairs("groups")
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := a.yamlGroup(g, 0); err != nil {
			return err
		}
	}
	return nil
}

const maxDepth = 100 // of groups within groups

func (a *ansible) yamlGroup(p pair, depth int) error {
	if depth > maxDepth {
		return p.value.errorf("groups are nested more than %d deep here", maxDepth)
	}
	g, err := a.group(p.key, p.value.Line)
	if err != nil {
		return err
	}
	parts, err := p.value.pairs("the group " + p.key)
	if err != nil {
		return err
	}
	for _, part := range parts {
		entries, err := part.value.pairs(part.key + " of the group " + p.key)
		if err != nil {
			return err
		}
		switch part.key {
		case "hosts":
			for _, h := range entries {
				words := []string{h.key}
				vars, err := h.value.pairs("the variables of " + h.key)
				if err != nil {
					return err
				}
				for _, v := range vars {
					words = append(words, v.key+"="+v.value.Value)
				}
				if err := a.hostLine(g, words, h.value.Line); err != nil {
					return err
				}
			}
		case "children":
			for _, child := range entries {
				g.children = append(g.children, link{child.key, child.value.Line})
				if err := a.yamlGroup(child, depth+1); err != nil {
					return err
				}
			}
		case "vars":
			for _, v := range entries {
				if g.vars, err = a.variable(g.vars, "", v.key, v.value.Value, v.value.Line); err != nil {
					return err
				}
			}
		default:
			return part.value.errorf("there is no %s in a group: there is hosts, children and vars", quote(part.key))
		}
	}
	return nil
}

// table makes the groups: hosts, and @CHILD for each child.
func (a *ansible) table() (*table, error) {
	t := &table{settings: a.hosts}
	var all []string
	for _, name := range a.order {
		g := a.groups[name]
		for _, child := range g.children {
			c := a.groups[child.group]
			if c == nil {
				return nil, a.errorf(child.line, "there is no group %s, which %s has as a child", quote(child.group), name)
			}
			c.child = true
		}
		all = append(all, g.hosts...)
	}
	grouped := map[string]bool{}
	var loose []string
	for name, g := range a.groups {
		if name != "all" && name != "ungrouped" {
			for _, text := range g.hosts {
				grouped[text] = true
			}
		}
	}
	for _, name := range [...]string{"all", "ungrouped"} {
		if g := a.groups[name]; g != nil {
			loose = append(loose, slices.DeleteFunc(slices.Clone(g.hosts), func(text string) bool { return grouped[text] })...)
		}
	}
	if len(loose) > 0 {
		t.add("ungrouped", strings.Join(loose, "\n"))
	}
	for _, name := range a.order {
		g := a.groups[name]
		if name == "all" || name == "ungrouped" {
			continue
		}
		texts := slices.Clone(g.hosts)
		for _, child := range g.children {
			texts = append(texts, "@"+child.group)
		}
		t.add(name, strings.Join(texts, "\n"))
	}
	t.add("all", strings.Join(all, "\n"))

	// What a child sets goes before what its parents do, and "all" is everybody's parent.
	depths, err := a.depths()
	if err != nil {
		return nil, err
	}
	names := slices.SortedFunc(maps.Keys(depths), func(x, y string) int {
		return cmp.Or(cmp.Compare(depths[y], depths[x]), cmp.Compare(x, y))
	})
	for _, name := range names {
		for _, s := range a.groups[name].vars {
			s.Hosts = "@" + name
			t.settings = append(t.settings, s)
		}
	}
	return t, nil
}

var errCycle = errors.New("these groups are children of each other")

// depths is how far below the topmost group each one is.
func (a *ansible) depths() (map[string]int, error) {
	depths := map[string]int{}
	var visit func(name string, line int, chain []string) error
	visit = func(name string, line int, chain []string) error {
		if slices.Contains(chain, name) {
			return a.errorf(line, "%w: %s", errCycle, strings.Join(append(chain, name), ", "))
		}
		depth := len(chain) + 1
		if name == "all" {
			depth = 0
		}
		if before, known := depths[name]; known && before >= depth {
			return nil
		}
		depths[name] = depth
		chain = append(chain, name)
		for _, c := range a.groups[name].children {
			if err := visit(c.group, c.line, chain); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range a.order { // also those of a cycle, which has no topmost
		if err := visit(name, 0, nil); err != nil {
			return nil, err
		}
	}
	return depths, nil
}

// maxNames bounds what ranges of letters make of one line.
const maxNames = 100_000

// ranges writes a host of Ansible as host expressions: [01:50] is [01-50], [1:9:2] is [1-9/2], and ranges of letters are written out.
func ranges(pattern string) ([]string, error) {
	if strings.Count(pattern, ":") > 1 && !strings.Contains(pattern, "[") {
		return []string{pattern}, nil // an IPv6 address
	}
	texts := []string{""}
	for rest := pattern; rest != ""; {
		before, after, open := strings.Cut(rest, "[")
		for i := range texts {
			texts[i] += before
		}
		if !open {
			break
		}
		inner, behind, closed := strings.Cut(after, "]")
		if !closed {
			return nil, fmt.Errorf("this '[' is never closed in %s", quote(pattern))
		}
		rest = behind
		parts, letters, ok := parseRange(inner)
		if !ok {
			if strings.Count(inner, ":") > 1 { // an IPv6 address in its brackets
				for i := range texts {
					texts[i] += "[" + inner + "]"
				}
				continue
			}
			return nil, fmt.Errorf("[%s] is no range in %s: expected [01:50], [1:9:2] or [a:f]", inner, quote(pattern))
		}
		if letters == nil {
			for i := range texts {
				texts[i] += parts
			}
			continue
		}
		if len(texts)*len(letters) > maxNames {
			return nil, fmt.Errorf("the ranges of %s make more than %d names", quote(pattern), maxNames)
		}
		var longer []string
		for _, text := range texts {
			for _, letter := range letters {
				longer = append(longer, text+letter)
			}
		}
		texts = longer
	}
	return texts, nil
}

// parseRange takes the inside of brackets: numbers are written as in a host expression, letters are listed.
func parseRange(inner string) (numbers string, letters []string, ok bool) {
	parts := strings.Split(inner, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return "", nil, false
	}
	step, text := 1, ""
	if len(parts) == 3 {
		n, err := strconv.Atoi(parts[2])
		if err != nil || n < 1 {
			return "", nil, false
		}
		step, text = n, "/"+parts[2]
	}
	from, to := parts[0], parts[1]
	if from == "" && digits(to) {
		from = "0"
	}
	if digits(from) && digits(to) {
		return "[" + from + "-" + to + text + "]", nil, true
	}
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	lo, hi := strings.Index(alphabet, from), strings.Index(alphabet, to)
	if len(from) != 1 || len(to) != 1 || lo < 0 || hi < lo {
		return "", nil, false
	}
	for i := lo; i <= hi; i += step {
		letters = append(letters, alphabet[i:i+1])
	}
	return "", letters, true
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// shellWords splits a line as Ansible does: at blanks, with quotes, to a '#' outside of these.
func shellWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	began, quoted := false, rune(0)
	for _, r := range line {
		switch {
		case quoted != 0:
			if r == quoted {
				quoted = 0
			} else {
				word.WriteRune(r)
			}
		case r == '"' || r == '\'':
			quoted, began = r, true
		case r == '#':
			if began {
				words = append(words, word.String())
			}
			return words, nil
		case r == ' ' || r == '\t':
			if began {
				words = append(words, word.String())
			}
			word.Reset()
			began = false
		default:
			began = true
			word.WriteRune(r)
		}
	}
	if quoted != 0 {
		return nil, fmt.Errorf("the quote %c is never closed", quoted)
	}
	if began {
		words = append(words, word.String())
	}
	return words, nil
}
