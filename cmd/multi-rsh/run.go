package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/term"

	"multirsh/runner"
	"multirsh/transport"
)

// env is all of the process that the program sees.
type env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Args           []string // without the program's name
	Getenv         func(string) string
	Now            func() time.Time

	// Terminal opens the one that the process belongs to, for questions: whatever the streams are, a person is there. It fails
	// where there is none.
	Terminal func() (*os.File, error)

	// Signals is called when a run begins, and gives those that ask something of it. Until then, and without a run, they
	// do to the process what they always do.
	Signals func() <-chan os.Signal
}

// verbs are the commands of ours that are no runs. The first argument alone chooses one, before anything is parsed:
// "multi-rsh -- hosts h1" runs a remote command of that name.
var verbs = map[string]func(e *env, args []string) error{
	"hosts": (*env).hostsVerb,
}

// run is the program: it does what the arguments ask for and returns the exit status.
func run(e *env) int {
	if len(e.Args) > 0 {
		if verb := verbs[e.Args[0]]; verb != nil {
			return e.end(runner.Summary{}, verb(e, e.Args[1:]), false)
		}
	}
	var summary runner.Summary
	c, err := configure(e.Args, e.Getenv)
	switch {
	case err != nil:
		c = &config{}
	case c.action == "":
		summary, err = e.runHosts(c)
	case c.action == "help":
		err = runLine.help(e.Stdout, runHelp)
	case c.action == "man":
		err = e.writeManual(manual)
	case c.action == "version":
		_, err = fmt.Fprintf(e.Stdout, "multi-rsh %s\n", version)
	}
	return e.end(summary, err, c.largestStatus)
}

// end says what is still to be said, and returns the exit status.
func (e *env) end(summary runner.Summary, err error, largest bool) int {
	if text := complaint(summary, err); text != "" {
		fmt.Fprintf(e.Stderr, "multi-rsh: %s\n", text)
	}
	return exitStatus(summary, err, largest)
}

// complaint is the text of an error that ends the run; empty where the run has told it already.
func complaint(summary runner.Summary, err error) string {
	signal, sink := (*stopped)(nil), (*runner.SinkError)(nil)
	switch {
	case err == nil || errors.Is(err, runner.ErrFailFast) || errors.As(err, &signal):
		return ""
	case errors.As(err, &sink):
		why := "nobody reads the output any more"
		if !errors.Is(err, syscall.EPIPE) {
			why = fmt.Sprintf("the output cannot be written (%v)", reason(sink.Err))
		}
		return fmt.Sprintf("%s, so the run was stopped; %d of %d hosts were ok", why, summary.Outcomes[runner.OK], summary.Hosts)
	}
	return err.Error()
}

// patience is how long a run that was killed may take to end. It does take long when nobody reads our output, as a pager
// that shows its first page: then the process ends without it, and with the process every connection.
const patience = time.Second

// wide is the fan-out above which memory counts for more than the collector's CPU. Most of what thousands of sessions hold are
// stacks and sockets; collecting the garbage between at half its usual growth takes a tenth off the whole, and at a quarter, with
// what SSH handshakes leave behind, another tenth. With a small heap it would only cost: a tenth of the CPU at a fan-out of 64.
const wide = 512

// runHosts selects the hosts, runs the command on them, and obeys signals meanwhile.
func (e *env) runHosts(c *config) (runner.Summary, error) {
	hosts, err := selectHosts(c, e.Stdin)
	if err != nil {
		return runner.Summary{}, err
	}
	reach, err := e.transports(c, hosts)
	if err != nil {
		return runner.Summary{}, err
	}
	defer reach.close()
	command := &transport.Command{Line: c.command}
	if c.input != "" {
		input, file, err := spool(c.input, e.Stdin)
		if err != nil {
			return runner.Summary{}, err
		}
		defer file.Close()
		command.Stdin = input
	}

	if c.fanout > wide && e.Getenv("GOGC") == "" {
		growth := 50
		if hosts.by["ssh"] {
			growth = 25
		}
		debug.SetGCPercent(growth)
	}
	signals := e.Signals()
	if reach.ssh != nil {
		err := e.before(signals, func(ctx context.Context) error { return e.prepareSSH(ctx, c, reach.ssh, hosts.reachedBy("ssh")) })
		if err != nil {
			return runner.Summary{}, err
		}
		defer reach.ssh.Wallet.Close()
	}
	r := &runner.Runner{Transport: reach, Fanout: c.fanout, Timeout: c.timeout, FailFast: c.failFast}
	sink := e.console(c, hosts.count, reach.retries)
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)

	type ending struct {
		runner.Summary
		error
	}
	ended := make(chan ending, 1)
	go func() {
		summary, err := r.Run(ctx, hosts.all, func(transport.Host) *transport.Command { return command }, sink)
		ended <- ending{summary, err}
	}()

	var gaveUp, overdue <-chan time.Time
	// say is for the terminal. It does not wait: the run's loop may be held up by a reader of our output.
	say := func(f func()) { go r.Inspect(f) }
	// tell is for what must be said at once; a reader that takes nothing cannot hold it up for long.
	tell := func(text string) {
		told := make(chan struct{})
		go func() { io.WriteString(e.Stderr, text); close(told) }()
		select {
		case <-told:
		case <-time.After(patience):
		}
	}
	asked := interrupts{
		terminal: isTerminal(e.Stdin) || isTerminal(e.Stderr),
		status:   func() { say(func() { sink.status(e.Now()) }) },
		stop: func(cause *stopped) {
			say(func() { fmt.Fprintf(e.Stderr, "multi-rsh: %v: what runs has %v to end\n", cause, runner.DefaultGrace) })
			stop(cause)
			if cause.signal != os.Interrupt {
				overdue = time.After(runner.DefaultGrace + patience)
			}
		},
		kill: func(cause *stopped) {
			tell("multi-rsh: killed: commands may still be running on their hosts\n")
			r.Kill(cause)
			stop(cause) // if the run has not begun
			if gaveUp == nil {
				gaveUp = time.After(patience)
			}
		},
	}
	for {
		select {
		case signal := <-signals:
			asked.take(signal, e.Now())
		case end := <-ended:
			return end.Summary, end.error
		case <-overdue:
			// A person has a third Ctrl-C. Who sends SIGTERM waits for the process to end, and it must not wait in its turn
			// for a reader that takes nothing. If that is what holds the run up, its loop does not answer.
			answered := make(chan struct{})
			go func() { r.Inspect(func() {}); close(answered) }()
			select {
			case <-answered:
			case end := <-ended:
				return end.Summary, end.error
			case <-time.After(patience):
				tell("multi-rsh: nobody takes the output, so the rest of it is lost\n")
				return runner.Summary{}, context.Cause(ctx)
			}
		case <-gaveUp:
			return runner.Summary{}, context.Cause(ctx)
		}
	}
}

// before does what comes before the run, and ends it at a signal: then nothing has been run. A second signal waits for nothing
// either, as for a key file that some dead server has; whatever is left then ends with the process.
func (e *env) before(signals <-chan os.Signal, prepare func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	done := make(chan error, 1)
	go func() { done <- prepare(ctx) }()
	for {
		select {
		case signal := <-signals:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			stop(&stopped{signal})
		case err := <-done:
			if ctx.Err() != nil {
				err = context.Cause(ctx)
				fmt.Fprintf(e.Stderr, "multi-rsh: %v, and nothing has been run\n", err)
			}
			return err
		}
	}
}

// terminal is the stream as a terminal, if it is one.
func terminal(stream any) (*os.File, bool) {
	file, isFile := stream.(*os.File)
	return file, isFile && term.IsTerminal(int(file.Fd()))
}

func isTerminal(stream any) bool {
	_, is := terminal(stream)
	return is
}
