package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"multirsh/runner"
	"multirsh/runner/journal"
)

// env is all of the process that the program sees.
type env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Args           []string // without the program's name
	Getenv         func(string) string
	Now            func() time.Time
	Etc            string // where the machine has its configuration: /etc

	// Terminal opens the one that the process belongs to, for questions: whatever the streams are, a person is there. It fails
	// where there is none.
	Terminal func() (*os.File, error)

	// Signals is called when the options are understood, and gives those that ask something of us. Until then they do to the
	// process what they always do.
	Signals func() <-chan os.Signal
}

// verbs are the commands of ours that are no runs. The first argument alone chooses one, before anything is parsed:
// "multi-rsh -- hosts h1" runs a remote command of that name.
var verbs = map[string]func(e *env, args []string) error{
	"doctor": (*env).doctorVerb,
	"hosts":  (*env).hostsVerb,
	"ports":  (*env).portsVerb,
	"replay": (*env).replayVerb,
	"report": (*env).reportVerb,
	"runs":   (*env).runsVerb,
}

// again are the verbs that run, but take what from the journal.
var again = map[string]func(e *env, args []string) (*config, error){
	"resume": (*env).resume,
	"retry":  (*env).retry,
}

// run is the program: it does what the arguments ask for and returns the exit status.
func run(e *env) int {
	if len(e.Args) > 0 {
		if verb := verbs[e.Args[0]]; verb != nil {
			return e.end(runner.Summary{}, verb(e, e.Args[1:]), false)
		}
	}
	var summary runner.Summary
	c, err := e.configuration()
	switch {
	case err != nil:
		c = &config{}
	case c.action == "":
		summary, err = e.runHosts(c)
	case c.action == "help":
		page, known := helpTopics[c.topic]
		if !known {
			page = runHelp
		}
		err = runLine.help(e.Stdout, page)
	case c.action == "man":
		err = e.writeManual(manual)
	case c.action == "version":
		_, err = fmt.Fprintf(e.Stdout, "multi-rsh %s\n", version)
	}
	summary.Hosts += c.leftOut // none of which is ok
	return e.end(summary, err, c.largestStatus)
}

// configuration is that of the run that the arguments ask for.
func (e *env) configuration() (*config, error) {
	if len(e.Args) > 0 {
		if verb := again[e.Args[0]]; verb != nil {
			return verb(e, e.Args[1:])
		}
	}
	return e.configure()
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
	signal, sink, end, policy := (*stopped)(nil), (*runner.SinkError)(nil), (*ending)(nil), (*runner.PolicyError)(nil)
	lost := (*journal.WriteError)(nil)
	switch {
	case err == nil || errors.As(err, &policy) || errors.As(err, &signal) || errors.As(err, &end):
		return ""
	case errors.As(err, &sink):
		return fmt.Sprintf("%s, so the run was stopped; %d of %d hosts were ok", unwritten(sink.Err), summary.Outcomes[runner.OK], summary.Hosts)
	case errors.As(err, &lost) && summary.Hosts > 0:
		return fmt.Sprintf("%v, so no further host was started and those running were waited for; %d of %d hosts were ok", lost, summary.Outcomes[runner.OK], summary.Hosts)
	case errors.As(err, &lost):
		return fmt.Sprintf("%v, and nothing has been run; --no-journal goes without one", lost)
	case errors.Is(err, syscall.EPIPE): // as of head(1), and nothing has been run
		return ""
	}
	return err.Error()
}

// unwritten says why output could not be written.
func unwritten(err error) string {
	path := (*fs.PathError)(nil)
	switch {
	case errors.Is(err, syscall.EPIPE):
		return "nobody reads the output any more"
	case !errors.As(err, &path) || path.Error() != err.Error(): // it says more
		return err.Error()
	case strings.HasPrefix(path.Path, "/dev/std"):
		return fmt.Sprintf("the output cannot be written (%v)", path.Err)
	}
	return fmt.Sprintf("%s cannot be written (%v)", path.Path, path.Err)
}

// patience is how long a run that was killed may take to end. It does take long when nobody reads our output, as a pager
// that shows its first page: then the process ends without it, and with the process every connection.
const patience = time.Second

// plainEvery is how often --progress=plain writes a line.
const plainEvery = 10 * time.Second

// wide is the fan-out above which memory counts for more than the collector's CPU. Most of what thousands of sessions hold are
// stacks and sockets; collecting the garbage between at half its usual growth takes a tenth off the whole, and at a quarter, with
// what SSH handshakes leave behind, another tenth. With a small heap it would only cost: a tenth of the CPU at a fan-out of 64.
const wide = 512

// plan is what is to be run, and on what.
type plan struct {
	hosts   *selection
	reach   *reach
	command *commander
	input   io.Closer // nil: none
	spooled string    // the input's file in the folder of runs, until it is in the run's own; "": it is none of these
	wallet  io.Closer // of ssh; nil: none
}

// close lets go of what the plan holds.
func (p *plan) close() {
	if p.wallet != nil {
		p.wallet.Close()
	}
	if p.reach != nil {
		p.reach.close()
	}
	if p.input != nil {
		p.input.Close()
	}
	if p.spooled != "" {
		os.Remove(p.spooled) // which it is not called any more when there is a journal
	}
}

// plan selects the hosts and prepares all that must be there before any of them is touched. An error of check, which gets the hosts, comes before
// anybody is asked for anything.
func (e *env) plan(ctx context.Context, c *config, check func(*selection) error) (_ *plan, err error) {
	p := &plan{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if err = e.canPause(c); err != nil {
		return nil, err
	}
	script, err := e.prepareScript(ctx, c)
	if err != nil {
		return nil, err
	}
	if p.hosts, err = e.selectHosts(ctx, c); err != nil {
		return nil, err
	}
	if err = check(p.hosts); err != nil {
		return nil, err
	}
	if p.reach, err = e.transports(c, p.hosts); err != nil {
		return nil, err
	}
	if p.command, err = e.commander(ctx, c, p.hosts, p.reach); err != nil {
		return nil, err
	}
	if c.input != "" || script != nil {
		var input *spooled // written by nobody any more when it is read here
		err = unlessStopped(ctx, func() (err error) {
			if script == nil {
				input, err = spool(c.input, e.Stdin, e.keepsInput(c))
				return err
			}
			both, err := script.followed(c.input, e.Stdin)
			if err == nil {
				defer both.Close()
				input, err = spool("-", both, e.keepsInput(c))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		p.command.base.Stdin, p.input, p.spooled = input.SectionReader, input.Closer, input.name
	}
	if p.reach.ssh != nil && !c.explain {
		if err = e.prepareSSH(ctx, c, p.reach.ssh, p.hosts); err != nil {
			return nil, err
		}
		p.wallet = p.reach.ssh.Wallet
	}
	return p, nil
}

// runHosts selects the hosts, runs the command on them, and obeys signals meanwhile.
func (e *env) runHosts(c *config) (runner.Summary, error) {
	signals := e.Signals()
	defer c.past.close()
	if c.dryRun {
		var summary runner.Summary
		err := e.before(signals, func(ctx context.Context) (err error) {
			summary, err = e.dryRun(ctx, c)
			return err
		})
		return summary, err
	}
	var p *plan
	err := e.before(signals, func(ctx context.Context) (err error) {
		p, err = e.plan(ctx, c, func(hosts *selection) error { return c.policies.check(hosts.count) })
		return err
	})
	if err != nil {
		return runner.Summary{}, err
	}
	defer p.close()
	hosts, reach := p.hosts, p.reach
	if c.explain {
		var summary runner.Summary
		err := e.before(signals, func(ctx context.Context) (err error) {
			summary, err = e.explain(ctx, c, hosts, reach, p.command)
			return err
		})
		return summary, err
	}
	if c.fanout > wide && e.Getenv("GOGC") == "" {
		growth := 50
		if hosts.by["ssh"] {
			growth = 25
		}
		debug.SetGCPercent(growth)
	}
	r := &runner.Runner{Transport: reach, Fanout: c.fanout, Timeout: c.timeout, FailFast: c.failFast, Limits: hosts.limits}
	c.policies.apply(r, hosts.count, !c.plain)
	kept, err := e.journal(c, p, r.Drain)
	if err != nil {
		return runner.Summary{}, err
	}
	defer kept.abandon()
	sink, err := e.console(c, p, kept.id())
	if err != nil {
		return runner.Summary{}, err
	}
	defer sink.release()
	kept.begin(sink, c)
	if c.rampPause {
		r.Between = (&pausing{e, sink, &c.view}).between
	}
	defer sink.suspends()()
	ports := reach.account()
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)

	type ending struct {
		runner.Summary
		error
	}
	ended := make(chan ending, 1)
	go func() {
		summary, err := r.Run(ctx, hosts.all, p.command.of, kept)
		ended <- ending{summary, cmp.Or(err, kept.lost())}
	}()

	var gaveUp, overdue, plain <-chan time.Time
	if c.progress == "plain" && !c.quiet {
		ticker := time.NewTicker(plainEvery)
		defer ticker.Stop()
		plain = ticker.C
	}
	var short <-chan time.Time
	if reach.ports != nil {
		ticker := time.NewTicker(shortAfter)
		defer ticker.Stop()
		short = ticker.C
	}
	// say is for the terminal. It does not wait: the run's loop may be held up by a reader of our output.
	say := func(f func()) { go r.Inspect(f) }
	// tell is for what must be said at once; a reader that takes nothing cannot hold it up for long.
	tell := func(text string) {
		told := make(chan struct{})
		go func() { io.WriteString(sink.stderr.W, text); close(told) }()
		select {
		case <-told:
		case <-time.After(patience):
		}
	}
	asked := interrupts{
		terminal: isTerminal(e.Stdin) || isTerminal(e.Stderr),
		status:   func() { say(func() { sink.status(e.Now()); sink.askAgain(e.Terminal) }) },
		stop: func(cause *stopped) {
			say(func() {
				fmt.Fprintf(sink.stderr.W, "multi-rsh: %v: what runs has %v to end\n", cause, runner.DefaultGrace)
			})
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
		case <-plain:
			say(func() { sink.progress.Plain(sink.stderr.W, e.Now()) })
		case <-short:
			if text := ports.short(); text != "" {
				short = nil // once is enough
				say(func() { io.WriteString(sink.stderr.W, text) })
			}
		case end := <-ended:
			if c.stats {
				ports.write(sink.stderr.W, reach)
			}
			sink.tellPolicy(end.error, end.Summary)
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

// before does what comes before the run, and ends it at a signal: then nothing has been run.
func (e *env) before(signals <-chan os.Signal, prepare func(context.Context) error) error {
	err := e.obey(signals, func(ctx context.Context) error {
		err := prepare(ctx)
		return cmp.Or(context.Cause(ctx), err)
	})
	if signal := (*stopped)(nil); errors.As(err, &signal) {
		fmt.Fprintf(e.Stderr, "multi-rsh: %v, and nothing has been run\n", err)
	}
	return err
}

// obey does something and ends it at a signal. What does not end by then soon, or at a second signal, as the reading of a key file that
// some dead server has, ends with the process.
func (e *env) obey(signals <-chan os.Signal, do func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	for {
		select {
		case signal := <-signals:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			stop(&stopped{signal})
		case err := <-done:
			return err
		}
	}
}

// unlessStopped does what cannot be told to stop, as a read of a terminal, and leaves it behind at the end of ctx: the process
// then soon ends.
func unlessStopped(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
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
