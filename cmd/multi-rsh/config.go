package main

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"multirsh/transport/ssh"
	"multirsh/transport/ssh/sshconfig"
)

// config is what the command line and the environment ask for, checked as far as it can be without reading a file of hosts.
type config struct {
	hosts     []string // expressions, one an argument; of -w, or the words after the command
	exclude   []string
	hostsFile string // "-" is standard input; set when hosts is empty
	command   string

	fanout         int
	timeout        time.Duration // 0: none
	connectTimeout time.Duration // 0: the transport's own, which for ssh may be ssh_config's
	user           string        // for hosts that name none; "": the transport's own
	transport      string        // for hosts that name none
	input          string        // "-" is standard input; "": none

	failFast, noLabels, quiet, largestStatus, merge, plain, killOnDisconnect bool

	sshConfig      string     // as sshconfig.Sources has it
	sshOptions     []string   // the same, checked one by one; those of --jump and --identity go first
	hostKeys       ssh.Policy // "": ssh_config's
	askPass        bool
	askpassCommand string
	retries        int // as ssh.Transport has it

	sh, tty, forwardAgent, legacy bool

	given map[string]string // what to call an option that is not for all transports, by its long name, if it is on the command line

	action string // help, man or version: say that and end; then nothing above is set
}

const (
	defaultFanout    = 64
	defaultTransport = "ssh"
)

// configure makes the configuration of a command line. Its errors are usageErrors.
func configure(args []string, getenv func(string) string) (*config, error) {
	a, err := runLine.split(args, getenv)
	if err != nil {
		return nil, err
	}
	if a.action != "" {
		return &config{action: a.action}, nil
	}
	ctx, err := a.values()
	if err != nil {
		return nil, err
	}
	return a.config(ctx, getenv)
}

// config reads the parsed options.
func (a *arguments) config(ctx *cli.Context, getenv func(string) string) (*config, error) {
	c := &config{
		hosts:     ctx.StringSlice("hosts"),
		exclude:   ctx.StringSlice("exclude"),
		hostsFile: ctx.String("hosts-file"),
		user:      ctx.String("user"),
		input:     ctx.String("input"),

		fanout:    defaultFanout,
		transport: defaultTransport,

		failFast:         ctx.Bool("fail-fast"),
		noLabels:         ctx.Bool("no-labels"),
		quiet:            ctx.Bool("quiet"),
		largestStatus:    ctx.Bool("largest-status"),
		merge:            ctx.Bool("merge"),
		plain:            ctx.Bool("plain"),
		killOnDisconnect: ctx.Bool("kill-on-disconnect"),

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
		if as := a.origin[o.name]; o.only != "" && strings.HasPrefix(as, "-") && (o.arg != "" || ctx.Bool(o.name)) {
			c.given[o.name] = as
		}
	}
	for _, step := range []func() error{
		func() error { return a.fanout(ctx, c) },
		func() error { return a.time(ctx, "timeout", &c.timeout) },
		func() error { return a.time(ctx, "connect-timeout", &c.connectTimeout) },
		func() error { return a.user(c) },
		func() error { return a.transport(ctx, c) },
		func() error { return a.hostKeys(c) },
		func() error { return a.retries(ctx, c) },
		func() error { return a.sshOptions(ctx, c) },
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
			return unsafeVariable(as+"="+string(c.hostKeys), "--host-keys "+string(c.hostKeys))
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
	case c.askPass && c.askpassCommand != "":
		return usagef("%s and %s both give the password; give one of them", a.origin["ask-pass"], a.origin["askpass-command"])
	case c.tty && c.input != "":
		return usagef("--tty gives the command a terminal, which has no end of input as a file has; give --tty or --input, not both")
	}
	return nil
}
