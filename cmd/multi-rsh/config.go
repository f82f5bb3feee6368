package main

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"multirsh/transport/ssh"
	"multirsh/transport/ssh/sshconfig"
)

// config is what command line, environment and configuration files ask for, checked as far as it can be without reading a file
// of hosts.
type config struct {
	choice
	limits  []labelLimit
	command string // "": only with dryRun

	fanout         int
	timeout        time.Duration // 0: none
	connectTimeout time.Duration // 0: the transport's own, which for ssh may be ssh_config's
	user           string        // for hosts that name none; "": the transport's own
	transport      string        // for hosts that name none
	input          string        // "-" is standard input; "": none

	dryRun, failFast, largestStatus, merge, plain, killOnDisconnect, noJournal bool

	subst, argv, explain, stats bool
	script                      string   // a local file, "-": standard input; "": none
	words                       []string // its arguments
	title                       string   // what to call the command, if that is not its text

	settled []string // all options that were given, those of past included
	past    *past    // nil: nothing is gone on with
	leftOut int      // hosts of past that ought to run, and do not

	policies
	view
	progress string // auto, plain or none

	sshConfig      string     // as sshconfig.Sources has it
	sshOptions     []string   // the same, checked one by one; those of --jump and --identity go first
	hostKeys       ssh.Policy // "": ssh_config's
	askPass        bool
	askpassCommand string
	retries        int // as ssh.Transport has it

	sh, tty, forwardAgent, legacy bool

	given map[string]string // what to call an option that is on the command line, by its long name

	action string // help, man or version: say that and end; then nothing above is set
	topic  string // the first word then
}

// choice is which hosts are meant, and what to choose from.
type choice struct {
	include   []string // expressions, in the order of the command line; none: all of hostsFile
	exclude   []string
	hostsFile string   // "-" is standard input; "": none
	inventory []string // hosts files to choose from where there is no hostsFile; nil: those that are usually there
	pick      int      // so many of them, at random; 0: all
	dup       bool
	bare      bool // --config none: nothing that is usually there is looked for
	files     []*configFile
}

// labelLimit is a --limit-by.
type labelLimit struct {
	label string
	n     int
}

const (
	defaultFanout    = 64
	defaultTransport = "ssh"
)

// configure makes the configuration of a run. Its errors are usageErrors.
func (e *env) configure() (*config, error) {
	a, err := runLine.split(e.Args, e.Getenv)
	if err != nil {
		return nil, err
	}
	if a.action != "" {
		c := &config{action: a.action}
		if len(a.words) > 0 {
			c.topic = a.words[0]
		}
		return c, nil
	}
	values, files, err := e.settle(a)
	if err != nil {
		return nil, err
	}
	return a.config(values, files, e.Getenv)
}

// settle adds to what a command line and the environment say what the configuration files do, which it returns, too.
func (e *env) settle(a *arguments) (*cli.Context, []*configFile, error) {
	values, err := a.values()
	if err != nil {
		return nil, nil, err
	}
	named := values.String("config")
	files, err := e.configFiles(named)
	if errors.Is(err, fs.ErrNotExist) {
		err = usagef("%s %s: there is no such file; --config none goes without", a.origin["config"], named)
	}
	if err != nil || len(files) == 0 {
		return values, nil, err
	}
	for _, f := range files {
		if err := a.defaults(f); err != nil {
			return nil, nil, err
		}
	}
	values, err = a.values()
	return values, files, err
}

// config reads the parsed options.
func (a *arguments) config(ctx *cli.Context, files []*configFile, getenv func(string) string) (*config, error) {
	c := &config{
		user:  ctx.String("user"),
		input: ctx.String("input"),

		fanout:    defaultFanout,
		transport: defaultTransport,

		dryRun:           ctx.Bool("dry-run"),
		failFast:         ctx.Bool("fail-fast"),
		largestStatus:    ctx.Bool("largest-status"),
		merge:            ctx.Bool("merge"),
		plain:            ctx.Bool("plain"),
		killOnDisconnect: ctx.Bool("kill-on-disconnect"),
		noJournal:        ctx.Bool("no-journal"),
		subst:            ctx.Bool("subst"),
		argv:             ctx.Bool("argv"),
		explain:          ctx.Bool("explain"),
		stats:            ctx.Bool("stats"),
		script:           ctx.String("script"),

		settled: a.options,
		past:    a.past,

		sshConfig:      ctx.String("ssh-config"),
		hostKeys:       ssh.Policy(ctx.String("host-keys")),
		askPass:        ctx.Bool("ask-pass"),
		askpassCommand: ctx.String("askpass-command"),
		sh:             ctx.Bool("sh"),
		tty:            ctx.Bool("tty"),
		forwardAgent:   ctx.Bool("forward-agent"),
		legacy:         ctx.Bool("legacy"),

		given: map[string]string{},
	}
	for _, o := range a.line.options {
		if as := a.origin[o.name]; strings.HasPrefix(as, "-") && (o.arg != "" || ctx.Bool(o.name)) && !a.past.has(o.name) {
			c.given[o.name] = as
		}
	}
	for _, step := range []func() error{
		func() (err error) { c.choice, err = a.choice(ctx, files); return err },
		func() error { return a.fanout(ctx, c) },
		func() error { return a.limits(ctx, c) },
		func() error { return a.time(ctx, "timeout", &c.timeout) },
		func() error { return a.time(ctx, "connect-timeout", &c.connectTimeout) },
		func() error { return a.user(c) },
		func() error { return a.transport(ctx, c) },
		func() error { return a.hostKeys(c) },
		func() error { return a.retries(ctx, c) },
		func() error { return a.sshOptions(ctx, c) },
		func() (err error) { c.policies, err = a.policies(ctx); return err },
		func() (err error) { c.view, err = a.view(ctx); return err },
		func() (err error) {
			c.progress, err = a.oneOf(ctx, "progress", "how the progress of a run is shown", "auto", "plain", "none")
			return err
		},
		func() error { return a.exit(ctx, c) },
		func() error { return a.hostsAndCommand(c, getenv) },
		c.checkTemplate,
		func() error { return a.contradictions(c) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// choice reads the options that say which hosts. A command line that has not all of them has not given them.
func (a *arguments) choice(ctx *cli.Context, files []*configFile) (choice, error) {
	c := choice{
		hostsFile: ctx.String("hosts-file"),
		inventory: ctx.StringSlice("inventory"),
		dup:       ctx.Bool("dup"),
		bare:      ctx.String("config") == "none",
		files:     files,
	}
	// In their order, since an expression may take from what stands before it.
	for _, text := range a.options {
		name, value, _ := strings.Cut(strings.TrimPrefix(text, "--"), "=")
		var err error
		switch name {
		case "hosts":
			c.include = append(c.include, value)
		case "exclude":
			c.exclude = append(c.exclude, value)
		case "all":
			if value == "true" {
				c.include = append(c.include, "@*")
			}
		case "group":
			value, err = groupsOf(a.origin[name], value)
			c.include = append(c.include, value)
		case "exclude-group":
			value, err = groupsOf(a.origin[name], value)
			c.exclude = append(c.exclude, value)
		}
		if err != nil {
			return c, err
		}
	}
	n, err := a.number(ctx, "pick", "how many of the hosts to take", "3")
	c.pick = n
	return c, err
}

// groupsOf is the host expression for the groups of a -g: @ before each of them, which commas part.
func groupsOf(as, text string) (string, error) {
	var b strings.Builder
	depth := 0
	first := true
	for _, r := range text {
		if first && r != '@' {
			b.WriteByte('@')
		}
		first = r == ',' && depth == 0
		switch r {
		case '[':
			depth++
		case ']':
			depth--
		case ' ', '\t', '\n', '!', '&', '^':
			return "", usagef("%s %q: this takes groups with commas between them; an expression is for -w or -x, with @ before each group, as -w '@web!@old'", as, text)
		}
		b.WriteRune(r)
	}
	return b.String(), nil
}

// number reads a whole number from 1; 0 where the option is not given.
func (a *arguments) number(ctx *cli.Context, name, what, example string) (int, error) {
	text := ctx.String(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 {
		return 0, usagef("%s %q: this is %s, a whole number from 1, as %s", a.origin[name], text, what, example)
	}
	return int(n), nil
}

func (a *arguments) fanout(ctx *cli.Context, c *config) error {
	n, err := a.number(ctx, "fanout", "how many hosts run at once", "64")
	if n > 0 {
		c.fanout = n
	}
	return err
}

// exit reads which status ours is.
func (a *arguments) exit(ctx *cli.Context, c *config) error {
	how, err := a.oneOf(ctx, "exit", "which exit status is ours", "any", "max")
	if err == nil && how == "any" && ctx.String("exit") != "" && c.largestStatus {
		err = usagef("%s asks for 1 where a host is not ok, and %s for the largest of their statuses; give one of them", a.origin["exit"], a.origin["largest-status"])
	}
	c.largestStatus = c.largestStatus || how == "max"
	return err
}

var labelAndNumber = regexp.MustCompile(`^([\pL\pN._-]+)=([0-9]+)$`)

func (a *arguments) limits(ctx *cli.Context, c *config) error {
	for _, text := range ctx.StringSlice("limit-by") {
		parts := labelAndNumber.FindStringSubmatch(text)
		if parts == nil {
			return usagef("%s %q: this is a label and how many of the hosts with the same value of it run at once, as rack=2", a.origin["limit-by"], text)
		}
		n, err := strconv.ParseUint(parts[2], 10, 31)
		if err != nil || n == 0 {
			return usagef("%s %q: %s is no number of hosts, which is a whole number from 1, as 2", a.origin["limit-by"], text, parts[2])
		}
		if slices.ContainsFunc(c.limits, func(l labelLimit) bool { return l.label == parts[1] }) {
			return usagef("%s %q: %s has a limit already; give it once", a.origin["limit-by"], text, parts[1])
		}
		c.limits = append(c.limits, labelLimit{parts[1], int(n)})
	}
	return nil
}

func (a *arguments) time(ctx *cli.Context, name string, into *time.Duration) error {
	text := ctx.String(name)
	if text == "" {
		return nil
	}
	duration, err := parseTime(text)
	if err != nil {
		return usagef("%s %q: %v; --timeout is for the whole of each host, --connect-timeout for getting through to it", a.origin[name], text, err)
	}
	*into = duration
	return nil
}

// parseTime reads a number of seconds or a duration as time.ParseDuration has it.
func parseTime(text string) (time.Duration, error) {
	duration, err := time.ParseDuration(text)
	if bare, notBare := time.ParseDuration(text + "s"); notBare == nil && strings.Trim(text, "0123456789.") == "" {
		duration, err = bare, nil
	}
	if err != nil || duration <= 0 {
		return 0, errors.New("a time is a number of seconds above 0 or as 2m, 1h30m, 500ms")
	}
	return duration, nil
}

var (
	seconds  = regexp.MustCompile(`^[0-9.]+(ms|s|m|h)?$`)
	userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]*\$?$`)
)

// user refuses what pdsh and clush mean by -u, a time, and what no user is called.
func (a *arguments) user(c *config) error {
	if seconds.MatchString(c.user) {
		return usagef("%s %s: this is the user on the hosts; for a time limit write -t %s (the whole of each host) or --connect-timeout %s",
			a.origin["user"], c.user, c.user, c.user)
	}
	name := strings.TrimSuffix(c.user, "$") // of an account of a machine
	if c.user != "" && (name == "" || name[0] == '-' || strings.ContainsAny(name, "'`\";&<>|(){}$\\ \t\r\n")) {
		return usagef("%s %q: a user's name does not begin with a dash, and has no blanks in it and nothing that a shell gives a meaning", a.origin["user"], c.user)
	}
	return nil
}

func (a *arguments) transport(ctx *cli.Context, c *config) error {
	text := ctx.String("transport")
	switch text {
	case "":
	case "ssh", "rsh", "exec":
		c.transport = text
	default:
		return usagef("%s %s: there is no such transport; it is ssh, rsh or exec", a.origin["transport"], text)
	}
	return nil
}

func (a *arguments) hostKeys(c *config) error {
	as := a.origin["host-keys"]
	switch c.hostKeys {
	case ssh.FromConfig, ssh.Strict, ssh.AcceptNew, ssh.Ask:
	case ssh.Ignore:
		if !strings.HasPrefix(as, "-") {
			return notHeeded(as+"="+string(c.hostKeys), "--host-keys "+string(c.hostKeys))
		}
	default:
		return usagef("%s %s: what to do about unknown host keys is strict (refuse them), accept-new, ask, or insecure-ignore", as, c.hostKeys)
	}
	return nil
}

func (a *arguments) retries(ctx *cli.Context, c *config) error {
	text := ctx.String("connect-retries")
	if text == "" {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return usagef("%s %q: this is how often a connection is tried again that a server has dropped, a whole number from 0, as 3", a.origin["connect-retries"], text)
	}
	if c.retries = int(n); n == 0 {
		c.retries = -1
	}
	return nil
}

// sshOptions gathers the lines of ssh_config(5) that the options stand for. In OpenSSH, too, the first one that is set counts.
func (a *arguments) sshOptions(ctx *cli.Context, c *config) error {
	add := func(name, value, line string) error {
		// Nothing of a user or a machine matters to whether a line is right.
		_, err := sshconfig.Read(sshconfig.Sources{File: "none", Options: []string{line}, Home: "/", LocalUser: "user", LocalHost: "host"})
		if err != nil {
			return usagef("%s %s: %s", a.origin[name], value, strings.TrimPrefix(err.Error(), "-o "+line+": "))
		}
		c.sshOptions = append(c.sshOptions, line)
		return nil
	}
	if jump := ctx.String("jump"); jump != "" {
		if err := add("jump", jump, "ProxyJump="+jump); err != nil {
			return err
		}
	}
	for _, file := range ctx.StringSlice("identity") {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(file, "~%$") { // ssh_config(5) gives those a meaning
			return usagef("%s %s: there is no such file; name the file of a private key", a.origin["identity"], file)
		}
		line := `IdentityFile="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(file) + `"`
		if err := add("identity", file, line); err != nil {
			return err
		}
	}
	for _, line := range ctx.StringSlice("ssh-option") {
		if err := add("ssh-option", line, line); err != nil {
			return err
		}
	}
	return nil
}

// hostsAndCommand tells the hosts from the command. Where an option or WCOLL gives the hosts all words are the command;
// otherwise the first one is, and the others are hosts.
func (a *arguments) hostsAndCommand(c *config, getenv func(string) string) error {
	if a.past != nil {
		c.command, c.title, c.input = a.past.run.Head.Command, a.past.title, a.past.input
		return nil
	}
	fileAs := a.origin["hosts-file"]
	if len(c.include) == 0 && c.hostsFile == "" {
		// As in pdsh, the variable counts only when nothing else gives hosts, and -x takes from it.
		c.hostsFile, fileAs = getenv("WCOLL"), "WCOLL"
	}
	if err := a.checkHostsFile(fileAs, &c.choice); err != nil {
		return err
	}
	byOption := c.hostsFile != "" || len(c.include) > 0
	switch {
	case c.script != "" && !byOption:
		return usagef("%s: no hosts: what follows are the script's arguments, so name the hosts by -w, -g, -a or -l", a.origin["script"])
	case c.argv && !byOption:
		return usagef("%s: no hosts: all words are the command's, so name the hosts by -w, -g, -a or -l", a.origin["argv"])
	case c.script != "":
		c.words = a.words
		c.title = strings.Join(append([]string{c.script}, a.words...), " ")
		return nil
	case c.argv && len(a.words) > 0:
		c.command = quoteWords(a.words)
	case byOption:
		c.command = strings.Join(a.words, " ")
		if len(a.words) == 0 && c.dryRun {
			return nil
		}
	case len(a.words) == 1:
		return usagef("no hosts: name them after the command, %q host..., or by -w, -g, -a or -l", a.words[0])
	case len(a.words) > 0:
		c.command, c.include = a.words[0], a.words[1:]
		for _, word := range c.include {
			if strings.HasPrefix(word, "-") && !strings.HasPrefix(word, "-/") {
				return usagef("%q is not a host; options come before the command, and a command of several words is quoted when hosts follow it", word)
			}
		}
	}
	if len(a.words) == 0 {
		return usagef("no command: write multi-rsh [options] \"command\" host... (multi-rsh --help shows more)")
	}
	if strings.TrimSpace(c.command) == "" {
		return usagef("the command is empty; write multi-rsh [options] \"command\" host...")
	}
	return nil
}

// checkHostsFile looks at the file of -l, which as names. It knows what -l means in rsh, ssh, pdsh and clush: a user.
func (a *arguments) checkHostsFile(as string, c *choice) error {
	name := c.hostsFile
	switch inventory := a.origin["inventory"]; {
	case name == "":
		return nil
	case len(c.inventory) > 0 && strings.HasPrefix(inventory, "-"):
		return usagef("%s and %s both say what to choose hosts from; give one of them, --inventory as often as there are files", as, inventory)
	case name == "-":
		return nil
	}
	_, err := os.Stat(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return nil // read later, and its errors said then
	}
	if as == "-l" && userName.MatchString(name) {
		return usagef("-l %s: there is no such file, and -l is the hosts file; for the user on the hosts write -u %s", name, name)
	}
	return usagef("%s %s: there is no such file", as, name)
}

func (a *arguments) contradictions(c *config) error {
	switch {
	case c.input == "-" && c.hostsFile == "-":
		return usagef("standard input cannot be both the hosts (-l -) and the input of the command (--input -); put one of them into a file")
	case c.askPass && c.askpassCommand != "":
		return usagef("%s and %s both give the password; give one of them", a.origin["ask-pass"], a.origin["askpass-command"])
	case c.script == "-" && (c.input == "-" || c.hostsFile == "-"):
		return usagef("standard input cannot be both the script (--script -) and %s; put one of them into a file", map[bool]string{true: "the hosts (-l -)", false: "the input of the command (--input -)"}[c.hostsFile == "-"])
	case c.tty && c.script != "":
		return usagef("--tty gives the command a terminal, and --script sends the script by what would be typed there; give one of them")
	case c.tty && c.input != "":
		return usagef("--tty gives the command a terminal, which has no end of input as a file has; give --tty or --input, not both")
	}
	return nil
}
