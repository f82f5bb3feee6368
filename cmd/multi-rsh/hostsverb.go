package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"multirsh/runner/hostlist"
	"multirsh/runner/inventory"
	"multirsh/runner/inventory/groups"
)

//go:embed multi-rsh-hosts.1
var hostsManual []byte

// hostsLine is the command line of "multi-rsh hosts". The options that choose hosts are a run's. In only are the
// sub-commands that an option is for.
var hostsLine = &commandLine{name: "multi-rsh hosts", options: []*option{
	runLine.byLong("hosts"),
	runLine.byLong("exclude"),
	runLine.byLong("group"),
	runLine.byLong("exclude-group"),
	runLine.byLong("all"),
	{name: "intersection", letters: "i", arg: "EXPR", many: true, group: "Hosts", text: "of them only those that are also here; repeatable"},
	runLine.byLong("hosts-file"),
	runLine.byLong("inventory"),
	{name: "source", letters: "s", arg: "NAME", group: "Hosts", text: "where groups come from that name no source"},
	runLine.byLong("dup"),

	{name: "separator", letters: "S", arg: "TEXT", only: "expand fold pick regroup split", group: "Result", text: "between names or folded items; knows \\n \\t \\0"},
	{name: "json", letters: "j", group: "Result", text: "one JSON document"},
	{name: "quiet", letters: "q", group: "Result", text: "nothing; exit with 1 where there is none"},
	{name: "verbose", letters: "v", only: "list", group: "Result", text: "list: with each group's hosts, and how many"},
	{name: "all-sources", letters: "A", only: "list", group: "Result", text: "list: the groups of every source"},
	{name: "fold", only: "pick", group: "Result", text: "pick: one short expression"},
	{name: "seed", arg: "N", only: "pick", group: "Result", text: "pick: the same hosts for the same number"},
	{name: "expand", only: "split", group: "Result", text: "split: names of a set with blanks between them"},
	{name: "round-robin", only: "split", group: "Result", text: "split: deal them out like cards"},

	runLine.byLong("config"),
	{name: "help", letters: "h", action: true, group: "Other", text: "this page"},
	{name: "man", action: true, group: "Other", text: "the manual of hosts"},
}}

// hostsHelp fits a screen of 80 by 50.
var hostsHelp = helpPage{
	head: `multi-rsh hosts tells which hosts a run would choose, and runs nothing.

` + func() string {
		var lines strings.Builder
		for _, c := range hostsCommands {
			fmt.Fprintf(&lines, "  multi-rsh hosts %-18s %s\n", c.name+" "+c.args, c.text)
		}
		return lines.String()
	}() + `
  EXPR is as 'node[01-16]!node07', @web or 10.1.0.0/28; - reads standard input,
  which is also read where no hosts are named and it is no terminal.
`,
	foot: `Examples
  multi-rsh hosts expand 'node[001-640]&@compute'
  squeue -h -o %N | multi-rsh hosts fold
  multi-rsh hosts split 4 @compute -x @down
`,
}

// hostsCommand is one of the things that the verb does.
type hostsCommand struct {
	name, args, text string

	// number is what the number is that its words begin with; "": they begin with none.
	number string
	// alone: it has a meaning without hosts, so it does not read standard input unasked.
	alone bool
	// unordered: the order of the hosts does not matter to it.
	unordered bool
	does      func(*hostsQuery, *hostlist.List) error
}

// hostsCommands in the order of the help.
var hostsCommands = []*hostsCommand{
	{name: "expand", args: "EXPR...", text: "their names, a name a line, in their order", does: (*hostsQuery).expand},
	{name: "fold", args: "EXPR...", text: "one short expression, sorted", unordered: true, does: (*hostsQuery).fold},
	{name: "count", args: "EXPR...", text: "how many they are", unordered: true, does: (*hostsQuery).count},
	{name: "list", args: "[EXPR...]", text: "the groups there are, or those they are in", alone: true, unordered: true, does: (*hostsQuery).groups},
	{name: "pick", args: "N EXPR...", text: "N of them at random, in their order", number: "hosts to pick", does: (*hostsQuery).pick},
	{name: "regroup", args: "EXPR...", text: "folded, with the names of whole groups", unordered: true, does: (*hostsQuery).regroup},
	{name: "split", args: "N EXPR...", text: "N sets of even size, each folded on a line", number: "sets to make", does: (*hostsQuery).split},
}

// hostsQuery is what the verb is asked.
type hostsQuery struct {
	*env
	choice
	*hostsCommand
	n         int                    // of pick and split
	words     []string               // expressions, and - for standard input
	also      []string               // of --intersection
	is        func(name string) bool // a switch is on
	random    func(int) int          // a number from 0 below its argument
	source    string                 // of --source
	separator string                 // "": what each text has of its own

	ctx       context.Context
	out       *printer
	inventory *inventory.Inventory
}

// hostsVerb is "multi-rsh hosts": it says what host expressions mean, and runs nothing. Its errors are as a run's.
func (e *env) hostsVerb(args []string) error {
	if len(args) == 0 {
		return hostsLine.help(e.Stdout, hostsHelp)
	}
	args, err := hostsLine.optionsFirst(args, unknownHostsLetter)
	if err != nil {
		return err
	}
	getenv := func(name string) string { // the other variables are about runs
		if name == hostsLine.byLong("inventory").variable() {
			return e.Getenv(name)
		}
		return ""
	}
	a, err := hostsLine.split(args, getenv)
	switch {
	case err != nil:
		return err
	case a.action == "help" || len(a.words) == 1 && a.words[0] == "help":
		return hostsLine.help(e.Stdout, hostsHelp)
	case a.action == "man":
		return e.writeManual(hostsManual)
	}
	values, files, err := e.settle(a)
	if err != nil {
		return err
	}
	source := values.String("source")
	if source != "" { // as the default of a configuration that goes before the others
		byHand := &configFile{groups: fileGroups{place: a.origin["source"] + " " + source, byName: source}}
		files = append([]*configFile{byHand}, files...)
	}
	q := &hostsQuery{
		env: e, words: a.words, also: values.StringSlice("intersection"), is: values.Bool, random: rand.IntN, source: source,
	}
	for _, step := range []func() error{
		func() error { return q.command(a) },
		func() (err error) { q.choice, err = a.choice(values, files); return err },
		func() error { return q.hosts(a) },
		func() error { return q.result(a, values) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return e.before(e.Signals(), func(ctx context.Context) error {
		q.ctx, q.out = ctx, newPrinter(ctx, e.Stdout, q.separator)
		return q.answer()
	})
}

// optionsFirst moves the options, which may stand anywhere before --, to where split looks for them. unknown is what to say to a
// letter, in an argument, that is none of theirs.
func (l *commandLine) optionsFirst(args []string, unknown func(letter rune, arg string) error) ([]string, error) {
	var options, words []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			words, args = append(words, args...), nil
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			words = append(words, arg)
		default:
			options = append(options, arg)
			o, as, err := l.needsNext(arg, unknown)
			switch {
			case err != nil:
				return nil, err
			case o != nil && len(args) == 0:
				return nil, needsValue(o, as)
			case o != nil:
				options, args = append(options, args[0]), args[1:]
			}
		}
	}
	return append(append(options, "--"), words...), nil
}

// needsNext is the option in arg, and what to call it, whose value is the argument after it; nil: there is none.
func (l *commandLine) needsNext(arg string, unknown func(rune, string) error) (o *option, as string, err error) {
	if name, isLong := strings.CutPrefix(arg, "--"); isLong {
		if o := l.byLong(name); o != nil && o.arg != "" {
			return o, arg, nil
		}
		return nil, "", nil
	}
	for i, letter := range arg[1:] {
		o := l.byLetter(letter)
		if o == nil {
			return nil, "", unknown(letter, arg)
		}
		if o.arg == "" {
			continue
		}
		if i+1+utf8.RuneLen(letter) == len(arg) {
			return o, "-" + string(letter), nil
		}
		break
	}
	return nil, "", nil
}

// ofNodeset are letters of nodeset(1), and the sub-commands that do the same.
var ofNodeset = map[rune]string{'e': "expand", 'f': "fold", 'c': "count", 'r': "regroup"}

// unknownHostsLetter is about a letter in arg. An argument with a dash may also have been meant as an item of an expression.
func unknownHostsLetter(letter rune, arg string) error {
	switch name := ofNodeset[letter]; {
	case name != "" && len(arg) == 2:
		return usagef("unknown option -%c; multi-rsh hosts %s does what nodeset -%[1]c does", letter, name)
	case len(arg) > 2 && !strings.HasPrefix(arg, "-/"):
		return usagef("unknown option -%c in %s; to leave a host out write -x %s", letter, arg, arg[1:])
	case len(arg) > 2:
		return usagef("unknown option -%c in %s; items that begin with a dash come after --", letter, arg)
	}
	return usagef("unknown option -%c; multi-rsh hosts --help lists the options", letter)
}

// command takes the sub-command, and its number, from the words.
func (q *hostsQuery) command(a *arguments) error {
	if len(q.words) == 0 {
		return usagef("hosts: say first what to do: %s", enumerate(hostsNames()))
	}
	word := q.words[0]
	at := slices.IndexFunc(hostsCommands, func(c *hostsCommand) bool { return c.name == word })
	if at < 0 {
		if best := nearest(word, hostsNames()); best != "" {
			return usagef("hosts %s: there is no such command; did you mean %s?", word, best)
		}
		return usagef("hosts %s: there is no such command; it is %s (multi-rsh -- hosts runs a remote command of that name)", word, enumerate(hostsNames()))
	}
	q.hostsCommand, q.words = hostsCommands[at], q.words[1:]
	for _, o := range hostsLine.options {
		if as, only := a.origin[o.name], strings.Fields(o.only); as != "" && o.only != "" && !slices.Contains(only, q.name) {
			return usagef("%s is for %s, and means nothing to %s; leave it out", as, enumerate(only), q.name)
		}
	}
	if q.number == "" {
		return nil
	}
	if len(q.words) == 0 {
		return usagef("hosts %s %s: say first how many %s", q.name, q.args, q.number)
	}
	n, err := strconv.ParseUint(q.words[0], 10, 31)
	if err != nil || n == 0 {
		return usagef("hosts %s %q: this is how many %s, a whole number from 1, and the hosts come after it", q.name, q.words[0], q.number)
	}
	q.n, q.words = int(n), q.words[1:]
	return nil
}

// hostsNames are the names of the sub-commands.
func hostsNames() (names []string) {
	for _, c := range hostsCommands {
		names = append(names, c.name)
	}
	return names
}

// enumerate writes words as a sentence does: a, b or c.
func enumerate(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// hosts finds out what says which hosts.
func (q *hostsQuery) hosts(a *arguments) error {
	if err := a.checkHostsFile(a.origin["hosts-file"], &q.choice); err != nil {
		return err
	}
	switch {
	case q.named() || q.hostsFile != "":
	case q.alone && len(q.exclude)+len(q.also) > 0:
		return usagef("hosts %s: no hosts to leave any out of; name them, as by -a", q.name)
	case q.alone:
	case isTerminal(q.Stdin):
		return usagef("hosts %s: no hosts: name them, or let standard input say them", q.name)
	default:
		q.words = []string{"-"}
	}
	readers := 0
	for _, name := range append(slices.Clone(q.words), q.hostsFile) {
		if name == "-" {
			readers++
		}
	}
	if readers > 1 {
		return usagef("standard input can be read once, and - is here %d times; put it into a file", readers)
	}
	return nil
}

// named reports whether hosts are named, be they none in the end.
func (q *hostsQuery) named() bool { return len(q.include)+len(q.words) > 0 }

// result reads the options about what is written.
func (q *hostsQuery) result(a *arguments, values *cli.Context) (err error) {
	if q.is("quiet") && q.is("json") {
		return usagef("%s writes nothing, and %s asks for something; give one of them", a.origin["quiet"], a.origin["json"])
	}
	if text := values.String("separator"); text != "" {
		if q.is("json") {
			return usagef("%s is for text, and %s writes none; give one of them", a.origin["separator"], a.origin["json"])
		}
		if q.separator, err = unescape(a.origin["separator"], text); err != nil {
			return err
		}
	}
	if text := values.String("seed"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return usagef("%s %q: a seed is a whole number from 0, as 42", a.origin["seed"], text)
		}
		q.random = rand.New(rand.NewPCG(seed, 0)).IntN
	}
	return nil
}

// answer answers.
func (q *hostsQuery) answer() error {
	var input *written
	err := unlessStopped(q.ctx, func() (err error) {
		input, err = q.input()
		return err
	})
	if err != nil {
		return err
	}
	if q.asWritten(input) {
		q.out.folded(input.text) // a million names need no list
		return q.out.done()
	}
	if q.inventory, err = q.env.inventory(q.ctx, &q.choice); err != nil {
		return err
	}
	list, err := q.list(input)
	if err != nil {
		return badHosts(err)
	}
	if err := q.does(q, list); err != nil {
		return err
	}
	return q.out.done()
}

// input is what standard input says, if it is among the hosts.
func (q *hostsQuery) input() (*written, error) {
	switch {
	case !slices.Contains(q.words, "-"):
		return new(written), nil
	case q.unordered && !q.dup:
		return readFolded(q.Stdin)
	}
	return readExpression(q.Stdin)
}

// asWritten reports whether what was read is the answer already.
func (q *hostsQuery) asWritten(input *written) bool {
	return q.name == "fold" && len(q.words) == 1 && q.words[0] == "-" && input.plain() &&
		len(q.include)+len(q.exclude)+len(q.also) == 0 && !q.is("json") && !q.is("quiet")
}

// list is the hosts.
func (q *hostsQuery) list(input *written) (*hostlist.List, error) {
	texts := slices.Clip(q.include)
	for _, word := range q.words {
		// An empty word is an empty set, as fold writes it.
		if empty := strings.Trim(word, blanks) == "" || word == "-" && input.text == ""; !empty {
			texts = append(texts, word)
		}
	}
	switch {
	case len(texts) > 0:
	case q.named() || q.hostsFile == "":
		return &hostlist.List{}, nil
	default:
		texts = []string{"@*"} // as a run has it
	}
	var joined strings.Builder
	at := -1 // where the input is in it, if it is
	for i, text := range texts {
		if text == "-" && i >= len(q.include) {
			text, at = input.text, joined.Len()
		}
		if i < len(texts)-1 {
			text = strings.TrimSuffix(strings.TrimRight(text, blanks), ",") + "," // which each may end with
		}
		joined.WriteString(text)
	}
	chosen, err := q.inventory.Select(q.ctx, []string{joined.String()}, q.exclude)
	if err != nil {
		return nil, input.place(err, joined.String(), at)
	}
	list := chosen.Names()
	for _, expr := range q.also {
		also, err := q.inventory.Select(q.ctx, []string{expr}, nil)
		if err != nil {
			return nil, err
		}
		list = list.Intersection(also.Names())
	}
	return list, nil
}

// names answers with the names of n hosts.
func (q *hostsQuery) names(n int, names iter.Seq[string]) error {
	switch {
	case q.is("quiet"):
		return anyOf(n)
	case q.is("json"):
		q.out.jsonNames(n, names)
	default:
		q.out.names(names)
	}
	return nil
}

// folded answers with the folded set of n hosts.
func (q *hostsQuery) folded(n int, text string) error {
	switch {
	case q.is("quiet"):
		return anyOf(n)
	case q.is("json"):
		q.out.json(hostSet{Count: n, Folded: &text})
	default:
		q.out.folded(text)
	}
	return nil
}

// anyOf is all that --quiet says of n.
func anyOf(n int) error {
	if n == 0 {
		return &ending{exitHosts}
	}
	return nil
}

func (q *hostsQuery) expand(hosts *hostlist.List) error { return q.names(hosts.Len(), hosts.All()) }

func (q *hostsQuery) fold(hosts *hostlist.List) error {
	if q.is("quiet") {
		return anyOf(hosts.Len())
	}
	return q.folded(hosts.Len(), hostlist.Fold(hosts.All()))
}

func (q *hostsQuery) count(hosts *hostlist.List) error {
	switch n := hosts.Len(); {
	case q.is("quiet"):
		return anyOf(n)
	case q.is("json"):
		q.out.json(hostSet{Count: n})
	default:
		fmt.Fprintln(q.out, n)
	}
	return nil
}

func (q *hostsQuery) pick(hosts *hostlist.List) error {
	n := min(q.n, hosts.Len())
	picked := sample(hosts.All(), hosts.Len(), n, q.random)
	if q.is("fold") {
		return q.folded(n, hostlist.Fold(picked))
	}
	return q.names(n, picked)
}

func (q *hostsQuery) regroup(hosts *hostlist.List) error {
	var sources []string
	if q.source != "" {
		sources = []string{q.source} // and named, so that the answer means the same elsewhere
	}
	text, err := q.inventory.Regroup(q.ctx, hosts, sources...)
	if err != nil {
		return badHosts(err)
	}
	return q.folded(hosts.Len(), text)
}

func (q *hostsQuery) split(hosts *hostlist.List) error {
	if q.is("quiet") {
		return anyOf(hosts.Len())
	}
	document := hostSets{Count: hosts.Len(), Sets: []hostSet{}}
	for _, names := range sets(slices.Collect(hosts.All()), q.n, q.is("round-robin")) {
		set := hostSet{Count: len(names)}
		if q.is("expand") {
			set.Hosts = names
		} else {
			text := hostlist.Fold(slices.Values(names))
			set.Folded = &text
		}
		switch {
		case q.is("json"):
			document.Sets = append(document.Sets, set)
		case set.Folded != nil:
			q.out.folded(*set.Folded)
		default:
			q.out.joined(slices.Values(names), cmp.Or(q.separator, " "))
		}
	}
	if q.is("json") {
		q.out.json(document)
	}
	return nil
}

// groups answers which groups there are, or which have the hosts.
func (q *hostsQuery) groups(hosts *hostlist.List) error {
	if !q.named() && q.hostsFile == "" {
		hosts = nil
	}
	var all []inventory.Group
	sources := [][]string{nil} // those that an expression need not name
	switch {
	case q.source != "":
		sources = [][]string{{q.source}}
	case q.is("all-sources"):
		sources = slices.Collect(slices.Chunk(q.inventory.Sources(), 1))
	}
	for _, source := range sources {
		of, err := q.groupsOf(hosts, source)
		if errors.Is(err, groups.ErrNoList) && q.is("all-sources") {
			continue // as netgroups, which are always there and can only be asked for by name
		}
		if err != nil {
			return badHosts(err)
		}
		all = append(all, of...)
	}
	if q.is("quiet") {
		return anyOf(len(all))
	}
	answer := hostGroups{make([]hostGroup, len(all))}
	for i, g := range all {
		answer.Groups[i].Group = g.String()
	}
	if q.is("verbose") {
		members, err := q.members(all)
		if err != nil {
			return badHosts(err)
		}
		for i, list := range members {
			answer.Groups[i].describe(list, hosts)
		}
	}
	switch {
	case q.is("json"):
		q.out.json(answer)
	case q.is("verbose"):
		return q.out.groups(answer)
	default:
		for _, g := range answer.Groups {
			fmt.Fprintln(q.out, g.Group)
		}
	}
	return nil
}

// few is so many hosts that each of them can be asked about: a source may know the groups of a host, and have no list of all.
const few = 16

// groupsOf are the groups of sources that have one of the hosts, or all groups if hosts is nil.
func (q *hostsQuery) groupsOf(hosts *hostlist.List, sources []string) (found []inventory.Group, err error) {
	if hosts != nil && hosts.Len() <= few {
		for host := range hosts.All() {
			of, err := q.inventory.GroupsOf(q.ctx, host, sources...)
			if err != nil {
				return nil, err
			}
			for _, g := range of {
				if !slices.Contains(found, g) {
					found = append(found, g)
				}
			}
		}
		return found, nil
	}
	all, err := q.inventory.Groups(q.ctx, sources...)
	if err != nil || hosts == nil {
		return all, err
	}
	members, err := q.members(all)
	if err != nil {
		return nil, err
	}
	for i, g := range all {
		if members[i].Intersection(hosts).Len() > 0 {
			found = append(found, g)
		}
	}
	return found, nil
}

// members are the hosts of each of the groups; none for those whose names cannot be written in an expression.
func (q *hostsQuery) members(all []inventory.Group) ([]*hostlist.List, error) {
	members := make([]*hostlist.List, len(all))
	var writable []string
	for i, g := range all {
		members[i] = &hostlist.List{}
		e, err := hostlist.Parse(g.String())
		if err == nil && slices.Equal(e.Groups(), []hostlist.GroupRef{{Source: g.Source, Name: g.Name}}) {
			writable = append(writable, g.String())
		}
	}
	// The first time for all of them at once, so that the sources are asked at the same time.
	if _, err := q.inventory.Select(q.ctx, writable, nil); err != nil {
		return nil, err
	}
	for i, g := range all {
		if len(writable) == 0 || writable[0] != g.String() {
			continue
		}
		writable = writable[1:]
		chosen, err := q.inventory.Select(q.ctx, []string{g.String()}, nil)
		if err != nil {
			return nil, err
		}
		members[i] = chosen.Names()
	}
	return members, nil
}
