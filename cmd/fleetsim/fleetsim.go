//go:build unix

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"multirsh/transport/fleet"
	"multirsh/transport/rsh/rshtest"
	"multirsh/transport/ssh/sshtest"
)

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1 // it could not serve
	exitUsage   = 2 // it was called wrongly
)

// usageError is a mistake in the arguments.
type usageError struct{ error }

// run is the program with its surroundings passed in. It serves until ctx ends, and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := &cli.App{
		Name:            "fleetsim",
		Usage:           "serve a simulated fleet of rsh or SSH hosts on 127.1.0.1, 127.1.0.2 … of this machine",
		UsageText:       "fleetsim [options]",
		HideHelpCommand: true,
		Writer:          stdout,
		ErrWriter:       io.Discard, // errors are returned
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return usageError{err} },
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "protocol", Value: "rsh", Usage: "be hosts of `NAME`: rsh or ssh"},
			&cli.IntFlag{Name: "hosts", Value: 100, Usage: "`NUMBER` of hosts"},
			&cli.StringFlag{Name: "behaviour", Value: "ok", Usage: "one `BEHAVIOUR`, or several with their shares: ok:95%,stall=accept:5%"},
			&cli.Uint64Flag{Name: "seed", Usage: "another `NUMBER` gives other hosts the same shares"},
			&cli.IntFlag{Name: "port", Usage: "TCP `PORT` of all hosts; 0: any that is free", DefaultText: "514, ssh 22"},
			&cli.StringFlag{Name: "hosts-file", Usage: "write the hosts' addresses to `FILE`, one a line"},
			&cli.StringFlag{Name: "known-hosts", Usage: "ssh: write the line with the hosts' key to `FILE`, for -o UserKnownHostsFile"},
			&cli.StringFlag{Name: "identity", Usage: "ssh: let in who has the key that is made and written to `FILE`, for -i"},
			&cli.StringFlag{Name: "password-file", Usage: "ssh: let in who has the password that is made and written to `FILE`; without either, everybody is let in"},
			&cli.DurationFlag{Name: "for", Usage: "end after `DURATION`; otherwise at SIGINT or SIGTERM"},
			&cli.StringFlag{Name: "daemon", Value: "redone", Usage: "rsh: be like the rshd of `NAME`, redone or netkit"},
			&cli.StringFlag{Name: "shell", Value: "/bin/sh", Usage: "`PATH` of the login shell"},
			&cli.BoolFlag{Name: "any-port", Usage: "rsh: ask for no reserved ports and use none: needs no privileges, and is not what an rshd does"},
			&cli.BoolFlag{Name: "verbose", Usage: "log on standard error what does not go well"},
			&cli.BoolFlag{Name: "fast", Usage: "for benchmarks: run no command, answer with --output at once"},
			&cli.StringFlag{Name: "output", Value: "ok", Usage: "with --fast: the `TEXT` that a command prints, as a line"},
			&cli.IntFlag{Name: "output-bytes", Usage: "with --fast: print this `NUMBER` of bytes instead, in lines of 64"},
			&cli.DurationFlag{Name: "hold", Usage: "with --fast: the `DURATION` of a wrapped command, under ssh of any"},
		},
		CustomAppHelpTemplate: help(),
		Action: func(c *cli.Context) error {
			f, err := configure(c, stderr)
			if err != nil {
				return usageError{err}
			}
			return serve(ctx, f, filesOf(c), c.Duration("for"), stdout)
		},
	}
	err := app.Run(args)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "fleetsim: %v\n", err)
	if errors.As(err, new(usageError)) {
		return exitUsage
	}
	return exitFailure
}

// help is the text of --help: the options and the behaviours.
func help() string {
	var b strings.Builder
	b.WriteString(`{{.Name}} - {{.Usage}}

Usage: {{.UsageText}}

Options:
{{range .VisibleFlags}}   {{.}}
{{end}}
`)
	var rshPhases, sshPhases []string
	for _, p := range rshtest.Phases() {
		rshPhases = append(rshPhases, string(p))
	}
	for _, p := range sshtest.Phases() {
		sshPhases = append(sshPhases, string(p))
	}
	describe(&b, "Behaviours of rsh hosts", rshtest.Behaviours(), rshPhases)
	b.WriteByte('\n')
	describe(&b, "Behaviours of SSH hosts", sshtest.Behaviours(), sshPhases)
	return b.String()
}

// describe writes the behaviours of one protocol's hosts, documented alike.
func describe(b *strings.Builder, title string, docs []rshtest.Doc, phases []string) {
	fmt.Fprintf(b, "%s:\n", title)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, d := range docs {
		fmt.Fprintf(w, "   %s\t%s\n", d.Name, d.Text)
	}
	w.Flush()
	fmt.Fprintf(b, "PHASE is one of %s.\n", strings.Join(phases, ", "))
}

// configure makes the fleet that the options ask for.
func configure(c *cli.Context, stderr io.Writer) (*fleet.Fleet, error) {
	if c.NArg() > 0 {
		return nil, fmt.Errorf("no argument is wanted, and %q is one: options begin with --", c.Args().First())
	}
	f := &fleet.Fleet{Hosts: c.Int("hosts"), Seed: c.Uint64("seed"), Fast: c.Bool("fast"), Hold: c.Duration("hold")}
	port, hosts, bytes := c.Int("port"), c.Int("hosts"), c.Int("output-bytes")
	if err := configureProtocol(c, f); err != nil {
		return nil, err
	}
	if !c.IsSet("port") {
		port = standardPort(f)
	}
	f.Port = uint16(port)
	f.Server.Shell, f.Server.AnyPort = c.String("shell"), c.Bool("any-port")
	if c.Bool("verbose") {
		f.Server.Log = log.New(stderr, "fleetsim: ", log.Ltime|log.Lmsgprefix)
	}
	if f.SSH != nil {
		f.SSH.Shell, f.SSH.Log = f.Server.Shell, f.Server.Log
	}
	switch {
	case hosts < 1 || hosts > fleet.MaxHosts:
		return nil, fmt.Errorf("--hosts %d: the loopback network has room for 1 to %d", hosts, fleet.MaxHosts)
	case port < 0 || port > math.MaxUint16:
		return nil, fmt.Errorf("--port %d: a port is 1 to %d, and 0 means any that is free", port, math.MaxUint16)
	case c.Duration("for") < 0 || c.IsSet("for") && c.Duration("for") == 0:
		return nil, fmt.Errorf("--for %v: it must be a time to come, as 30s", c.Duration("for"))
	case c.Duration("hold") < 0:
		return nil, fmt.Errorf("--hold %v: a command cannot take less than no time", c.Duration("hold"))
	case bytes < 0:
		return nil, fmt.Errorf("--output-bytes %d: it cannot be less than 0", bytes)
	case !f.Fast && (c.IsSet("output") || c.IsSet("output-bytes") || c.IsSet("hold")):
		return nil, errors.New("--output, --output-bytes and --hold are for --fast: without it, hosts really run their commands")
	case c.IsSet("output") && c.IsSet("output-bytes"):
		return nil, errors.New("--output and --output-bytes: choose one of them")
	case c.IsSet("output-bytes"):
		f.Output = []byte(strings.Repeat(strings.Repeat("x", 63)+"\n", bytes/64+1)[:bytes])
	default:
		f.Output = []byte(c.String("output") + "\n")
	}
	if info, err := os.Stat(f.Server.Shell); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
		return nil, fmt.Errorf("--shell %s: that is not a program", f.Server.Shell)
	}
	return f, nil
}

// standardPort is the port that hosts have unless another is asked for.
func standardPort(f *fleet.Fleet) int {
	if f.SSH != nil {
		return 22
	}
	return 514
}

// configureProtocol makes f's hosts rsh or SSH hosts, with their behaviours and with what only one of the two has.
func configureProtocol(c *cli.Context, f *fleet.Fleet) (err error) {
	only := func(protocol string, names ...string) error {
		for _, name := range names {
			if c.IsSet(name) {
				return fmt.Errorf("--%s is for --protocol %s", name, protocol)
			}
		}
		return nil
	}
	switch name := c.String("protocol"); name {
	case "rsh":
		if err := only("ssh", "known-hosts", "identity", "password-file"); err != nil {
			return err
		}
		switch name := c.String("daemon"); name {
		case "redone":
			f.Server.Daemon = rshtest.Redone
		case "netkit":
			f.Server.Daemon = rshtest.Netkit
		default:
			return fmt.Errorf("--daemon %s: it is redone or netkit", name)
		}
		f.Shares, err = fleet.ParseShares(c.String("behaviour"))
	case "ssh":
		if err := only("rsh", "daemon", "any-port"); err != nil {
			return err
		}
		f.SSH = &sshtest.Server{}
		f.SSHShares, err = fleet.ParseSSHShares(c.String("behaviour"))
	default:
		return fmt.Errorf("--protocol %s: it is rsh or ssh", name)
	}
	if err != nil {
		return fmt.Errorf("--behaviour: %w", err)
	}
	return nil
}

// files are what a client needs; a name that is empty is not written.
type files struct {
	hosts, knownHosts, identity, password string
}

func filesOf(c *cli.Context) files {
	return files{c.String("hosts-file"), c.String("known-hosts"), c.String("identity"), c.String("password-file")}
}

// credentials makes what lets a client in, has f's hosts take it, and writes it down.
func (n files) credentials(f *fleet.Fleet) error {
	if n.identity == "" && n.password == "" {
		return nil
	}
	var user sshtest.User
	if n.identity != "" {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		key, err := ssh.NewPublicKey(public)
		if err != nil {
			return err
		}
		block, err := ssh.MarshalPrivateKey(private, "fleetsim")
		if err != nil {
			return err
		}
		user.Keys = append(user.Keys, key)
		if err := write(n.identity, 0o600, func(w io.Writer) error { return pem.Encode(w, block) }); err != nil {
			return err
		}
	}
	if n.password != "" {
		user.Password = rand.Text()
		user.Prompts = []sshtest.Prompt{{Question: "Password: ", Answer: user.Password}}
		err := write(n.password, 0o600, func(w io.Writer) error {
			_, err := io.WriteString(w, user.Password+"\n")
			return err
		})
		if err != nil {
			return err
		}
	}
	f.SSH.Users = map[string]sshtest.User{"": user} // whoever they say they are
	return nil
}

// addresses writes down where f's hosts are, and who.
func (n files) addresses(f *fleet.Fleet, port uint16) error {
	if n.hosts != "" {
		shown := port
		if int(port) == standardPort(f) {
			shown = 0
		}
		if err := write(n.hosts, 0o644, func(w io.Writer) error { return fleet.WriteHosts(w, f.Hosts, shown) }); err != nil {
			return err
		}
	}
	if n.knownHosts == "" {
		return nil
	}
	pattern := "127.*"
	if int(port) != standardPort(f) {
		pattern = fmt.Sprintf("[127.*]:%d", port)
	}
	return write(n.knownHosts, 0o644, func(w io.Writer) error {
		_, err := io.WriteString(w, sshtest.KnownHosts(f.SSH.HostKey(), pattern))
		return err
	})
}

// serve runs f until ctx ends or, when limit is not 0, until that time has passed.
func serve(ctx context.Context, f *fleet.Fleet, names files, limit time.Duration, stdout io.Writer) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	if err := names.credentials(f); err != nil {
		return err
	}
	port, err := f.Start()
	if err != nil {
		return err
	}
	if err := names.addresses(f, port); err != nil {
		return errors.Join(err, f.Close())
	}
	kind, behaviour := "hosts", f.Shares.String()
	if f.SSH != nil {
		kind, behaviour = "SSH hosts", f.SSHShares.String()
	}
	_, err = fmt.Fprintf(stdout, "fleetsim: %d %s on %v to %v, port %d, behaviour %s%s\n",
		f.Hosts, kind, fleet.Addr(1), fleet.Addr(f.Hosts), port, behaviour, map[bool]string{true: ", fast: no command is run"}[f.Fast])
	if err == nil {
		<-ctx.Done()
	}
	a := f.Account() // before Close ends what goes on
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if _, printErr := fmt.Fprintf(stdout, "fleetsim: %d connections, %d refused, at most %d at once, %d cut off at the end\n",
		a.Connections, a.Refused, a.Most, a.Now); err == nil {
		err = printErr
	}
	return err
}

// write replaces a file as a whole, so that nobody reads half of it.
func write(name string, mode os.FileMode, content func(io.Writer) error) error {
	t, err := os.CreateTemp(filepath.Dir(name), ".fleetsim-*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name())
	err = errors.Join(content(t), t.Chmod(mode), t.Close())
	if err != nil {
		return err
	}
	return os.Rename(t.Name(), name)
}
