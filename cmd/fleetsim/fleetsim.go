//go:build unix

package main

import (
	"context"
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

	"multirsh/transport/fleet"
	"multirsh/transport/rsh/rshtest"
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
		Usage:           "serve a simulated fleet of rsh hosts on 127.1.0.1, 127.1.0.2 … of this machine",
		UsageText:       "fleetsim [options]",
		HideHelpCommand: true,
		Writer:          stdout,
		ErrWriter:       io.Discard, // errors are returned
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return usageError{err} },
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "hosts", Value: 100, Usage: "`NUMBER` of hosts"},
			&cli.StringFlag{Name: "behaviour", Value: "ok", Usage: "one `BEHAVIOUR`, or several with their shares: ok:95%,stall=handshake:5%"},
			&cli.Uint64Flag{Name: "seed", Usage: "another `NUMBER` gives other hosts the same shares"},
			&cli.IntFlag{Name: "port", Value: 514, Usage: "TCP `PORT` of all hosts; 0: any that is free"},
			&cli.StringFlag{Name: "hosts-file", Usage: "write the hosts' addresses to `FILE`, one a line"},
			&cli.DurationFlag{Name: "for", Usage: "end after `DURATION`; otherwise at SIGINT or SIGTERM"},
			&cli.StringFlag{Name: "daemon", Value: "redone", Usage: "be like the rshd of `NAME`: redone or netkit"},
			&cli.StringFlag{Name: "shell", Value: "/bin/sh", Usage: "`PATH` of the login shell"},
			&cli.BoolFlag{Name: "any-port", Usage: "ask for no reserved ports and use none: needs no privileges, and is not what an rshd does"},
			&cli.BoolFlag{Name: "verbose", Usage: "log on standard error what does not go well"},
			&cli.BoolFlag{Name: "fast", Usage: "for benchmarks: run no command, answer with --output at once"},
			&cli.StringFlag{Name: "output", Value: "ok", Usage: "with --fast: the `TEXT` that a command prints, as a line"},
			&cli.IntFlag{Name: "output-bytes", Usage: "with --fast: print this `NUMBER` of bytes instead, in lines of 64"},
			&cli.DurationFlag{Name: "hold", Usage: "with --fast: the `DURATION` of a wrapped command"},
		},
		CustomAppHelpTemplate: help(),
		Action: func(c *cli.Context) error {
			f, err := configure(c, stderr)
			if err != nil {
				return usageError{err}
			}
			return serve(ctx, f, c.String("hosts-file"), c.Duration("for"), stdout)
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
Behaviours:
`)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, d := range rshtest.Behaviours() {
		fmt.Fprintf(w, "   %s\t%s\n", d.Name, d.Text)
	}
	w.Flush()
	phases := make([]string, 0, len(rshtest.Phases()))
	for _, p := range rshtest.Phases() {
		phases = append(phases, string(p))
	}
	fmt.Fprintf(&b, "PHASE is one of %s.\n", strings.Join(phases, ", "))
	return b.String()
}

// configure makes the fleet that the options ask for.
func configure(c *cli.Context, stderr io.Writer) (*fleet.Fleet, error) {
	if c.NArg() > 0 {
		return nil, fmt.Errorf("no argument is wanted, and %q is one: options begin with --", c.Args().First())
	}
	f := &fleet.Fleet{
		Hosts: c.Int("hosts"), Port: uint16(c.Int("port")), Seed: c.Uint64("seed"),
		Fast: c.Bool("fast"), Hold: c.Duration("hold"),
	}
	f.Server.Shell, f.Server.AnyPort = c.String("shell"), c.Bool("any-port")
	if c.Bool("verbose") {
		f.Server.Log = log.New(stderr, "fleetsim: ", log.Ltime|log.Lmsgprefix)
	}
	switch port, hosts, bytes := c.Int("port"), c.Int("hosts"), c.Int("output-bytes"); {
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
	switch name := c.String("daemon"); name {
	case "redone":
		f.Server.Daemon = rshtest.Redone
	case "netkit":
		f.Server.Daemon = rshtest.Netkit
	default:
		return nil, fmt.Errorf("--daemon %s: it is redone or netkit", name)
	}
	var err error
	if f.Shares, err = fleet.ParseShares(c.String("behaviour")); err != nil {
		return nil, fmt.Errorf("--behaviour: %w", err)
	}
	return f, nil
}

// serve runs f until ctx ends or, when limit is not 0, until that time has passed.
func serve(ctx context.Context, f *fleet.Fleet, hostsFile string, limit time.Duration, stdout io.Writer) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	port, err := f.Start()
	if err != nil {
		return err
	}
	if hostsFile != "" {
		if err := writeHosts(hostsFile, f.Hosts, port); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	_, err = fmt.Fprintf(stdout, "fleetsim: %d hosts on %v to %v, port %d, behaviour %v%s\n",
		f.Hosts, fleet.Addr(1), fleet.Addr(f.Hosts), port, f.Shares, map[bool]string{true: ", fast: no command is run"}[f.Fast])
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

// writeHosts replaces the hosts file as a whole, so that nobody reads half of it.
func writeHosts(name string, hosts int, port uint16) error {
	t, err := os.CreateTemp(filepath.Dir(name), ".fleetsim-*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name())
	err = errors.Join(fleet.WriteHosts(t, hosts, port), t.Chmod(0o644), t.Close())
	if err != nil {
		return err
	}
	return os.Rename(t.Name(), name)
}
