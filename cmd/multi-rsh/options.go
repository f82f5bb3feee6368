package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// commandLine is what may follow a command of ours: the run's, below, or a verb's. Its table of options is the only place that
// names them: the parser, the environment, the help and (by a test) the man page follow from it.
type commandLine struct {
	name    string // how it is called: multi-rsh, multi-rsh hosts
	options []*option

	// unknown is the error for a letter that it does not know, in arg; nil: unknownLetter.
	unknown func(letter rune, arg string) error
}

// option is one option of a command line.
type option struct {
	name    string // long, without the dashes
	letters string // short ones, the first is shown first
	arg     string // what the value is called in the help; empty: a switch
	unless  string // the value where none is written, as in --json beside --json=FILE; empty: one must be
	many    bool   // may be given more than once
	action  bool   // says something and ends: no setting, so not taken from the environment
	weakens bool   // can make a run less safe, so not taken from the environment either, where nobody sees it
	once    bool   // says what one run is about, so not taken from the configuration
	only    string // the transports that it is for; empty: all
	group   string
	text    string
}

// runLine is the command line of a run, with the options in the order of the help.
var runLine = &commandLine{name: "multi-rsh", options: slices.Concat([]*option{
	{name: "hosts", letters: "w", arg: "EXPR", many: true, once: true, group: "Hosts", text: "these hosts: 'n[01-16]!n07', @web; repeatable"},
	{name: "exclude", letters: "x", arg: "EXPR", many: true, once: true, group: "Hosts", text: "but not these; repeatable"},
	{name: "group", letters: "g", arg: "GROUP", many: true, once: true, group: "Hosts", text: "the hosts of groups: web,rack[1-3]; repeatable"},
	{name: "exclude-group", letters: "X", arg: "GROUP", many: true, once: true, group: "Hosts", text: "but not those of these groups; repeatable"},
	{name: "all", letters: "a", once: true, weakens: true, group: "Hosts", text: "all hosts of the inventory"},
	{name: "hosts-file", letters: "l", arg: "FILE", once: true, group: "Hosts", text: "all hosts of a file, - for stdin; or the inventory"},
	{name: "inventory", arg: "FILE", many: true, group: "Hosts", text: "hosts and groups to choose from; repeatable"},
	{name: "pick", arg: "N", once: true, group: "Hosts", text: "only N of the hosts, chosen at random"},
	{name: "dup", group: "Hosts", text: "a host as often as it is named"},

	{name: "user", letters: "u", arg: "USER", group: "Command", text: "user on the hosts; else ssh_config's or your own"},
	{name: "input", arg: "FILE", once: true, group: "Command", text: "what the command reads on every host, - for stdin"},
	{name: "merge", group: "Command", text: "one channel: stderr comes with stdout"},
	{name: "fanout", letters: "pf", arg: "N", group: "Command", text: "hosts at once; also -f (64)"},
	{name: "limit-by", arg: "LABEL=N", many: true, group: "Command", text: "at once with the same label: rack=2; repeatable"},
	{name: "timeout", letters: "t", arg: "TIME", group: "Command", text: "for the whole of each host: 30 (seconds), 2m"},
	{name: "connect-timeout", arg: "TIME", group: "Command", text: "until the command is accepted (10s)"},
	{name: "fail-fast", letters: "k", group: "Command", text: "stop the run when a host is not ok"},
	{name: "dry-run", once: true, group: "Command", text: "show what would be run where, and run nothing"},

	{name: "transport", letters: "R", arg: "NAME", group: "Transport", text: "ssh, rsh, or exec: local commands with %h %u %n"},
	{name: "kill-on-disconnect", only: "rsh ssh", group: "Transport", text: "the command ends when the connection does"},
	{name: "plain", only: "rsh ssh", group: "Transport", text: "bare text (switches, filers); rsh: no exit status"},

	{name: "ssh-config", letters: "F", arg: "FILE", only: "ssh", group: "SSH", text: "instead of ~/.ssh/config and the system's; or none"},
	{name: "ssh-option", letters: "o", arg: "KEY=VALUE", many: true, weakens: true, only: "ssh", group: "SSH", text: "a line of ssh_config(5); repeatable"},
	{name: "identity", letters: "i", arg: "FILE", many: true, only: "ssh", group: "SSH", text: "log in with this key; repeatable"},
	{name: "jump", letters: "J", arg: "HOST", only: "ssh", group: "SSH", text: "by way of these hosts, as user@gate:22,inner"},
	{name: "host-keys", arg: "HOW", only: "ssh", group: "SSH", text: "strict, accept-new, ask, or insecure-ignore"},
	{name: "ask-pass", only: "ssh", group: "SSH", text: "ask for a password, once for all hosts"},
	{name: "askpass-command", arg: "CMD", only: "ssh", group: "SSH", text: "or have a local command say it"},
	{name: "connect-retries", arg: "N", only: "ssh", group: "SSH", text: "when servers drop connections unread (3)"},
	{name: "sh", only: "ssh", group: "SSH", text: "run by /bin/sh as with rsh: stops reach it all"},
	{name: "tty", only: "ssh", group: "SSH", text: "give the command a terminal"},
	{name: "forward-agent", letters: "A", weakens: true, only: "ssh", group: "SSH", text: "let the hosts use your ssh-agent"},
	{name: "legacy", weakens: true, only: "ssh", group: "SSH", text: "offer old, weak algorithms too"},
}, textOptions, policyOptions, viewOptions, []*option{
	{name: "progress", arg: "HOW", group: "More output", text: "auto, plain (a line every 10 s), or none"},
	statsOption,

	{name: "largest-status", letters: "S", group: "Other", text: "exit with the largest remote status"},
	{name: "config", arg: "FILE", once: true, group: "Other", text: "instead of the files of the configuration; or none"},
	{name: "help", letters: "h", action: true, group: "Other", text: "this page; --help ssh, output, or policies: more"},
	{name: "man", action: true, group: "Other", text: "the manual"},
	{name: "version", letters: "V", action: true, group: "Other", text: "the version"},
})}

// usage is how the option is written.
func (o *option) usage() string { return "--" + o.name + o.value() }

// value is how its value is written behind the name.
func (o *option) value() string {
	switch {
	case o.arg == "":
		return ""
	case o.unless != "":
		return "[=" + o.arg + "]"
	}
	return " " + o.arg
}

// variable is the environment's name for the option; empty: it is not taken from there.
func (o *option) variable() string {
	if o.action || o.weakens {
		return ""
	}
	return o.environ()
}

// environ is what the environment's name would be.
func (o *option) environ() string {
	return "MULTI_RSH_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// flag is the option as the command-line library knows it: by its long name and as text, so that all messages are our own.
func (o *option) flag() cli.Flag {
	switch {
	case o.many:
		return &cli.StringSliceFlag{Name: o.name}
	case o.arg != "":
		return &cli.StringFlag{Name: o.name}
	}
	return &cli.BoolFlag{Name: o.name}
}

// byLong and byLetter find an option.
func (l *commandLine) byLong(name string) *option {
	for _, o := range l.options {
		if o.name == name {
			return o
		}
	}
	return nil
}

func (l *commandLine) byLetter(letter rune) *option {
	for _, o := range l.options {
		if strings.ContainsRune(o.letters, letter) {
			return o
		}
	}
	return nil
}

// usageError is a mistake in what we were given: nothing has been run, exit status 2. Its text is one sentence.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// arguments are the command line and the environment, taken apart.
type arguments struct {
	line    *commandLine
	options []string          // in the one form --name=value, those of the environment first
	words   []string          // what follows the options: command and hosts
	action  string            // the long name of the first option that says something and ends
	origin  map[string]string // what to call an option in a message, by its long name: -p, --fanout, MULTI_RSH_FANOUT
	past    *past             // whose options are among them; nil: none
}

// split takes args apart as getopt_long(3) does, which the flag package does not: letters may be joined (-SN) and hold their
// value (-p64, -wn1), -- ends the options. Unlike GNU's, and like ssh(1)'s, it ends at the first word that is no option, so
// that the remote command keeps its own. getenv gives the options that args do not.
func (l *commandLine) split(args []string, getenv func(string) string) (*arguments, error) {
	a := &arguments{line: l, origin: map[string]string{}}
	for len(args) > 0 {
		arg := args[0]
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			break
		}
		args = args[1:]
		if arg == "--" {
			break
		}
		var err error
		if long, isLong := strings.CutPrefix(arg, "--"); isLong {
			args, err = a.long(long, args)
		} else {
			args, err = a.letters(arg[1:], args)
		}
		if err != nil {
			return nil, err
		}
	}
	a.words = args
	if err := a.environment(getenv); err != nil {
		return nil, err
	}
	return a, nil
}

// optionsFirst moves the options, which may stand anywhere before --, to where split looks for them.
func (l *commandLine) optionsFirst(args []string) ([]string, error) {
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
			o, as, err := l.needsNext(arg)
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
func (l *commandLine) needsNext(arg string) (o *option, as string, err error) {
	if name, isLong := strings.CutPrefix(arg, "--"); isLong {
		if o := l.byLong(name); o != nil && o.arg != "" && o.unless == "" {
			return o, arg, nil
		}
		return nil, "", nil
	}
	for i, letter := range arg[1:] {
		o := l.byLetter(letter)
		if o == nil {
			if l.unknown != nil {
				return nil, "", l.unknown(letter, arg)
			}
			return nil, "", l.unknownLetter("-"+string(letter), arg[1+i:])
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

// long takes --name or --name=value, and gives back the arguments that are left.
func (a *arguments) long(text string, rest []string) ([]string, error) {
	name, value, hasValue := strings.Cut(text, "=")
	o := a.line.byLong(name)
	switch {
	case o == nil:
		return nil, a.line.unknownLong(name)
	case hasValue || o.arg == "":
		if !hasValue {
			value = "true"
		}
	case o.unless != "":
		value = o.unless
	case len(rest) == 0:
		return nil, needsValue(o, "--"+name)
	default:
		value, rest = rest[0], rest[1:]
	}
	return rest, a.add(o, "--"+name, value)
}

// letters takes the text after a single dash.
func (a *arguments) letters(text string, rest []string) ([]string, error) {
	for text != "" {
		letter, size := utf8.DecodeRuneInString(text)
		as, after := "-"+text[:size], text[size:]
		o := a.line.byLetter(letter)
		switch {
		case o == nil:
			return nil, a.line.unknownLetter(as, text)
		case o.arg == "":
			if err := a.add(o, as, "true"); err != nil {
				return nil, err
			}
			text = after
			continue
		case after != "":
			return rest, a.add(o, as, after)
		case len(rest) == 0:
			return nil, needsValue(o, as)
		}
		return rest[1:], a.add(o, as, rest[0])
	}
	return rest, nil
}

// add notes an option that was written as `as`.
func (a *arguments) add(o *option, as, value string) error {
	if before, given := a.origin[o.name]; given && !o.many {
		if before == as {
			return usagef("%s is given twice; give it once", as)
		}
		return usagef("%s and %s are the same option, given twice; give it once", before, as)
	}
	if o.arg == "" {
		on, known := parseSwitch(value)
		if !known {
			return usagef("%s is a switch, so its value is true or false, not %q", as, value)
		}
		value = fmt.Sprint(on)
	} else if value == "" {
		return needsValue(o, as)
	}
	a.origin[o.name] = as
	if o.action {
		if a.action == "" && value == "true" {
			a.action = o.name
		}
		return nil
	}
	a.options = append(a.options, "--"+o.name+"="+value)
	return nil
}

// together are options of which one is enough: where one of them is given, all of them are settled for what counts less, as the
// environment does beside the command line.
var together = [][]string{{"hosts", "group", "all", "hosts-file"}, {"ask-pass", "askpass-command"}}

// settled are the options that need nothing more, by their long names.
func (a *arguments) settled() map[string]bool {
	settled := map[string]bool{}
	for name := range a.origin {
		settled[name] = true
	}
	for _, names := range together {
		if slices.ContainsFunc(names, func(name string) bool { return a.origin[name] != "" }) {
			for _, name := range names {
				settled[name] = true
			}
		}
	}
	return settled
}

// environment adds what the environment sets and the command line does not.
func (a *arguments) environment(getenv func(string) string) error {
	settled := a.settled()
	for _, o := range a.line.options {
		variable, value := o.environ(), getenv(o.environ())
		if o.action || value == "" || settled[o.name] {
			continue
		}
		if on, known := parseSwitch(value); o.weakens && !(o.arg == "" && known && !on) {
			return notHeeded(variable, o.usage())
		}
		if err := a.add(o, variable, value); err != nil {
			return err
		}
	}
	return nil
}

const byHandAlone = "what can make a run less safe is for the command line alone"

// notHeeded refuses to be made less safe by a variable or a configuration.
func notHeeded(what, option string) error {
	undo := "remove it"
	if strings.HasPrefix(what, "MULTI_RSH_") {
		undo = "unset it"
	}
	return usagef("%s is not heeded: %s; %s, and write %s where you mean it", what, byHandAlone, undo, option)
}

// defaults adds what a configuration file sets and nothing before it does. A verb may have an option of its own by the name of a
// run's: the file means the run's.
func (a *arguments) defaults(f *configFile) error {
	settled := a.settled()
	for _, o := range f.options {
		if settled[o.name] || !slices.Contains(a.line.options, o.option) {
			continue
		}
		for _, value := range o.values {
			if err := a.add(o.option, o.as, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// values hands the options to the library, which holds them from then on.
func (a *arguments) values() (values *cli.Context, err error) {
	app := &cli.App{
		Name: a.line.name,
		// A command line has no commands of its own, so a remote command of any name runs; help and version are options of ours.
		HideHelp: true, HideHelpCommand: true, HideVersion: true,
		// A comma belongs to the host expression.
		DisableSliceFlagSeparator: true,
		// The library would exit by itself for errors that carry a code.
		ExitErrHandler: func(*cli.Context, error) {},
		Writer:         io.Discard, ErrWriter: io.Discard,
		Action: func(ctx *cli.Context) error {
			values = ctx
			return nil
		},
	}
	for _, o := range a.line.options {
		if !o.action {
			app.Flags = append(app.Flags, o.flag())
		}
	}
	argv := append(append([]string{app.Name}, a.options...), "--")
	return values, app.Run(append(argv, a.words...))
}

func needsValue(o *option, as string) error {
	return usagef("%s needs a value: %s%s, %s", as, as, strings.Trim(o.value(), "[]"), o.text)
}

func parseSwitch(text string) (on, known bool) {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		return true, true
	case "false", "no", "off", "0":
		return false, true
	}
	return false, false
}

// unknownLong names the nearest option.
func (l *commandLine) unknownLong(name string) error {
	var names []string
	for _, o := range l.options {
		names = append(names, o.name)
	}
	best := nearest(name, names)
	if best == "" {
		return usagef("unknown option --%s; %s --help lists the options", name, l.name)
	}
	return usagef("unknown option --%s; did you mean --%s?", name, best)
}

// nearest is the one of the names that begins as name does, or is a slip of at most two keys away from it, but not of all of its keys;
// "": none is.
func nearest(name string, names []string) string {
	best, distance := "", 3
	for _, n := range names {
		if len(name) > 1 && strings.HasPrefix(n, name) {
			return n
		}
		if d := slips(name, n); d < distance && d < len(name) {
			best, distance = n, d
		}
	}
	return best
}

// elsewhere are letters of related programs that are not needed here.
var elsewhere = map[string]string{
	"-s": "standard error is always kept apart, without an option (--merge joins the two)",
	"-n": "the command reads nothing, without an option (--input gives it something to read)",
}

// unknownLetter is about the letter `as`, with which text begins.
func (l *commandLine) unknownLetter(as, text string) error {
	if name, _, _ := strings.Cut(text, "="); l.byLong(name) != nil {
		return usagef("unknown option -%s; did you mean --%s?", name, name)
	}
	if why := elsewhere[as]; why != "" {
		return usagef("unknown option %s: %s", as, why)
	}
	for _, other := range []string{strings.ToLower(as), strings.ToUpper(as)} {
		if o := l.byLetter(rune(other[1])); o != nil {
			return usagef("unknown option %s; did you mean %s (--%s)?", as, other, o.name)
		}
	}
	return usagef("unknown option %s; %s --help lists the options", as, l.name)
}

// slips counts the keys to insert, delete or change to make b of a (Levenshtein's distance).
func slips(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
