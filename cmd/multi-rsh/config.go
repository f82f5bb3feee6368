package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// config is what the command line and the environment ask for, checked as far as it can be without reading a file of hosts.
type config struct {
	hosts     []string // expressions, one an argument; of -w, or the words after the command
	exclude   []string
	hostsFile string // "-" is standard input; set when hosts is empty
	command   string

	fanout         int
	timeout        time.Duration // 0: none
	connectTimeout time.Duration
	user           string // for hosts that name none; "": the transport's own
	transport      string // for hosts that name none; "": there is no default
	input          string // "-" is standard input; "": none

	failFast, noLabels, quiet, largestStatus, merge, plain, killOnDisconnect bool

	action string // help, man or version: say that and end; then nothing above is set
}

const (
	defaultFanout         = 64
	defaultConnectTimeout = 10 * time.Second
)

// configure makes the configuration of a command line. Its errors are usageErrors.
func configure(args []string, getenv func(string) string) (*config, error) {
	a, err := split(args, getenv)
	if err != nil {
		return nil, err
	}
	if a.action != "" {
		return &config{action: a.action}, nil
	}
	var c *config
	app := &cli.App{
		Name: "multi-rsh",
		// The run has no commands of its own, so a remote command of any name runs; help and version are options of ours.
		HideHelp: true, HideHelpCommand: true, HideVersion: true,
		// A comma belongs to the host expression.
		DisableSliceFlagSeparator: true,
		// The library would exit by itself for errors that carry a code.
		ExitErrHandler: func(*cli.Context, error) {},
		Writer:         io.Discard, ErrWriter: io.Discard,
		Action: func(ctx *cli.Context) (err error) {
			c, err = a.config(ctx, getenv)
			return err
		},
	}
	for _, o := range options {
		if !o.action {
			app.Flags = append(app.Flags, o.flag())
		}
	}
	argv := append(append([]string{app.Name}, a.options...), "--")
	if err := app.Run(append(argv, a.words...)); err != nil {
		return nil, err
	}
	return c, nil
}

// config reads the parsed options.
func (a *arguments) config(ctx *cli.Context, getenv func(string) string) (*config, error) {
	c := &config{
		hosts:     ctx.StringSlice("hosts"),
		exclude:   ctx.StringSlice("exclude"),
		hostsFile: ctx.String("hosts-file"),
		user:      ctx.String("user"),
		transport: ctx.String("transport"),
		input:     ctx.String("input"),

		fanout:         defaultFanout,
		connectTimeout: defaultConnectTimeout,

		failFast:         ctx.Bool("fail-fast"),
		noLabels:         ctx.Bool("no-labels"),
		quiet:            ctx.Bool("quiet"),
		largestStatus:    ctx.Bool("largest-status"),
		merge:            ctx.Bool("merge"),
		plain:            ctx.Bool("plain"),
		killOnDisconnect: ctx.Bool("kill-on-disconnect"),
	}
	for _, step := range []func() error{
		func() error { return a.fanout(ctx, c) },
		func() error { return a.time(ctx, "timeout", &c.timeout) },
		func() error { return a.time(ctx, "connect-timeout", &c.connectTimeout) },
		func() error { return a.user(c) },
		func() error { return a.transport(c) },
		func() error { return a.hostsAndCommand(c, getenv) },
		func() error { return a.contradictions(c) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (a *arguments) fanout(ctx *cli.Context, c *config) error {
	text := ctx.String("fanout")
	if text == "" {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 {
		return usagef("%s %q: the fan-out is how many hosts run at once, a whole number from 1, as 64", a.origin["fanout"], text)
	}
	c.fanout = int(n)
	return nil
}

// time reads a number of seconds or a duration as time.ParseDuration has it.
func (a *arguments) time(ctx *cli.Context, name string, into *time.Duration) error {
	text := ctx.String(name)
	if text == "" {
		return nil
	}
	duration, err := time.ParseDuration(text)
	if bare, notBare := time.ParseDuration(text + "s"); notBare == nil && strings.Trim(text, "0123456789.") == "" {
		duration, err = bare, nil
	}
	if err != nil || duration <= 0 {
		return usagef("%s %q: a time is a number of seconds above 0 or as 2m, 1h30m, 500ms; --timeout is for the whole of each host, --connect-timeout for getting through to it", a.origin[name], text)
	}
	*into = duration
	return nil
}

var (
	seconds  = regexp.MustCompile(`^[0-9.]+(ms|s|m|h)?$`)
	userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]*\$?$`)
)

// user refuses what pdsh and clush mean by -u: a time.
func (a *arguments) user(c *config) error {
	if seconds.MatchString(c.user) {
		return usagef("%s %s: this is the user on the hosts; for a time limit write -t %s (the whole of each host) or --connect-timeout %s",
			a.origin["user"], c.user, c.user, c.user)
	}
	return nil
}

// noDefault is said whenever a host would be reached by the default transport, or by ssh.
const noDefault = "the default transport, ssh, is not in this version; write -R rsh (or -R exec for local commands), or name a transport for each host in the hosts file"

func (a *arguments) transport(c *config) error {
	switch c.transport {
	case "", "rsh", "exec":
		return nil
	case "ssh":
		return usagef("%s ssh: %s", a.origin["transport"], noDefault)
	}
	return usagef("%s %s: there is no such transport; it is rsh or exec", a.origin["transport"], c.transport)
}

// hostsAndCommand tells the hosts from the command. Where an option or WCOLL gives the hosts all words are the command;
// otherwise the first one is, and the others are hosts.
func (a *arguments) hostsAndCommand(c *config, getenv func(string) string) error {
	fileAs := a.origin["hosts-file"]
	if len(c.hosts) == 0 && c.hostsFile == "" {
		// As in pdsh, the variable counts only when nothing else gives hosts, and -x takes from it.
		c.hostsFile, fileAs = getenv("WCOLL"), "WCOLL"
	}
	switch {
	case len(c.hosts) > 0 && c.hostsFile != "":
		return usagef("%s and %s both say which hosts; give one of them, and -x to leave hosts out", a.origin["hosts"], fileAs)
	case len(a.words) == 0:
		return usagef("no command: write multi-rsh [options] \"command\" host... (multi-rsh --help shows more)")
	case c.hostsFile != "":
		c.command = strings.Join(a.words, " ")
		if err := checkHostsFile(fileAs, c.hostsFile); err != nil {
			return err
		}
	case len(c.hosts) > 0:
		c.command = strings.Join(a.words, " ")
	case len(a.words) == 1:
		return usagef("no hosts: name them after the command, %q host..., or by -w or -l", a.words[0])
	default:
		c.command, c.hosts = a.words[0], a.words[1:]
		for _, word := range c.hosts {
			if strings.HasPrefix(word, "-") {
				return usagef("%q is not a host; options come before the command, and a command of several words is quoted when hosts follow it", word)
			}
		}
	}
	if strings.TrimSpace(c.command) == "" {
		return usagef("the command is empty; write multi-rsh [options] \"command\" host...")
	}
	return nil
}

// checkHostsFile knows what -l means in rsh, ssh, pdsh and clush: a user.
func checkHostsFile(as, name string) error {
	if name == "-" {
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
	case c.transport == "exec" && (strings.HasPrefix(a.origin["plain"], "-") || strings.HasPrefix(a.origin["kill-on-disconnect"], "-")):
		return usagef("--plain and --kill-on-disconnect are for rsh; -R exec has no connection, so leave them out")
	case c.plain && c.killOnDisconnect:
		return usagef("--plain sends the bare text, and --kill-on-disconnect needs what --plain leaves out; give one of them")
	case c.plain && c.input != "":
		return usagef("--plain sends the bare text, and --input needs what --plain leaves out; give one of them")
	case c.plain && c.largestStatus:
		return usagef("with --plain no exit status is known, so -S has nothing to tell; give one of them")
	}
	return nil
}
